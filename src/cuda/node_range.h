// SPDX-License-Identifier: Apache-2.0
// NVTX: Nsight shows the kernels of a node under its name.
#pragma once

#include <nvtx3/nvToolsExt.h>

#include <string>

namespace mstpp::cuda {

// The node whose kernels the thread launches, until the next one or the end.
class NodeRange {
 public:
  NodeRange() = default;
  ~NodeRange() {
    if (!node_.empty()) nvtxRangePop();
  }
  NodeRange(const NodeRange&) = delete;
  NodeRange& operator=(const NodeRange&) = delete;

  void Enter(const std::string& node) {
    if (node == node_) return;
    if (!node_.empty()) nvtxRangePop();
    node_ = node;
    nvtxRangePushA(node.c_str());
  }

 private:
  std::string node_;
};

}  // namespace mstpp::cuda
