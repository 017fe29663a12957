// SPDX-License-Identifier: Apache-2.0
// The time of each block, for backends that hand over a block's output when it is done.
#pragma once

#include <vector>

#include "engine/backend.h"
#include "model/graph.h"

namespace mstpp {

// Backend::Profile by RunWithTaps: a block's time is that from one tap to the next.
std::vector<KernelTime> ProfileByTaps(const Backend& backend, const Graph& graph,
                                      const TensorView& input, const MutableTensorView& output,
                                      Padding padding, Scratch& scratch, int warm_up, int runs);

}  // namespace mstpp
