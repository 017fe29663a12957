// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "model/graph.h"

namespace mstpp {

// One method an op; each appends a node and returns the index of its output value.
class GraphBuilder {
 public:
  explicit GraphBuilder(const Config& config) : config_(config) {}

  int Input();
  int Conv3x3(const std::string& name, int x, int residual = -1);
  int SpectralAttention(const std::string& name, int x);
  int FeedForward(const std::string& name, int x);
  int Downsample(const std::string& name, int x);
  int UpsampleFuse(const std::string& up_name, const std::string& fusion_name, int x, int skip);
  Graph Finish(int output);

 private:
  int Append(Node node, Value output);
  const Value& value(int i) const { return graph_.values[i]; }

  Config config_;
  Graph graph_;
};

}  // namespace mstpp
