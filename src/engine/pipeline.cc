// SPDX-License-Identifier: Apache-2.0
#include "engine/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <utility>

#include "engine/ensemble.h"
#include "engine/views.h"
#include "model/padding.h"
#include "mstpp/error.h"
#include "mstpp/mstpp.h"

namespace mstpp {
namespace {

std::string Where(const Image& image) { return image.source.empty() ? "image" : image.source; }

// Runs `work`; host memory exhausted in it becomes an Error that says for what.
template <typename Work>
void WithMemoryErrors(const std::string& where, int64_t n, const Config& config, int64_t height,
                      int64_t width, Work work) {
  const auto fail = [&] {
    const double cube_mib = static_cast<double>(n * height * width) *
                            static_cast<double>(config.bands * sizeof(float)) / (1 << 20);
    throw Error(
        ErrorCode::kOutOfMemory, where,
        fmt::format("not enough memory for {} x {} pixels{}: the result alone takes "
                    "{:.0f} MiB and the network's working memory several times that; use "
                    "a smaller picture or a machine with more memory",
                    width, height, n > 1 ? fmt::format(" in a batch of {}", n) : "", cube_mib));
  };
  try {
    work();
  } catch (const std::bad_alloc&) {
    fail();
  } catch (const std::length_error&) {
    fail();
  }
}

void Clip(std::vector<float>& values) {
  for (float& value : values) value = std::clamp(value, 0.0f, 1.0f);
}

}  // namespace

Pipeline::Pipeline(Model model, Options options, std::unique_ptr<Backend> backend)
    : model_(std::move(model)),
      options_(std::move(options)),
      scaling_(options_.scaling == Scaling::kFromWeights ? ParseScaling(model_.scaling())
                                                         : options_.scaling),
      backend_(std::move(backend)),
      description_(backend_->Description()) {}

std::unique_ptr<Pipeline::Workspace> Pipeline::TakeWorkspace() const {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      auto workspace = std::move(free_.back());
      free_.pop_back();
      return workspace;
    }
  }
  auto workspace = std::make_unique<Workspace>();
  workspace->scratch = backend_->NewScratch();
  return workspace;
}

void Pipeline::GiveWorkspace(std::unique_ptr<Workspace> workspace) const {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(workspace));
}

void Pipeline::CheckImage(const Image& image) const {
  const int channels = model_.config().in_channels;
  if (image.width < 1 || image.height < 1) {
    throw Error(ErrorCode::kInvalidArgument, Where(image),
                fmt::format("the picture is {} x {}: it has no pixels", image.width, image.height));
  }
  if (image.channels != channels) {
    throw Error(ErrorCode::kInvalidArgument, Where(image),
                fmt::format("the picture has {} channels, but the network takes {}", image.channels,
                            channels));
  }
  int64_t size = 0;
  if (__builtin_mul_overflow(image.width, image.height, &size) ||
      __builtin_mul_overflow(size, image.channels, &size) ||
      image.data.size() != static_cast<size_t>(size)) {
    throw Error(ErrorCode::kInvalidArgument, Where(image),
                fmt::format("{} values for {} channels of {} x {} pixels", image.data.size(),
                            image.channels, image.width, image.height));
  }
  CheckPadding(Where(image), image.height, image.width);
}

void Pipeline::CheckPadding(const std::string& where, int64_t height, int64_t width) const {
  const int multiple = model_.config().padding_multiple();
  if (options_.padding != Padding::kReflect ||
      (CanReflect(height, multiple) && CanReflect(width, multiple))) {
    return;
  }
  throw Error(ErrorCode::kInvalidArgument, where,
              fmt::format("{} x {} pixels: a side is too short to be padded by reflection to a "
                          "multiple of {}; pad with zeros (--pad zero) or use a larger picture",
                          width, height, multiple));
}

void Pipeline::CheckViews(const TensorView& input, const MutableTensorView& output) const {
  CheckTensorViews(input, output, model_.config().in_channels, model_.config().bands);
  CheckPadding("input", input.h, input.w);
}

void Pipeline::Run(const TensorView& input, const MutableTensorView& output) const {
  CheckViews(input, output);
  WithMemoryErrors("input", input.n, model_.config(), input.h, input.w, [&] {
    auto workspace = TakeWorkspace();
    backend_->Run(input, output, options_.padding, *workspace->scratch);
    GiveWorkspace(std::move(workspace));
  });
}

void Pipeline::RunWithTaps(const TensorView& input, const MutableTensorView& output,
                           const Engine::Tap& tap) const {
  CheckViews(input, output);
  WithMemoryErrors("input", input.n, model_.config(), input.h, input.w, [&] {
    auto workspace = TakeWorkspace();
    backend_->RunWithTaps(input, output, options_.padding, *workspace->scratch, tap);
    GiveWorkspace(std::move(workspace));
  });
}

std::vector<KernelTime> Pipeline::Profile(const TensorView& input, const MutableTensorView& output,
                                          int warm_up, int runs) const {
  CheckViews(input, output);
  if (warm_up < 0 || runs < 1) {
    throw Error(ErrorCode::kInvalidArgument, "runs", "a profile needs at least one run");
  }
  std::vector<KernelTime> times;
  WithMemoryErrors("input", input.n, model_.config(), input.h, input.w, [&] {
    auto workspace = TakeWorkspace();
    times = backend_->Profile(input, output, options_.padding, *workspace->scratch, warm_up, runs);
    GiveWorkspace(std::move(workspace));
  });
  return times;
}

Cube Pipeline::Run(const Image& image) const {
  CheckImage(image);
  Cube cube;
  WithMemoryErrors(Where(image), 1, model_.config(), image.height, image.width,
                   [&] { RunPicture(image, cube); });
  return cube;
}

void Pipeline::RunPicture(const Image& image, Cube& cube) const {
  cube.width = image.width;
  cube.height = image.height;
  cube.bands = model_.config().bands;
  cube.wavelengths_nm = model_.wavelengths_nm();
  cube.data.resize(static_cast<size_t>(cube.bands * cube.pixels()));

  auto workspace = TakeWorkspace();
  workspace->scaled.resize(image.data.size());
  const ScalingRange range = ScaleImage(image, scaling_, workspace->scaled.data());
  if (options_.ensemble == Ensemble::kNone) {
    RunBackend(workspace->scaled.data(), image.height, image.width, cube.data.data(),
               *workspace->scratch);
  } else {
    RunEnsemble(*workspace, cube);
  }
  GiveWorkspace(std::move(workspace));

  if (options_.clip) Clip(cube.data);
  cube.provenance = MakeProvenance(image, range);
}

void Pipeline::RunEnsemble(Workspace& workspace, Cube& cube) const {
  workspace.turned.resize(workspace.scaled.size());
  workspace.turned_cube.resize(cube.data.size());
  EnsembleReduction reduction(options_.ensemble, static_cast<int64_t>(cube.data.size()),
                              cube.data.data(), workspace.reduction);
  for (const Variant& variant : kEnsembleVariants) {
    const VariantLayout layout(variant, cube.height, cube.width);
    layout.Turn(model_.config().in_channels, workspace.scaled.data(), workspace.turned.data());
    RunBackend(workspace.turned.data(), layout.height(), layout.width(),
               workspace.turned_cube.data(), *workspace.scratch);
    reduction.Add(layout, cube.bands, workspace.turned_cube.data());
  }
}

void Pipeline::RunBackend(const float* input, int64_t height, int64_t width, float* output,
                          Scratch& scratch) const {
  const Config& config = model_.config();
  backend_->Run(TensorView::Nchw(input, 1, config.in_channels, height, width),
                MutableTensorView::Nchw(output, 1, config.bands, height, width), options_.padding,
                scratch);
}

Provenance Pipeline::MakeProvenance(const Image& image, const ScalingRange& range) const {
  return {.version = Version(),
          .source = image.source,
          .weights = model_.name(),
          .weights_sha256 = model_.weights_sha256(),
          .backend = options_.device.substr(0, options_.device.find(':')),
          .device = description_,
          .precision = ToString(options_.precision),
          .scaling = ToString(scaling_),
          .scale_min = range.min,
          .scale_max = range.max,
          .padding = ToString(options_.padding),
          .ensemble = ToString(options_.ensemble),
          .clipped = options_.clip};
}

}  // namespace mstpp
