// SPDX-License-Identifier: Apache-2.0
// The network: MST++ (Cai et al., "MST++: Multi-stage Spectral-wise Transformer for Efficient
// Spectral Reconstruction", CVPRW 2022). Names are those of the official PyTorch state dict.
#include <string>
#include <vector>

#include "model/graph_builder.h"

namespace mstpp {
namespace {

// Spectral-wise attention blocks: each an S-MSA and a feed-forward network, both residual.
int AttentionBlocks(GraphBuilder& g, const std::string& name, int x, int blocks) {
  for (int i = 0; i < blocks; ++i) {
    const std::string block = name + ".blocks." + std::to_string(i);
    x = g.SpectralAttention(block + ".0", x);
    x = g.FeedForward(block + ".1", x);
  }
  return x;
}

// One U-shaped transformer (MST).
int SingleStage(GraphBuilder& g, const std::string& name, int y, const Config& config) {
  const int levels = config.levels();
  int x = g.Conv3x3(name + ".embedding", y);
  std::vector<int> skips;
  for (int i = 0; i < levels; ++i) {
    const std::string layer = name + ".encoder_layers." + std::to_string(i);
    x = AttentionBlocks(g, layer + ".0", x, config.blocks[i]);
    skips.push_back(x);
    x = g.Downsample(layer + ".1", x);
  }
  x = AttentionBlocks(g, name + ".bottleneck", x, config.blocks[levels]);
  for (int i = 0; i < levels; ++i) {
    const std::string layer = name + ".decoder_layers." + std::to_string(i);
    const int level = levels - 1 - i;
    x = g.UpsampleFuse(layer + ".0", layer + ".1", x, skips[level]);
    x = AttentionBlocks(g, layer + ".2", x, config.blocks[level]);
  }
  return g.Conv3x3(name + ".mapping", x, /*residual=*/y);
}

}  // namespace

Graph BuildMstPlusPlus(const Config& config) {
  GraphBuilder g(config);
  const int a = g.Conv3x3("conv_in", g.Input());
  int y = a;
  for (int s = 0; s < config.stages; ++s) {
    y = SingleStage(g, "body." + std::to_string(s), y, config);
  }
  return g.Finish(g.Conv3x3("conv_out", y, /*residual=*/a));
}

}  // namespace mstpp
