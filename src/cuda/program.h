// SPDX-License-Identifier: Apache-2.0
// A network made ready for one GPU: its weights there, and for every input shape the kernels to
// launch in their order.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "model/network.h"
#include "mstpp/options.h"

namespace mstpp::cuda {

struct NetworkIo;  // kernels/network_io.h

// A batch of padded pictures.
struct Shape {
  int images = 0, height = 0, width = 0;
  bool half_cube = false;  // NetworkIo's cube is of halves
  auto operator<=>(const Shape&) const = default;
};

// One kernel launch. Steps run in order on the main stream; those with `aside` run on a second
// stream, beside the main steps that follow, until a main step with `joins`.
struct Step {
  std::string node;    // tap_name() of the node it belongs to
  std::string kernel;  // the stem of the source file
  std::function<void(cudaStream_t)> launch;
  bool aside = false;
  bool joins = false;
};

// A node's output, for Engine::RunWithTaps: NHWC with `stride` channels.
struct TapPoint {
  int after_step = 0;  // valid when this step is done and before the next starts
  std::string name;
  const void* data = nullptr;
  int height = 0, width = 0, channels = 0, stride = 0;
  const void* rests = nullptr;  // to be added, stored like `data`; null if there are none
};

struct Program {
  std::vector<Step> steps;
  std::vector<TapPoint> taps;  // only if asked for
};

class DeviceNetwork {
 public:
  virtual ~DeviceNetwork() = default;
  // Bytes of working memory for a shape; `taps`: every node's output is kept in memory.
  virtual size_t ArenaBytes(const Shape& shape, bool taps) const = 0;
  // The steps for pictures given by `io`, in working memory at `arena`.
  virtual Program Compile(const Shape& shape, bool taps, unsigned char* arena,
                          const NetworkIo* io) const = 0;
  // How feature maps are stored: for taps.
  virtual Precision storage() const = 0;
};

// Throws Error (kDeviceUnavailable) if this build has no code for the current device.
void CheckCode();

// Fused kernels for FP16 and TF32 networks of 25 to 31 bands, up to 3 channels in and up to 3
// levels; null for others, and in TF32 for weights beyond FP16's range.
std::unique_ptr<DeviceNetwork> MakeFusedNetwork(const Network& network, Precision precision,
                                                const DeviceInfo& device);
// Any network in any precision.
std::unique_ptr<DeviceNetwork> MakePortableNetwork(const Network& network, Precision precision,
                                                   const DeviceInfo& device);

}  // namespace mstpp::cuda
