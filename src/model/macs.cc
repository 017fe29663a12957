// SPDX-License-Identifier: Apache-2.0
#include "model/macs.h"

#include "model/network.h"
#include "model/padding.h"
#include "mstpp/model.h"

namespace mstpp {
namespace {

// Multiply-accumulates of one block, a pixel of its output. The restructured form leaves out q, k
// and the per-pixel attention product: it needs S = X'X, V and X M' (docs/architecture.md).
Macs PerPixel(const Graph& graph, const Node& node) {
  const int64_t in = graph.values[node.input].channels;
  const int64_t out = graph.values[node.output].channels;
  switch (node.op) {
    case Op::kConv3x3:
      return {9 * in * out, 9 * in * out};
    case Op::kSpectralAttention: {
      const int64_t depthwise = 2 * 9 * in;
      const int64_t head = in / node.heads;
      return {4 * in * in + 2 * in * head + depthwise, 3 * in * in + depthwise};
    }
    case Op::kFeedForward:
      return {8 * in * in + 9 * 4 * in, 8 * in * in + 9 * 4 * in};
    case Op::kDownsample:
      return {16 * in * out, 16 * in * out};
    case Op::kUpsampleFuse: {
      const int64_t upsample = in * out;
      const int64_t skip = out * out;
      return {upsample + 2 * skip, upsample + skip};
    }
  }
  return {};
}

}  // namespace

Macs CountNodeMacs(const Graph& graph, const Node& node, int64_t height, int64_t width) {
  const int level = graph.values[node.output].level;
  const int64_t pixels = (height >> level) * (width >> level);
  const Macs pixel = PerPixel(graph, node);
  return {pixels * pixel.published, pixels * pixel.restructured};
}

Macs Model::CountMacs(int64_t height, int64_t width) const {
  const int multiple = config().padding_multiple();
  Macs macs;
  for (const Node& node : network().graph.nodes) {
    const Macs block =
        CountNodeMacs(network().graph, node, RoundUp(height, multiple), RoundUp(width, multiple));
    macs.published += block.published;
    macs.restructured += block.restructured;
  }
  return macs;
}

}  // namespace mstpp
