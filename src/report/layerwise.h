// SPDX-License-Identifier: Apache-2.0
// Where two engines part: every block's output of one against the other's.
#pragma once

#include <string>
#include <vector>

#include "mstpp/engine.h"
#include "report/error_statistics.h"

namespace mstpp {

struct BlockError {
  std::string name;  // PyTorch module name
  int64_t channels = 0, height = 0, width = 0;
  ErrorStatistics error;  // of a's output, b's expected
};

// The blocks of a network in the order they run, and statistics of all inputs so far. The two
// engines run at the same time, in lock step: whichever reaches a block first waits there for the
// other, and both outputs are compared where they lie. So no output is held or computed twice.
class LayerwiseComparison {
 public:
  // Throws Error (kInvalidArgument) unless both run the same network.
  LayerwiseComparison(const Engine& a, const Engine& b);

  // One image (n = 1). The outputs are also what Engine::Run gives. Throws what the engines throw.
  void Run(const TensorView& input, const MutableTensorView& output_a,
           const MutableTensorView& output_b);

  // Blocks that one of the engines does not hand over (those it fuses, say) have count() 0.
  const std::vector<BlockError>& blocks() const { return blocks_; }

 private:
  const Engine& a_;
  const Engine& b_;
  std::vector<BlockError> blocks_;
};

}  // namespace mstpp
