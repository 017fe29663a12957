// SPDX-License-Identifier: Apache-2.0
#include "block_profile.h"

#include <map>

#include "model/macs.h"
#include "model/network.h"
#include "model/padding.h"

namespace mstpp::cli {
namespace {

void AddTo(std::vector<double>& sums, const std::vector<double>& terms) {
  sums.resize(terms.size());
  for (size_t i = 0; i < terms.size(); ++i) sums[i] += terms[i];
}

}  // namespace

double MapBytes(const Graph& graph, const Node& node, int64_t height, int64_t width,
                Precision precision) {
  const bool half = precision == Precision::kFP16 || precision == Precision::kBF16;
  double bytes = 0;
  for (int value : {node.input, node.extra, node.output}) {
    if (value < 0) continue;
    const bool outside = value == graph.input || value == graph.output;
    const Value& map = graph.values[value];
    bytes += static_cast<double>((height >> map.level) * (width >> map.level) * map.channels) *
             (half && !outside ? 2 : 4);
  }
  return bytes;
}

std::vector<BlockProfile> ProfileBlocks(const Engine& engine, const TensorView& input,
                                        const MutableTensorView& output, int warm_up, int runs) {
  const Network& network = engine.model().network();
  const Graph& graph = network.graph;
  const int64_t multiple = network.config.padding_multiple();
  const int64_t height = RoundUp(input.h, multiple), width = RoundUp(input.w, multiple);
  std::vector<BlockProfile> blocks;
  std::map<std::string, size_t> index;
  for (const Node& node : graph.nodes) {
    BlockProfile block;
    block.name = node.tap_name();
    const Macs macs = CountNodeMacs(graph, node, height, width);
    block.operations = 2.0 * static_cast<double>(input.n * macs.restructured);
    block.bytes = static_cast<double>(input.n) *
                  MapBytes(graph, node, height, width, engine.options().precision);
    index[block.name] = blocks.size();
    blocks.push_back(std::move(block));
  }
  for (const KernelTime& time : engine.Profile(input, output, warm_up, runs)) {
    KernelProfile kernel{time.kernel, time.ms, {}};
    for (double& seconds : kernel.seconds) seconds *= 1e-3;
    kernel.latency = Summarise(kernel.seconds);
    BlockProfile& block = blocks.at(index.at(time.block));
    AddTo(block.seconds, kernel.seconds);
    block.kernels.push_back(std::move(kernel));
  }
  for (BlockProfile& block : blocks) block.latency = Summarise(block.seconds);
  return blocks;
}

}  // namespace mstpp::cli
