// SPDX-License-Identifier: Apache-2.0
// How long each block of the network takes, and what it does in that time.
#pragma once

#include <string>
#include <vector>

#include "latency.h"
#include "model/graph.h"
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

// Bytes of the maps that a block reads and writes, once each, for one padded picture: a picture and
// a cube are FP32, maps between blocks what the precision says.
double MapBytes(const Graph& graph, const Node& node, int64_t height, int64_t width,
                Precision precision);

// In the network's order. Throws Error as Engine::Profile does.
std::vector<BlockProfile> ProfileBlocks(const Engine& engine, const TensorView& input,
                                        const MutableTensorView& output, int warm_up, int runs);

}  // namespace mstpp::cli
