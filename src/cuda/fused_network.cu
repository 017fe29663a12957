// SPDX-License-Identifier: Apache-2.0
// MST++ on the fused kernels, in FP16 or, with split maps (kernels/lanes.cuh), in TF32. A spectral
// attention block and the feed-forward network after it are one unit: position and, aside,
// gram_reduce, attention_logits and attention_matrix; then feed_forward, which joins. What
// gram_reduce adds is left by the kernel that writes the block's input, or else by gram.
#include <utility>

#include "cuda/fused_weights.cuh"
#include "cuda/kernels.cuh"
#include "cuda/memory_plan.h"
#include "cuda/program.h"
#include "mstpp/error.h"

namespace mstpp::cuda {

bool WantsWarpgroups(Maps maps, const DeviceInfo& gpu) {
#ifdef MSTPP_WARPGROUPS
  return maps == Maps::kHalf && gpu.major == 9 && gpu.minor == 0;
#else
  return false;
#endif
}

namespace {

class FusedNetwork final : public DeviceNetwork {
 public:
  FusedNetwork(const Network& network, Maps maps, const DeviceInfo& gpu)
      : config_(network.config),
        graph_(network.graph),
        gpu_(gpu),
        maps_(maps),
        weights_(PackFusedWeights(network, maps, gpu)) {}

  bool weights_fit() const { return weights_.fit; }

  size_t ArenaBytes(const Shape& shape, bool taps) const override {
    return Plan(shape, taps).memory.bytes;
  }

  Precision storage() const override { return Precision::kFP16; }

  Program Compile(const Shape& shape, bool taps, unsigned char* arena,
                  const NetworkIo* io) const override;

 private:
  // Memory of one shape: the graph's values, then every attention block's temporaries.
  struct Layout {
    MemoryPlan memory;
    size_t values = 0;
  };
  enum Temporary { kD, kPartials, kGram, kLogits, kMatrix, kTemporaries };

  // Where an attention node's S comes from: the node whose kernel leaves its parts as it writes the
  // map, or -1 if gram reads that; how many parts an image has, and whose.
  struct GramSource {
    int writer, count;
    GramParts parts;
  };
  GramSource SourceOfGram(int attention, const Shape& shape) const;
  int GramReader(int writer) const;
  size_t HalfBytes(const Value& value, const Shape& shape) const;
  Layout Plan(const Shape& shape, bool taps) const;
  std::vector<size_t> TemporaryBytes(int attention, const Shape& shape) const;

  Config config_;
  Graph graph_;
  DeviceInfo gpu_;
  Maps maps_;
  FusedWeights weights_;
};

// The attention node that reads what a node's kernel writes, if that can leave the parts of S; or
// -1.
int FusedNetwork::GramReader(int writer) const {
  const Node& node = graph_.nodes[writer];
  // No attention reads the first convolution or a sum with a residual.
  const bool conv = node.op == Op::kConv3x3 && node.input != graph_.input && node.extra < 0;
  // A block of downsampling has 64 of the outputs.
  const bool downsample = node.op == Op::kDownsample && graph_.values[node.output].level == 1;
  if (!conv && !downsample && node.op != Op::kUpsampleFuse) return -1;
  for (int i = writer + 1; i < static_cast<int>(graph_.nodes.size()); ++i) {
    const Node& reader = graph_.nodes[i];
    if (reader.op == Op::kSpectralAttention && reader.input == node.output) return i;
  }
  return -1;
}

FusedNetwork::GramSource FusedNetwork::SourceOfGram(int attention, const Shape& shape) const {
  const int level = graph_.values[graph_.nodes[attention].input].level;
  const int C = PaddedChannels(level);
  const int height = shape.height >> level, width = shape.width >> level;
  for (int i = 0; i < attention; ++i) {
    if (GramReader(i) != attention) continue;
    switch (graph_.nodes[i].op) {
      case Op::kConv3x3:
        return {i, ConvParts(maps_, height, width, gpu_), GramParts::kQuads};
      case Op::kDownsample:
        return {i, DownsampleParts(height, width), GramParts::kQuads};
      default:
        return {i, UpsampleFuseParts(C, maps_, height, width, gpu_),
                WantsWarpgroups(maps_, gpu_) ? GramParts::kQuads : GramParts::kVecs};
    }
  }
  return {-1, GramBlocks(C, height * width), GramParts::kRead};
}

std::vector<size_t> FusedNetwork::TemporaryBytes(int attention, const Shape& shape) const {
  const Node& node = graph_.nodes[attention];
  const int level = graph_.values[node.output].level,
            channels = graph_.values[node.output].channels;
  const size_t C = PaddedChannels(level), n = shape.images;
  const int pixels = (shape.height >> level) * (shape.width >> level);
  std::vector<size_t> bytes(kTemporaries);
  bytes[kD] = n * pixels * C * sizeof(uint16_t);
  bytes[kPartials] = n * SourceOfGram(attention, shape).count * GramPartBytes(static_cast<int>(C));
  bytes[kGram] = n * C * C * sizeof(float);
  bytes[kLogits] = n * AttentionFloats(channels, node.heads) * sizeof(float);
  bytes[kMatrix] = n * C * C * sizeof(uint16_t);
  return bytes;
}

// A value's bytes as a map of halves.
size_t FusedNetwork::HalfBytes(const Value& value, const Shape& shape) const {
  return static_cast<size_t>(shape.images) * (shape.height >> value.level) *
         (shape.width >> value.level) * PaddedChannels(value.level) * sizeof(uint16_t);
}

FusedNetwork::Layout FusedNetwork::Plan(const Shape& shape, bool taps) const {
  Layout layout;
  layout.values = graph_.values.size();
  std::vector<Lifetime> lifetimes = ValueLifetimes(graph_, taps, [&](const Value& value) {
    return (maps_ == Maps::kSplit ? 2 : 1) * HalfBytes(value, shape);
  });
  lifetimes.resize(layout.values + graph_.nodes.size() * kTemporaries);
  for (int i = 0; i < static_cast<int>(graph_.nodes.size()); ++i) {
    const Node& node = graph_.nodes[i];
    if (node.op != Op::kSpectralAttention) continue;
    // The input and the temporaries live on to the feed-forward node, which writes what this node
    // and that one give together; the value between exists for taps only.
    lifetimes[node.input].last = std::max(lifetimes[node.input].last, i + 1);
    if (!taps) lifetimes[node.output].bytes = 0;
    const std::vector<size_t> bytes = TemporaryBytes(i, shape);
    const int writer = SourceOfGram(i, shape).writer;
    for (int t = 0; t < kTemporaries; ++t) {
      const int first = t == kPartials && writer >= 0 ? writer : i;
      lifetimes[layout.values + i * kTemporaries + t] = {bytes[t], first, i + 1};
    }
  }
  layout.memory = PlanMemory(lifetimes);
  return layout;
}

Program FusedNetwork::Compile(const Shape& shape, bool taps, unsigned char* arena,
                              const NetworkIo* io) const {
  const Layout layout = Plan(shape, taps);
  const auto value = [&](int index) -> void* { return arena + layout.memory.offsets[index]; };
  Program program;
  const auto add = [&](const Node& node, const char* kernel, Launch launch, bool aside = false,
                       bool joins = false) {
    program.steps.push_back({node.tap_name(), kernel, std::move(launch), aside, joins});
  };
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    const FusedWeights::Buffers& w = weights_.nodes[i];
    const auto buffer = [&](const char* name) { return w.at(name).data(); };
    const auto floats = [&](const char* name) { return w.at(name).as<float>(); };
    const int level = graph_.values[node.input].level;
    const int C = PaddedChannels(level), c = graph_.values[node.input].channels;
    const int height = shape.height >> level, width = shape.width >> level;
    const auto temporary = [&](size_t at, int t) -> void* {
      return arena + layout.memory.offsets[layout.values + at * kTemporaries + t];
    };
    const int reader = GramReader(static_cast<int>(i));
    auto* written_partials =
        reader >= 0 ? static_cast<float*>(temporary(reader, kPartials)) : nullptr;
    switch (node.op) {
      case Op::kConv3x3:
        if (node.input == graph_.input) {
          ImageConvParams p{.io = io,
                            .y = value(node.output),
                            .weight = buffer("weight"),
                            .in_channels = config_.in_channels,
                            .height = height,
                            .width = width,
                            .images = shape.images};
          add(node, "conv3x3", ImageConvLaunch(maps_, p, gpu_));
        } else {
          const bool last = node.output == graph_.output;
          ConvParams p{.x = value(node.input),
                       .residual = node.extra >= 0 ? value(node.extra) : nullptr,
                       .y = last ? nullptr : value(node.output),
                       .weight = buffer("weight"),
                       .partials = written_partials,
                       .io = io,
                       .channels = config_.bands,
                       .height = height,
                       .width = width,
                       .images = shape.images};
          const ConvOutput output = !last             ? ConvOutput::kMap
                                    : shape.half_cube ? ConvOutput::kHalfCube
                                                      : ConvOutput::kCube;
          add(node, "conv3x3", ConvLaunch(output, maps_, p, gpu_));
        }
        break;
      case Op::kSpectralAttention: {
        const bool warpgroups = WantsWarpgroups(maps_, gpu_);
        const GramSource source = SourceOfGram(static_cast<int>(i), shape);
        auto* partials = static_cast<float*>(temporary(i, kPartials));
        auto* gram = static_cast<float*>(temporary(i, kGram));
        const AttentionParams attention{.s = gram,
                                        .wq = floats("wq"),
                                        .wk = floats("wk"),
                                        .wv = floats("wv"),
                                        .wproj = floats("wproj"),
                                        .rescale = floats("rescale"),
                                        .bias = floats("bias"),
                                        .logits = static_cast<float*>(temporary(i, kLogits)),
                                        .matrix = temporary(i, kMatrix),
                                        .channels = c,
                                        .heads = node.heads,
                                        .C = C,
                                        .images = shape.images,
                                        .stride = (c + 3) / 4 * 4};
        if (source.writer < 0) {
          const GramParams p{value(node.input), partials, height * width, source.count,
                             shape.images};
          add(node, "gram", GramLaunch(C, p), true);
        }
        add(node, "gram_reduce",
            Gram16ReduceLaunch(C, source.parts,
                               {.partials = partials,
                                .sum = gram,
                                .blocks = source.count,
                                .size = C * C,
                                .images = shape.images},
                               gpu_),
            true);
        add(node, "attention_logits", AttentionLogitsLaunch(attention, gpu_), true);
        add(node, "attention_matrix",
            AttentionMatrixLaunch(warpgroups ? MatrixForm::kHalfBricks : MatrixForm::kHalfTiles,
                                  attention, gpu_),
            true);
        const PositionParams p{.x = value(node.input),
                               .d = temporary(i, kD),
                               .value_weight = buffer("value"),
                               .depthwise1 = buffer("depthwise1"),
                               .depthwise2 = buffer("depthwise2"),
                               .height = height,
                               .width = width,
                               .images = shape.images};
        add(node, "position", PositionLaunch(C, p, gpu_));
        if (taps) {
          add(node, "tap",
              AttentionTapLaunch({.x = value(node.input),
                                  .d = temporary(i, kD),
                                  .matrix = temporary(i, kMatrix),
                                  .bricks = warpgroups,
                                  .y = value(node.output),
                                  .C = C,
                                  .pixels = height * width,
                                  .rests = maps_ == Maps::kSplit
                                               ? HalfBytes(graph_.values[node.input], shape) / 2
                                               : 0}),
              false, true);
        }
        break;
      }
      case Op::kFeedForward: {
        if (C >= 64 && WantsWarpgroups(maps_, gpu_)) {
          const WarpgroupFeedForwardParams p{.x = value(graph_.nodes[i - 1].input),
                                             .d = temporary(i - 1, kD),
                                             .out = value(node.output),
                                             .matrix = temporary(i - 1, kMatrix),
                                             .weights = buffer("weights"),
                                             .depthwise = buffer("depthwise"),
                                             .reciprocal_channels = 1.0f / static_cast<float>(c),
                                             .height = height,
                                             .width = width,
                                             .images = shape.images};
          add(node, "feed_forward", WarpgroupFeedForwardLaunch(C, p, gpu_), false, true);
          break;
        }
        const FeedForwardParams p{.x = value(graph_.nodes[i - 1].input),
                                  .d = temporary(i - 1, kD),
                                  .out = value(node.output),
                                  .matrix = temporary(i - 1, kMatrix),
                                  .weight1 = buffer("weight1"),
                                  .depthwise = buffer("depthwise"),
                                  .weight2 = buffer("weight2"),
                                  .reciprocal_channels = 1.0f / static_cast<float>(c),
                                  .height = height,
                                  .width = width,
                                  .images = shape.images};
        add(node, "feed_forward", FeedForwardLaunch(C, maps_, p, gpu_), false, true);
        break;
      }
      case Op::kDownsample: {
        const DownsampleParams p{.x = value(node.input),
                                 .y = value(node.output),
                                 .weight = buffer("weight"),
                                 .height = height,
                                 .width = width,
                                 .images = shape.images,
                                 .partials = written_partials};
        add(node, "downsample", DownsampleLaunch(C, maps_, p, gpu_));
        break;
      }
      case Op::kUpsampleFuse: {
        const UpsampleFuseParams p{.x = value(node.input),
                                   .skip = value(node.extra),
                                   .y = value(node.output),
                                   .weight = buffer("weight"),
                                   .skip_weight = buffer("skip"),
                                   .height = height,
                                   .width = width,
                                   .images = shape.images,
                                   .partials = written_partials};
        add(node, "upsample_fuse", UpsampleFuseLaunch(C / 2, maps_, p, gpu_));
        break;
      }
    }
    if (taps && node.output != graph_.output) {
      const Value& out = graph_.values[node.output];
      program.taps.push_back(
          {.after_step = static_cast<int>(program.steps.size()) - 1,
           .name = node.tap_name(),
           .data = value(node.output),
           .height = shape.height >> out.level,
           .width = shape.width >> out.level,
           .channels = out.channels,
           .stride = PaddedChannels(out.level),
           .rests = maps_ == Maps::kSplit
                        ? static_cast<unsigned char*>(value(node.output)) + HalfBytes(out, shape)
                        : nullptr});
    }
  }
  return program;
}

// Every attention node is followed by the feed-forward node that completes it.
bool AttentionsAreCompleted(const Graph& graph) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (graph.nodes[i].op != Op::kSpectralAttention) continue;
    if (i + 1 == graph.nodes.size() || graph.nodes[i + 1].op != Op::kFeedForward ||
        graph.nodes[i + 1].input != graph.nodes[i].output) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::unique_ptr<DeviceNetwork> MakeFusedNetwork(const Network& network, Precision precision,
                                                const DeviceInfo& device) {
  const Config& config = network.config;
  // 31 bands or few less: every group of 32 channels must have channels of the network.
  if (config.bands > 31 || config.bands < 25 || 9 * config.in_channels > 31 ||
      config.levels() > 2 || device.major < 8 || !AttentionsAreCompleted(network.graph)) {
    return nullptr;
  }
  if (precision != Precision::kFP16 && precision != Precision::kTF32) return nullptr;
  const Maps maps = precision == Precision::kTF32 ? Maps::kSplit : Maps::kHalf;
  if (device.shared_bytes < FusedSharedBytes(maps)) return nullptr;
  auto fused = std::make_unique<FusedNetwork>(network, maps, device);
  if (maps == Maps::kSplit && !fused->weights_fit()) return nullptr;
  return fused;
}

}  // namespace mstpp::cuda
