// SPDX-License-Identifier: Apache-2.0
// How long each block of the network takes, and what it does in that time.
#pragma once

#include <string>
#include <vector>

#include "latency.h"
#include "mstpp/mstpp.h"

namespace mstpp::cli {

struct KernelProfile {
  std::string kernel;
  std::vector<double> seconds;  // a run each
  Latency latency;
};

// Of all the pictures together.
struct BlockProfile {
  std::string name;
  std::vector<KernelProfile> kernels;
  std::vector<double> seconds;
  Latency latency;
  double operations = 0;  // floating-point, as the engines compute it
  double bytes = 0;       // the maps that it reads and writes, once each, as they are stored
};

// In the network's order. Throws Error as Engine::Profile does.
std::vector<BlockProfile> ProfileBlocks(const Engine& engine, const TensorView& input,
                                        const MutableTensorView& output, int warm_up, int runs);

}  // namespace mstpp::cli
