// SPDX-License-Identifier: Apache-2.0
#include "flags.h"

#include <charconv>

#include "command.h"

namespace mstpp::cli {

void AddOutputFlags(CLI::App& app, OutputFlags& flags) {
  app.add_flag("--json", flags.json,
               "One JSON object on standard output, everything else on standard error");
  app.add_flag("-q,--quiet", flags.quiet, "Print errors only (and the JSON object)");
}

void AddModelFlags(CLI::App& app, ModelFlags& flags) {
  CLI::Option* weights =
      app.add_option("--weights", flags.weights,
                     "Weights: .pth, .safetensors, .npz or .onnx (default: the bundled ones)")
          ->type_name("FILE");
  const auto draw = [&flags](const std::string&) { flags.drawn = true; };
  app.add_option("--config", flags.config,
                 "Draw random weights for the network that this JSON file describes")
      ->type_name("FILE")
      ->each(draw)
      ->excludes(weights);
  app.add_option("--seed", flags.seed, "Draw random weights from this seed")
      ->type_name("N")
      ->each(draw)
      ->excludes(weights);
  app.add_flag("--allow-nonfinite", flags.allow_nonfinite,
               "Accept NaN and infinities in the weights");
}

Model LoadModel(const ModelFlags& flags) {
  if (flags.drawn) {
    return Model::Random(flags.config.empty() ? Config{} : ReadConfig(flags.config), flags.seed);
  }
  return Model::Load(flags.weights.empty() ? Model::DefaultPath() : flags.weights,
                     flags.allow_nonfinite);
}

Size ParseSize(const std::string& text) {
  constexpr int64_t kMost = 1 << 20;
  Size size;
  const char* end = text.data() + text.size();
  const auto height = std::from_chars(text.data(), end, size.height);
  if (height.ec == std::errc() && height.ptr < end && *height.ptr == 'x') {
    const auto width = std::from_chars(height.ptr + 1, end, size.width);
    if (width.ec == std::errc() && width.ptr == end && size.height >= 1 && size.width >= 1 &&
        size.height <= kMost && size.width <= kMost) {
      return size;
    }
  }
  throw UsageError("--size: '" + text + "' is not HEIGHTxWIDTH, such as 482x512");
}

void AddThreadsFlag(CLI::App& app, Options& options) {
  app.add_option("--threads", options.threads, "CPU threads; 0: all that the process may use")
      ->type_name("N")
      ->check(CLI::Range(0, 4096).description(""))
      ->capture_default_str();
}

void AddTransfersFlag(CLI::App& app, Options& options) {
  app.add_flag("--fp16-transfers", options.fp16_transfers,
               "cuda: cubes come from the GPU rounded to FP16, in half the bytes");
}

void AddOnnxRuntimeFlag(CLI::App& app, Options& options) {
  app.add_option("--onnxruntime", options.onnxruntime_library,
                 "ONNX Runtime's library, libonnxruntime.so (default: the one found)")
      ->type_name("FILE");
}

void AddEngineFlags(CLI::App& app, Options& options) {
  app.add_option("--device", options.device,
                 "auto (the fastest usable), reference, cpu, cuda[:N], tensorrt[:N], onnxruntime, "
                 "onnxruntime-cuda[:N]")
      ->type_name("NAME")
      ->capture_default_str();
  AddOnnxRuntimeFlag(app, options);
  AddNamed(app, "--precision", options.precision, ParsePrecision,
           "fp32 (default), tf32, fp16, bf16 or int8: one that the device has");
  AddThreadsFlag(app, options);
}

}  // namespace mstpp::cli
