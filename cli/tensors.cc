// SPDX-License-Identifier: Apache-2.0
#include "tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include "core/atomic_file.h"
#include "io/metadata.h"
#include "io/npy.h"
#include "mstpp/cube.h"
#include "mstpp/error.h"
#include "mstpp/mstpp.h"
#include "signals.h"

namespace mstpp::cli {
namespace {

// Of one part of a batch: enough to fill a GPU with small pictures, and computed in seconds, for an
// interrupt waits for the part.
constexpr int64_t kPartPixels = 1 << 18;

struct Shape {
  int64_t n, c, h, w;
};

Shape ShapeOf(const NpyReader& reader, const Config& config) {
  std::vector<int64_t> shape = reader.shape();
  if (shape.size() == 3) shape.insert(shape.begin(), 1);
  if (shape.size() != 4 || shape[1] != config.in_channels || reader.elements() < 1) {
    throw Error(ErrorCode::kInvalidArgument, reader.path(),
                fmt::format("the array is ({}); the network takes ({c}, H, W) or (N, {c}, H, W)",
                            fmt::join(reader.shape(), ", "), fmt::arg("c", config.in_channels)));
  }
  return {shape[0], shape[1], shape[2], shape[3]};
}

template <typename Work>
double Seconds(Work work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The metadata of a cube, without one.
Cube Describe(const Engine& engine, const std::string& source) {
  const Model& model = engine.model();
  const Options& options = engine.options();
  Cube cube;
  cube.bands = model.config().bands;
  cube.wavelengths_nm = model.wavelengths_nm();
  cube.provenance = {.version = Version(),
                     .source = source,
                     .weights = model.name(),
                     .weights_sha256 = model.weights_sha256(),
                     .backend = options.device.substr(0, options.device.find(':')),
                     .device = engine.device_description(),
                     .precision = ToString(options.precision),
                     .scaling = ToString(Scaling::kNone),
                     .padding = ToString(options.padding),
                     .ensemble = ToString(Ensemble::kNone),
                     .clipped = false};
  return cube;
}

// The two files, begun together.
struct Output {
  Output(const std::string& path, const std::vector<int64_t>& shape)
      : array(path, shape), sidecar(CubePaths(path).back()) {}

  WritingFile writing;  // first, so that it outlives the files
  NpyWriter array;
  AtomicFile sidecar;
};

}  // namespace

TensorRun RunTensorFile(const Engine& engine, const std::string& input, const std::string& output) {
  const Config& config = engine.model().config();
  NpyReader reader(input);
  const Shape shape = ShapeOf(reader, config);
  std::vector<int64_t> output_shape = reader.shape();
  output_shape[output_shape.size() - 3] = config.bands;

  const int64_t part = std::clamp<int64_t>(kPartPixels / (shape.h * shape.w), 1, shape.n);
  std::vector<float> in(static_cast<size_t>(part * shape.c * shape.h * shape.w));
  std::vector<float> out(static_cast<size_t>(part * config.bands * shape.h * shape.w));
  TensorRun run{shape.n, shape.h, shape.w};
  std::optional<Output> files;  // begun after the first part: until then nothing needs cleaning up
  for (int64_t i = 0; i < shape.n; i += part) {
    if (StopRequested()) throw Error(ErrorCode::kIo, input, "interrupted");
    const int64_t n = std::min(part, shape.n - i);
    const int64_t pixels = n * shape.h * shape.w;
    run.read_s += Seconds([&] { reader.Read(in.data(), pixels * shape.c); });
    engine.Run(TensorView::Nchw(in.data(), n, shape.c, shape.h, shape.w),
               MutableTensorView::Nchw(out.data(), n, config.bands, shape.h, shape.w));
    run.write_s += Seconds([&] {
      if (!files) files.emplace(output, output_shape);
      files->array.Write(out.data(), pixels * config.bands);
    });
  }
  run.write_s += Seconds([&] {
    const std::string metadata = MetadataToText(Describe(engine, input), 2) + "\n";
    files->sidecar.Write(metadata.data(), metadata.size());
    files->array.Commit();
    files->sidecar.Commit();
  });
  return run;
}

}  // namespace mstpp::cli
