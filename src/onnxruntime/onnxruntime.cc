// SPDX-License-Identifier: Apache-2.0
#include "onnxruntime/onnxruntime.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "model/network.h"
#include "model/padding.h"
#include "mstpp/error.h"
#include "onnx/export.h"
#include "onnxruntime/library.h"

namespace mstpp {
namespace {

using ort::Create;
using ort::Library;
using ort::Owned;

constexpr char kCuda[] = "CUDAExecutionProvider";
constexpr char kRemedy[] = "pip install onnxruntime, or name the library with --onnxruntime FILE";
constexpr char kCudaRemedy[] =
    "pip install onnxruntime-gpu with the CUDA libraries that it asks for, or name its library "
    "with --onnxruntime FILE";

struct OrtScratch final : Scratch {
  std::vector<float> input, output;  // padded, N x C x H x W
};

void AppendCuda(const Library& library, ort::SessionOptions* session, int device,
                Precision precision) {
  const ort::Api& api = library.api();
  const auto cuda =
      Create<ort::CudaOptions>(library, "making CUDA options", api.CreateCudaProviderOptions,
                               api.ReleaseCudaProviderOptions);
  const std::string number = fmt::to_string(device);
  const std::array<const char*, 3> keys{"device_id", "use_tf32", "cudnn_conv_algo_search"};
  const std::array<const char*, 3> values{number.c_str(), precision == Precision::kFP32 ? "0" : "1",
                                          "HEURISTIC"};
  library.Check(api.UpdateCudaProviderOptions(cuda.get(), keys.data(), values.data(), keys.size()),
                "setting CUDA options");
  library.Check(api.SessionOptionsAppendExecutionProviderCuda(session, cuda.get()),
                "starting its CUDA provider");
}

Owned<ort::SessionOptions> MakeSessionOptions(const Library& library, int threads,
                                              std::optional<int> cuda_device, Precision precision) {
  const ort::Api& api = library.api();
  auto options = Create<ort::SessionOptions>(library, "making options", api.CreateSessionOptions,
                                             api.ReleaseSessionOptions);
  library.Check(api.SetSessionGraphOptimizationLevel(options.get(), ort::kOptimizeAll),
                "setting options");
  library.Check(api.SetIntraOpNumThreads(options.get(), threads), "setting options");
  if (cuda_device) AppendCuda(library, options.get(), *cuda_device, precision);
  return options;
}

// One image or more, contiguous, padded.
void PadInto(const TensorView& input, int64_t height, int64_t width, Padding padding,
             std::vector<float>& padded) {
  padded.assign(static_cast<size_t>(input.n * input.c * height * width), 0.0F);
  const bool reflect = padding == Padding::kReflect;
  const int64_t rows = reflect ? height : input.h, columns = reflect ? width : input.w;
  for (int64_t plane = 0; plane < input.n * input.c; ++plane) {
    const float* from =
        input.data + plane / input.c * input.stride_n + plane % input.c * input.stride_c;
    float* to = padded.data() + plane * height * width;
    for (int64_t y = 0; y < rows; ++y) {
      const float* row = from + Reflect(y, input.h) * input.stride_h;
      for (int64_t x = 0; x < columns; ++x) {
        to[y * width + x] = row[Reflect(x, input.w) * input.stride_w];
      }
    }
  }
}

void CropFrom(const std::vector<float>& padded, int64_t height, int64_t width,
              const MutableTensorView& output) {
  for (int64_t plane = 0; plane < output.n * output.c; ++plane) {
    const float* from = padded.data() + plane * height * width;
    float* to =
        output.data + plane / output.c * output.stride_n + plane % output.c * output.stride_c;
    for (int64_t y = 0; y < output.h; ++y) {
      for (int64_t x = 0; x < output.w; ++x) {
        to[y * output.stride_h + x * output.stride_w] = from[y * width + x];
      }
    }
  }
}

class OnnxRuntimeBackend final : public Backend {
 public:
  OnnxRuntimeBackend(Model model, const Options& options, std::optional<int> cuda_device)
      : model_(std::move(model)),
        library_(Library::Load(options.onnxruntime_library)),
        threads_(options.threads > 0 ? options.threads
                                     : static_cast<int>(std::thread::hardware_concurrency())),
        cuda_device_(cuda_device),
        precision_(options.precision),
        memory_(Create<ort::MemoryInfo>(
            library_, "describing memory", library_.api().CreateCpuMemoryInfo,
            library_.api().ReleaseMemoryInfo, ort::kDeviceAllocator, ort::kDefaultMemory)),
        session_(MakeSession(/*taps=*/false)) {}

  std::unique_ptr<Scratch> NewScratch() const override { return std::make_unique<OrtScratch>(); }

  std::string Description() const override {
    const std::string device =
        cuda_device_ ? fmt::format("CUDA device {}", *cuda_device_)
                     : fmt::format("CPU, {} thread{}", threads_, threads_ == 1 ? "" : "s");
    return fmt::format("ONNX Runtime {}, {}", library_.version(), device);
  }

  void Run(const TensorView& input, const MutableTensorView& output, Padding padding,
           Scratch& scratch) const override {
    auto& s = static_cast<OrtScratch&>(scratch);
    const Size size = PaddedSize(input);
    PadInto(input, size.height, size.width, padding, s.input);
    s.output.resize(static_cast<size_t>(output.n * output.c * size.height * size.width));
    const auto x = Wrap(s.input, input.n, input.c, size);
    const auto y = Wrap(s.output, output.n, output.c, size);
    ort::Value* value = y.get();
    RunSession(session_.get(), x.get(), {"output"}, &value);
    CropFrom(s.output, size.height, size.width, output);
  }

  // Image by image, as the other backends do: the outputs of all blocks are held at once.
  void RunWithTaps(const TensorView& input, const MutableTensorView& output, Padding padding,
                   Scratch& scratch, const Engine::Tap& tap) const override {
    for (int64_t n = 0; n < input.n; ++n) {
      TensorView image = input;
      image.data += n * input.stride_n;
      image.n = 1;
      MutableTensorView cube = output;
      cube.data += n * output.stride_n;
      cube.n = 1;
      RunImageWithTaps(image, cube, padding, static_cast<OrtScratch&>(scratch), tap);
    }
  }

 private:
  struct Size {
    int64_t height, width;
  };

  Size PaddedSize(const TensorView& input) const {
    const int multiple = model_.config().padding_multiple();
    return {RoundUp(input.h, multiple), RoundUp(input.w, multiple)};
  }

  // The model is padded and cropped here, where the data are copied anyway.
  Owned<ort::Session> MakeSession(bool taps) const {
    const std::string bytes = BuildOnnx(
        model_, {.padding = std::nullopt,
                 .precision = precision_ == Precision::kFP16 ? Precision::kFP16 : Precision::kFP32,
                 .form = AttentionForm::kRestructured,
                 .taps = taps});
    const auto options = MakeSessionOptions(library_, threads_, cuda_device_, precision_);
    const ort::Api& api = library_.api();
    return Create<ort::Session>(library_, "loading the network", api.CreateSessionFromArray,
                                api.ReleaseSession, library_.env(), bytes.data(), bytes.size(),
                                options.get());
  }

  Owned<ort::Value> Wrap(std::vector<float>& data, int64_t n, int64_t c, const Size& size) const {
    const std::array<int64_t, 4> shape{n, c, size.height, size.width};
    const ort::Api& api = library_.api();
    return Create<ort::Value>(library_, "wrapping a tensor", api.CreateTensorWithDataAsOrtValue,
                              api.ReleaseValue, memory_.get(), data.data(),
                              data.size() * sizeof(float), shape.data(), shape.size(), ort::kFloat);
  }

  void RunSession(ort::Session* session, const ort::Value* input,
                  const std::vector<const char*>& output_names, ort::Value** outputs) const {
    const char* input_name = "input";
    library_.Check(library_.api().Run(session, nullptr, &input_name, &input, 1, output_names.data(),
                                      output_names.size(), outputs),
                   "running the network");
  }

  void RunImageWithTaps(const TensorView& image, const MutableTensorView& cube, Padding padding,
                        OrtScratch& s, const Engine::Tap& tap) const {
    const Size size = PaddedSize(image);
    PadInto(image, size.height, size.width, padding, s.input);
    const auto x = Wrap(s.input, 1, image.c, size);
    const Graph& graph = model_.network().graph;
    std::vector<const char*> names;
    for (const Node& node : graph.nodes) names.push_back(node.tap_name().c_str());
    std::vector<ort::Value*> values(names.size());
    RunSession(TapSession(), x.get(), names, values.data());
    std::vector<Owned<ort::Value>> owned;
    owned.reserve(values.size());
    for (ort::Value* value : values) owned.emplace_back(value, library_.api().ReleaseValue);
    for (size_t i = 0; i < values.size(); ++i) {
      const Value& map = graph.values[graph.nodes[i].output];
      void* data = nullptr;
      library_.Check(library_.api().GetTensorMutableData(values[i], &data), "reading a tensor");
      const auto view = TensorView::Nchw(static_cast<const float*>(data), 1, map.channels,
                                         size.height >> map.level, size.width >> map.level);
      if (graph.nodes[i].output == graph.output) {
        s.output.assign(view.data, view.data + map.channels * size.height * size.width);
        CropFrom(s.output, size.height, size.width, cube);
      }
      if (tap) tap(names[i], view);
    }
  }

  ort::Session* TapSession() const {
    const std::lock_guard lock(tap_mutex_);
    if (!tap_session_) tap_session_.emplace(MakeSession(/*taps=*/true));
    return tap_session_->get();
  }

  Model model_;
  const Library& library_;
  int threads_;
  std::optional<int> cuda_device_;
  Precision precision_;
  Owned<ort::MemoryInfo> memory_;
  Owned<ort::Session> session_;
  mutable std::mutex tap_mutex_;
  mutable std::optional<Owned<ort::Session>> tap_session_;  // made on first use
};

}  // namespace

BackendStatus QueryOnnxRuntime(const Options& options, int) {
  BackendStatus status{.name = "onnxruntime"};
  try {
    const Library& library = Library::Load(options.onnxruntime_library);
    status.usable = true;
    status.detail = fmt::format("ONNX Runtime {} ({}), {}", library.version(), library.path(),
                                fmt::join(library.providers(), ", "));
    status.precisions = {Precision::kFP32};
  } catch (const Error& error) {
    status.detail = error.what();
    status.remedy = kRemedy;
  }
  return status;
}

BackendStatus QueryOnnxRuntimeCuda(const Options& options, int index) {
  BackendStatus status{.name = "onnxruntime-cuda"};
  try {
    const Library& library = Library::Load(options.onnxruntime_library);
    if (!library.HasProvider(kCuda)) {
      throw Error(ErrorCode::kDeviceUnavailable, library.path(),
                  fmt::format("ONNX Runtime {} has no CUDA provider, only {}", library.version(),
                              fmt::join(library.providers(), ", ")));
    }
    // That it was built with the provider does not say that CUDA's libraries and a GPU are there.
    MakeSessionOptions(library, 1, index, Precision::kFP32);
    status.usable = true;
    status.detail = fmt::format("ONNX Runtime {} ({}), CUDA device {}", library.version(),
                                library.path(), index);
    status.precisions = {Precision::kFP32, Precision::kTF32, Precision::kFP16};
  } catch (const Error& error) {
    status.detail = error.what();
    status.remedy = kCudaRemedy;
  }
  return status;
}

std::unique_ptr<Backend> CreateOnnxRuntimeBackend(const Model& model, const Options& options, int) {
  return std::make_unique<OnnxRuntimeBackend>(model, options, std::nullopt);
}

std::unique_ptr<Backend> CreateOnnxRuntimeCudaBackend(const Model& model, const Options& options,
                                                      int index) {
  return std::make_unique<OnnxRuntimeBackend>(model, options, index);
}

}  // namespace mstpp
