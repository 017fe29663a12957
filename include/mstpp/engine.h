// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mstpp/cube.h"
#include "mstpp/image.h"
#include "mstpp/model.h"
#include "mstpp/options.h"

namespace mstpp {

// A strided view of N x C x H x W floats. Strides in elements, any order.
template <typename T>
struct BasicTensorView {
  T* data = nullptr;
  int64_t n = 0, c = 0, h = 0, w = 0;
  int64_t stride_n = 0, stride_c = 0, stride_h = 0, stride_w = 0;

  static BasicTensorView Nchw(T* data, int64_t n, int64_t c, int64_t h, int64_t w) {
    return {data, n, c, h, w, c * h * w, h * w, w, 1};
  }
  static BasicTensorView Nhwc(T* data, int64_t n, int64_t c, int64_t h, int64_t w) {
    return {data, n, c, h, w, c * h * w, 1, w * c, c};
  }
};
using TensorView = BasicTensorView<const float>;
using MutableTensorView = BasicTensorView<float>;

// One backend as seen from here: usable, or why not and what would help.
struct BackendStatus {
  std::string name;  // "cpu"
  bool usable = false;
  std::string detail;  // usable: what it runs on; else: exactly why not
  std::string remedy;  // empty if usable
  std::vector<Precision> precisions;
};
std::vector<BackendStatus> QueryBackends(const Options& options = {});

// How long one kernel took, or one block on a backend that runs a block at once.
struct KernelTime {
  std::string block;       // PyTorch's module name, as taps give it
  std::string kernel;      // "feed_forward"
  std::vector<double> ms;  // a run each, over all the pictures
};

// Runs a model on one backend. Construction packs the weights; Run is const and thread-safe and
// allocates nothing after the first call of a shape (but for the Cube it returns).
class Engine {
 public:
  // Throws Error (kInvalidArgument, kDeviceUnavailable, kUnsupported, kOutOfMemory).
  explicit Engine(const Model& model, const Options& options = {});
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  // A picture to a cube of the same height and width: scaled, padded, run (8 times with an
  // ensemble), clipped, as the options say. Throws Error (kInvalidArgument: no pixels, a side
  // too short to reflect, wrong channels; kOutOfMemory).
  Cube Run(const Image& image) const;

  // The network alone, as in PyTorch: input N x in_channels x H x W, output N x bands x H x W,
  // host memory. No scaling, ensemble or clipping. Input and output must not overlap.
  void Run(const TensorView& input, const MutableTensorView& output) const;

  // As above, and hands over each block's output (N x C x H x W at that block's padded size, valid
  // during the call only) under its PyTorch module name. An attention or feed-forward block's
  // output includes the residual: x + S_MSA(x) is "...blocks.0.0", what follows "...blocks.0.1".
  using Tap = std::function<void(const std::string& name, const TensorView& value)>;
  void RunWithTaps(const TensorView& input, const MutableTensorView& output, const Tap& tap) const;

  // As Run, `warm_up` times and then `runs` times, kernel by kernel in their order, none beside
  // another; so together they take longer than Run. Throws Error (kUnsupported) if the backend
  // cannot tell its kernels apart.
  std::vector<KernelTime> Profile(const TensorView& input, const MutableTensorView& output,
                                  int warm_up, int runs) const;

  const Model& model() const;
  const Options& options() const;  // as given, with `device` the backend that was chosen
  const std::string& device_description() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mstpp
