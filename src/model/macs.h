// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/graph.h"
#include "mstpp/model.h"

namespace mstpp {

// Multiply-accumulates of one block for a picture of this padded size.
Macs CountNodeMacs(const Graph& graph, const Node& node, int64_t height, int64_t width);

}  // namespace mstpp
