// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "weights/format.h"
#include "weights/onnx_graph.h"

namespace mstpp {

// Reads the weights of MST++ off a graph that computes it as published, as PyTorch exports it:
// whatever the constants are called, each is known by its place. What a simplifier does to such a
// graph is undone: an equal constant shared, a factor of 1 or a term of 0 left out, GELU's factor
// 1/2 multiplied into the weight behind it. Throws Error (kUnsupported) naming the node where the
// graph is another.
void MatchOnnxWeights(const OnnxGraph& graph, const Source& source, WeightsFile* file);

}  // namespace mstpp
