// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <utility>

#include "cuda/fused_weights.cuh"
#include "cuda/kernels.cuh"
#include "cuda/layer_weights.h"
#include "mstpp/error.h"

namespace mstpp::cuda {
namespace {

using Buffers = FusedWeights::Buffers;

DeviceBuffer UploadFloats(const std::vector<float>& values) {
  return DeviceBuffer(std::span(reinterpret_cast<const unsigned char*>(values.data()),
                                values.size() * sizeof(float)));
}

class FusedPacker {
 public:
  FusedPacker(const Graph& graph, Maps maps, const DeviceInfo& gpu)
      : graph_(graph),
        maps_(maps),
        warpgroups_(WantsWarpgroups(maps, gpu)),
        inputs_(warpgroups_ ? Packer::Order::kPlain : Packer::Order::kVecs) {}

  Buffers Pack(const Node& node, const StateDict& tensors);
  bool fit() const { return fit_; }

 private:
  static constexpr auto kVecs = Packer::Lanes::kVecs, kBlocks = Packer::Lanes::kBlocks;

  Buffers PackConv(const Node& node, const StateDict& tensors);
  Buffers PackAttention(const Node& node, const StateDict& tensors);
  Buffers PackFeedForward(const Node& node, const StateDict& tensors);
  Buffers PackDownsample(const Node& node, const StateDict& tensors);
  Buffers PackUpsampleFuse(const Node& node, const StateDict& tensors);

  DeviceBuffer Upload(Packer& packer);

  const Graph& graph_;
  Maps maps_;
  bool warpgroups_;
  Packer::Order inputs_;  // of convolutions
  bool fit_ = true;
};

DeviceBuffer FusedPacker::Upload(Packer& packer) {
  fit_ = fit_ && packer.finite();
  const std::vector<unsigned char> bytes = packer.Take();
  return DeviceBuffer(std::span<const unsigned char>(bytes));
}

Buffers FusedPacker::Pack(const Node& node, const StateDict& tensors) {
  switch (node.op) {
    case Op::kConv3x3:
      return PackConv(node, tensors);
    case Op::kSpectralAttention:
      return PackAttention(node, tensors);
    case Op::kFeedForward:
      return PackFeedForward(node, tensors);
    case Op::kDownsample:
      return PackDownsample(node, tensors);
    case Op::kUpsampleFuse:
      return PackUpsampleFuse(node, tensors);
  }
  throw Error(ErrorCode::kInternal, node.name, "unknown block");
}

Buffers FusedPacker::PackConv(const Node& node, const StateDict& tensors) {
  const WeightView w(tensors.at(node.name + ".weight"));
  Packer packer;
  if (node.input == graph_.input) {
    const auto weight = [&](int o, int i) {
      const int dy = i / 16, dx = i % 16 / 4, channel = i % 4;
      if (channel == 3) return o == 31 && dy == 1 && dx == 1 ? 1.0f : 0.0f;
      return dx < 3 && channel < w.inputs() ? w.at(o, channel, dy * 3 + dx) : 0.0f;
    };
    packer.Rows(32, Packer::Order::kVecs, 48, Packer::Order::kQuads, weight);
    if (maps_ == Maps::kSplit) {
      packer.Rows(32, Packer::Order::kVecs, 48, Packer::Order::kQuads,
                  [&](int o, int i) { return HalfRest(weight(o, i)); });
    }
  } else {
    for (int first = 0; first < 32; first += 16) {
      for (int tap = 0; tap < 9; ++tap) {
        // The residual brings the 1 of the last channel, else the pixel itself does.
        const bool keeps_one = tap == 4 && node.extra < 0;
        packer.Rows(16, Packer::Order::kQuads, 32, inputs_, [&](int o, int i) {
          o += first;
          return o == 31 && i == 31 ? (keeps_one ? 1.0f : 0.0f) : w.at(o, i, tap);
        });
      }
    }
  }
  Buffers buffers;
  buffers["weight"] = Upload(packer);
  return buffers;
}

Buffers FusedPacker::PackAttention(const Node& node, const StateDict& tensors) {
  const auto tensor = [&](const char* suffix) -> const Tensor& {
    return tensors.at(node.name + suffix);
  };
  const int C = PaddedChannels(graph_.values[node.input].level);
  const WeightView value(tensor(".to_v.weight"));
  const WeightView first(tensor(".pos_emb.0.weight")), second(tensor(".pos_emb.2.weight"));
  Packer tiles, depthwise1, depthwise2;
  tiles.Tiles(C, kVecs, C, kBlocks, [&](int o, int i) { return kGeluScale * value.at(o, i); });
  depthwise1.Depthwise(C, kPositionSides == Sides::kTensorCores,
                       [&](int c, int tap) { return first.at(c, 0, tap); });
  depthwise2.Depthwise(C, kPositionSides == Sides::kTensorCores,
                       [&](int c, int tap) { return second.at(c, 0, tap); });
  Buffers buffers;
  buffers["value"] = Upload(tiles);
  buffers["depthwise1"] = Upload(depthwise1);
  buffers["depthwise2"] = Upload(depthwise2);
  buffers["wq"] = UploadFloats(Transposed(tensor(".to_q.weight")));
  buffers["wk"] = UploadFloats(Transposed(tensor(".to_k.weight")));
  buffers["wv"] = UploadFloats(PaddedRows(tensor(".to_v.weight")));
  buffers["wproj"] = UploadFloats(Transposed(tensor(".proj.weight")));
  // In M's last column, which is of halves too.
  for (const float bias : tensor(".proj.bias").data) {
    fit_ = fit_ && std::isfinite(HalfRest(bias));
  }
  buffers["rescale"] = UploadFloats(tensor(".rescale").data);
  buffers["bias"] = UploadFloats(tensor(".proj.bias").data);
  return buffers;
}

Buffers FusedPacker::PackFeedForward(const Node& node, const StateDict& tensors) {
  const int C = PaddedChannels(graph_.values[node.input].level);
  const int c = graph_.values[node.input].channels;
  const FoldedNorm folded = FoldNorm(tensors, node.name, /*centred=*/true);
  const WeightView depthwise_view(tensors.at(node.name + ".fn.net.2.weight"));
  const WeightView second_view(tensors.at(node.name + ".fn.net.4.weight"));
  const bool in_tiles = warpgroups_ && C >= 64;  // WarpgroupFeedForward
  // What GELU takes is `scale` times itself, what it gives twice that.
  const float scale = in_tiles ? kShortGeluScale : kGeluScale;
  const auto first = [&](int o, int i) {
    if (i == C - 1) return o < 4 * c ? scale * folded.bias[o] : 0.0f;
    return scale * folded.at(o, i);
  };
  const auto depthwise = [&](int channel, int tap) {
    return 0.5f * depthwise_view.at(channel, 0, tap);
  };
  const auto second = [&](int o, int i) { return second_view.at(o, i) / (2.0f * scale); };
  Buffers buffers;
  if (in_tiles) {
    constexpr int kHidden = WarpgroupFeedForwardShape<128>::kHidden;
    Packer weights, taps;
    for (int begin = 0; begin < 4 * C; begin += kHidden) {
      weights.Bricks(kHidden, C, [&](int o, int i) { return first(begin + o, i); });
      weights.Bricks(C, kHidden, [&](int o, int i) { return second(o, begin + i); });
    }
    taps.Taps(4 * C, depthwise);
    buffers["weights"] = Upload(weights);
    buffers["depthwise"] = Upload(taps);
  } else {
    Packer weight1, taps, weight2;
    weight1.Tiles(4 * C, kVecs, C, kBlocks, first);
    if (BandsFeedForward(C, maps_)) {
      taps.BandedDepthwise(4 * C, depthwise);
    } else {
      taps.Depthwise(4 * C, kFeedForwardSides == Sides::kTensorCores, depthwise);
    }
    if (warpgroups_) {
      weight2.VecBricks(C, 4 * C, second);
    } else {
      weight2.Tiles(C, kBlocks, 4 * C, kVecs, second);
    }
    buffers["weight1"] = Upload(weight1);
    buffers["depthwise"] = Upload(taps);
    buffers["weight2"] = Upload(weight2);
  }
  return buffers;
}

Buffers FusedPacker::PackDownsample(const Node& node, const StateDict& tensors) {
  const int C = PaddedChannels(graph_.values[node.input].level);
  const WeightView w(tensors.at(node.name + ".weight"));
  Packer packer;
  for (int first = 0; first < 2 * C; first += 16) {
    for (int tap = 0; tap < 16; ++tap) {
      packer.Rows(16, Packer::Order::kQuads, C, inputs_, [&](int o, int i) {
        o += first;
        // Tap (1, 1) is the pixel 2 r, 2 q: always inside.
        if (o == 2 * C - 1 && i == C - 1) return tap == 5 ? 1.0f : 0.0f;
        return w.at(o, i, tap);
      });
    }
  }
  Buffers buffers;
  buffers["weight"] = Upload(packer);
  return buffers;
}

Buffers FusedPacker::PackUpsampleFuse(const Node& node, const StateDict& tensors) {
  const int C = PaddedChannels(graph_.values[node.output].level);
  const int c = graph_.values[node.output].channels;
  const FoldedUpsample folded = FoldUpsample(tensors, node);
  const WeightView fusion(tensors.at(node.name2 + ".weight"));
  const auto outputs = warpgroups_ ? Packer::Order::kQuads : Packer::Order::kVecs;
  Packer weight, skip;
  for (int phase = 0; phase < 4; ++phase) {
    weight.Rows(C, outputs, 2 * C, inputs_, [&](int o, int i) { return folded.at(phase, o, i); });
  }
  skip.Rows(C, outputs, C, inputs_, [&](int o, int i) {
    if (i == C - 1) return o == C - 1 ? 1.0f : o < c ? folded.bias[o] : 0.0f;
    return i < c ? fusion.at(o, c + i) : 0.0f;
  });
  Buffers buffers;
  buffers["weight"] = Upload(weight);
  buffers["skip"] = Upload(skip);
  return buffers;
}

}  // namespace

FusedWeights PackFusedWeights(const Network& network, Maps maps, const DeviceInfo& gpu) {
  FusedPacker packer(network.graph, maps, gpu);
  FusedWeights weights;
  for (const Node& node : network.graph.nodes) {
    weights.nodes.push_back(packer.Pack(node, network.tensors));
  }
  weights.fit = packer.fit();
  return weights;
}

}  // namespace mstpp::cuda
