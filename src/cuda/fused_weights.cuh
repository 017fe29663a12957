// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/kernels/lanes.cuh"
#include "model/network.h"

namespace mstpp::cuda {

// How many channels the fused kernels' maps have.
constexpr int PaddedChannels(int level) { return 32 << level; }

// A network's weights on the current device, as the fused kernels read them.
struct FusedWeights {
  using Buffers = std::map<std::string, DeviceBuffer>;  // of a node, found by what they are
  std::vector<Buffers> nodes;
  // Whether every weight that is a factor of the tensor cores is a finite half.
  bool fit = true;
};
FusedWeights PackFusedWeights(const Network& network, Maps maps, const DeviceInfo& gpu);

}  // namespace mstpp::cuda
