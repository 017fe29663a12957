// SPDX-License-Identifier: Apache-2.0
// Any network of the family on the portable kernels. The attention matrix is made beside the
// positional branch.
#include <map>
#include <utility>

#include "cuda/kernels.cuh"
#include "cuda/layer_weights.h"
#include "cuda/memory_plan.h"
#include "cuda/pack.h"
#include "cuda/portable_kernels.cuh"
#include "cuda/program.h"
#include "model/padding.h"
#include "mstpp/error.h"

namespace mstpp::cuda {
namespace {

using portable::Map;

using Buffers = std::map<std::string, DeviceBuffer>;

DeviceBuffer Upload(const std::vector<float>& values) {
  return DeviceBuffer(std::span(reinterpret_cast<const unsigned char*>(values.data()),
                                values.size() * sizeof(float)));
}

int Stride(int channels) { return static_cast<int>(RoundUp(channels, portable::kSlab)); }

template <class T, int kTerms>
class PortableNetwork final : public DeviceNetwork {
 public:
  PortableNetwork(const Network& network, Precision storage, const DeviceInfo& gpu)
      : graph_(network.graph), storage_(storage), gpu_(gpu) {
    // An SM of some GPUs has 100 KiB of shared memory.
    const bool large = portable::FeedForwardShape<kTerms, 128>::kSharedBytes <= gpu.shared_bytes;
    fused_channels_ = large ? 128 : 64;
    for (const Node& node : graph_.nodes) weights_.push_back(Pack(node, network.tensors));
  }

  size_t ArenaBytes(const Shape& shape, bool taps) const override {
    return Plan(shape, taps).bytes;
  }
  Precision storage() const override { return storage_; }
  Program Compile(const Shape& shape, bool taps, unsigned char* arena,
                  const NetworkIo* io) const override;

 private:
  // Memory a node needs besides its values: hidden maps and the attention's small matrices.
  enum Temporary { kV, kD, kHidden, kPartials, kGram, kLogits, kMatrix, kTemporaries };

  int Channels(int value) const { return graph_.values[value].channels; }
  // Whether the feed-forward network of so many channels is one kernel.
  bool Fuses(int stride) const { return stride <= fused_channels_; }
  Buffers Pack(const Node& node, const StateDict& tensors) const;
  MemoryPlan Plan(const Shape& shape, bool taps) const;
  std::vector<size_t> TemporaryBytes(const Node& node, const Shape& shape) const;

  class Compiler;

  // FP16 and BF16 numbers are TF32 numbers: their products are exact.
  static constexpr int kGramTerms = sizeof(T) == 4 ? 3 : 1;

  Graph graph_;
  Precision storage_;
  DeviceInfo gpu_;
  int fused_channels_ = 0;
  std::vector<Buffers> weights_;
};

// [inputs / 16][outputs][16], both padded; inputs are `positions` groups of the stride's channels.
std::vector<float> ProductWeights(int outputs, int inputs, int positions,
                                  const std::function<float(int o, int i, int p)>& weight) {
  constexpr int kSlab = portable::kSlab;
  const int n = Stride(outputs), k = Stride(inputs);
  std::vector<float> packed(static_cast<size_t>(positions) * k * n, 0.0f);
  for (int p = 0; p < positions; ++p) {
    for (int i = 0; i < inputs; ++i) {
      const size_t slab = (static_cast<size_t>(p) * k + i) / kSlab;
      for (int o = 0; o < outputs; ++o) {
        packed[(slab * n + o) * kSlab + i % kSlab] = weight(o, i, p);
      }
    }
  }
  return packed;
}
std::vector<float> DenseWeights(const Tensor& tensor, int positions) {
  const WeightView w(tensor);
  return ProductWeights(w.outputs(), w.inputs(), positions,
                        [&](int o, int i, int p) { return w.at(o, i, p); });
}
// [9 taps][stride]
std::vector<float> DepthwiseWeights(const Tensor& tensor) {
  const WeightView w(tensor);
  const int stride = Stride(w.outputs());
  std::vector<float> packed(9 * static_cast<size_t>(stride), 0.0f);
  for (int tap = 0; tap < 9; ++tap) {
    for (int c = 0; c < w.outputs(); ++c) packed[tap * stride + c] = w.at(c, 0, tap);
  }
  return packed;
}
std::vector<float> Padded(std::vector<float> values) {
  values.resize(Stride(static_cast<int>(values.size())), 0.0f);
  return values;
}

template <class T, int kTerms>
Buffers PortableNetwork<T, kTerms>::Pack(const Node& node, const StateDict& tensors) const {
  const auto tensor = [&](const char* suffix) -> const Tensor& {
    return tensors.at(node.name + suffix);
  };
  Buffers buffers;
  switch (node.op) {
    case Op::kConv3x3:
      buffers["weight"] = Upload(DenseWeights(tensor(".weight"), 9));
      break;
    case Op::kSpectralAttention:
      buffers["value"] = Upload(DenseWeights(tensor(".to_v.weight"), 1));
      buffers["depthwise1"] = Upload(DepthwiseWeights(tensor(".pos_emb.0.weight")));
      buffers["depthwise2"] = Upload(DepthwiseWeights(tensor(".pos_emb.2.weight")));
      buffers["wq"] = Upload(Transposed(tensor(".to_q.weight")));
      buffers["wk"] = Upload(Transposed(tensor(".to_k.weight")));
      buffers["wv"] = Upload(PaddedRows(tensor(".to_v.weight")));
      buffers["wproj"] = Upload(Transposed(tensor(".proj.weight")));
      buffers["rescale"] = Upload(tensor(".rescale").data);
      buffers["bias"] = Upload(Padded(tensor(".proj.bias").data));
      break;
    case Op::kFeedForward: {
      const FoldedNorm folded = FoldNorm(tensors, node.name, /*centred=*/false);
      const Tensor &depthwise = tensor(".fn.net.2.weight"), &second = tensor(".fn.net.4.weight");
      const auto first = [&](int o, int i, int = 0) { return folded.at(o, i); };
      if (Fuses(Stride(folded.channels))) {
        constexpr int kParts = portable::FeedForwardShape<kTerms, 32>::kParts;
        const int width = portable::FeedForwardWidth(folded.channels);
        const int hidden = Stride(folded.hidden);
        const WeightView taps(depthwise), w2(second);
        buffers["weight1"] = Upload(FirstFactors(kParts, hidden, width, first));
        buffers["depthwise"] = Upload(DepthwiseAndBias(
            hidden, [&](int o, int tap) { return taps.at(o, 0, tap); }, folded.bias));
        buffers["weight2"] =
            Upload(SecondFactors(kParts, width, hidden, [&](int o, int i) { return w2.at(o, i); }));
      } else {
        buffers["weight1"] = Upload(ProductWeights(folded.hidden, folded.channels, 1, first));
        buffers["bias1"] = Upload(Padded(folded.bias));
        buffers["depthwise"] = Upload(DepthwiseWeights(depthwise));
        buffers["weight2"] = Upload(DenseWeights(second, 1));
      }
      break;
    }
    case Op::kDownsample:
      buffers["weight"] = Upload(DenseWeights(tensor(".weight"), 16));
      break;
    case Op::kUpsampleFuse: {
      const FoldedUpsample folded = FoldUpsample(tensors, node);
      const WeightView fusion(tensors.at(node.name2 + ".weight"));
      const int c = folded.channels;
      std::vector<float> weight;  // of each phase from x, then from the skip
      const auto append = [&](const std::vector<float>& more) {
        weight.insert(weight.end(), more.begin(), more.end());
      };
      for (int phase = 0; phase < 4; ++phase) {
        append(
            ProductWeights(c, 2 * c, 1, [&](int o, int i, int) { return folded.at(phase, o, i); }));
        append(ProductWeights(c, c, 1, [&](int o, int i, int) { return fusion.at(o, c + i); }));
      }
      buffers["weight"] = Upload(weight);
      buffers["bias"] = Upload(Padded(folded.bias));
      break;
    }
  }
  return buffers;
}

int GramSumBlocks(int pixels) { return std::clamp(pixels / 512, 1, 264); }

template <class T, int kTerms>
std::vector<size_t> PortableNetwork<T, kTerms>::TemporaryBytes(const Node& node,
                                                               const Shape& shape) const {
  std::vector<size_t> bytes(kTemporaries, 0);
  const Value& value = graph_.values[node.output];
  const size_t n = shape.images, stride = Stride(value.channels);
  const size_t pixels =
      static_cast<size_t>(shape.height >> value.level) * (shape.width >> value.level);
  if (node.op == Op::kSpectralAttention) {
    bytes[kV] = bytes[kD] = n * pixels * stride * sizeof(T);
    bytes[kPartials] = n * GramSumBlocks(static_cast<int>(pixels)) * stride * stride * 4;
    bytes[kGram] = n * stride * stride * 4;
    bytes[kLogits] = n * AttentionFloats(value.channels, node.heads) * 4;
    bytes[kMatrix] = n * stride * stride * 4;
  } else if (node.op == Op::kFeedForward && !Fuses(static_cast<int>(stride))) {
    bytes[kHidden] = n * pixels * Stride(4 * value.channels) * sizeof(T);
  } else if (node.input == graph_.input) {
    bytes[kV] = n * pixels * Stride(Channels(graph_.input)) * sizeof(T);
  }
  return bytes;
}

template <class T, int kTerms>
MemoryPlan PortableNetwork<T, kTerms>::Plan(const Shape& shape, bool taps) const {
  const size_t values = graph_.values.size();
  std::vector<Lifetime> lifetimes = ValueLifetimes(graph_, taps, [&](const mstpp::Value& value) {
    return static_cast<size_t>(shape.images) * (shape.height >> value.level) *
           (shape.width >> value.level) * Stride(value.channels) * sizeof(T);
  });
  lifetimes.resize(values + graph_.nodes.size() * kTemporaries);
  for (int i = 0; i < static_cast<int>(graph_.nodes.size()); ++i) {
    const std::vector<size_t> bytes = TemporaryBytes(graph_.nodes[i], shape);
    for (int t = 0; t < kTemporaries; ++t) {
      lifetimes[values + i * kTemporaries + t] = {bytes[t], i, i};
    }
  }
  return PlanMemory(lifetimes);
}

// Turns the nodes into launches one after another.
template <class T, int kTerms>
class PortableNetwork<T, kTerms>::Compiler {
 public:
  Compiler(const PortableNetwork& network, const Shape& shape, bool taps, unsigned char* arena,
           const NetworkIo* io)
      : network_(network),
        graph_(network.graph_),
        shape_(shape),
        memory_(network.Plan(shape, taps)),
        arena_(arena),
        io_(io),
        taps_(taps) {}

  Program Run() {
    for (node_ = 0; node_ < graph_.nodes.size(); ++node_) {
      const Node& node = graph_.nodes[node_];
      switch (node.op) {
        case Op::kConv3x3:
          Conv(node);
          break;
        case Op::kSpectralAttention:
          Attention(node);
          break;
        case Op::kFeedForward:
          FeedForwardBlock(node);
          break;
        case Op::kDownsample:
          Add("downsample",
              portable::ConvLaunch<kTerms, 4, 2>(
                  Size(node.output, 16 * Stride(Channels(node.input))), Const(node.input),
                  W("weight"), portable::WriteMap<T>{Value(node.output), nullptr, nullptr, 0}));
          break;
        case Op::kUpsampleFuse:
          Upsample(node);
          break;
      }
      if (taps_ && node.output != graph_.output) AddTap(node);
    }
    return std::move(program_);
  }

 private:
  int Channels(int value) const { return graph_.values[value].channels; }
  const float* W(const std::string& name) const {
    return network_.weights_[node_].at(name).template as<float>();
  }
  T* Temporary(int t) const {
    return reinterpret_cast<T*>(arena_ +
                                memory_.offsets[graph_.values.size() + node_ * kTemporaries + t]);
  }
  float* Floats(int t) const { return reinterpret_cast<float*>(Temporary(t)); }

  Map<T> MapAt(T* data, int level, int channels) const {
    return {data, shape_.images, shape_.height >> level, shape_.width >> level, Stride(channels)};
  }
  Map<T> Value(int index) const {
    return MapAt(reinterpret_cast<T*>(arena_ + memory_.offsets[index]), graph_.values[index].level,
                 Channels(index));
  }
  static Map<const T> Const(const Map<T>& m) {
    return {m.data, m.images, m.height, m.width, m.stride};
  }
  Map<const T> Const(int index) const { return Const(Value(index)); }

  // A product with a row for every pixel of a value.
  portable::ProductSize Size(int value, int inputs, int outputs = 0) const {
    const int level = graph_.values[value].level;
    return {shape_.images, shape_.height >> level, shape_.width >> level, inputs,
            outputs > 0 ? outputs : Stride(Channels(value))};
  }

  void Add(const char* kernel, Launch launch, bool aside = false, bool joins = false) {
    program_.steps.push_back(
        {graph_.nodes[node_].tap_name(), kernel, std::move(launch), aside, joins});
  }

  void AddTap(const Node& node) {
    const Map<T> map = Value(node.output);
    program_.taps.push_back({.after_step = static_cast<int>(program_.steps.size()) - 1,
                             .name = node.tap_name(),
                             .data = map.data,
                             .height = map.height,
                             .width = map.width,
                             .channels = Channels(node.output),
                             .stride = map.stride});
  }

  void Conv(const Node& node) {
    Map<const T> x = Const(node.input);
    if (node.input == graph_.input) {
      const Map<T> picture = MapAt(Temporary(kV), 0, Channels(node.input));
      Add("picture", portable::ReadPictureLaunch(
                         portable::ConvertParams<T>{io_, picture, Channels(node.input)}));
      x = Const(picture);
    }
    const portable::ProductSize size = Size(node.output, 9 * x.stride);
    if (node.output == graph_.output) {
      const auto add = [&]<class Element>() {
        Add("conv3x3",
            portable::ConvLaunch<kTerms, 3, 1>(
                size, x, W("weight"),
                portable::WriteCube<T, Element>{io_, Const(node.extra), Channels(node.output)}));
      };
      if (shape_.half_cube) {
        add.template operator()<portable::Half>();
      } else {
        add.template operator()<float>();
      }
    } else {
      const T* residual = node.extra >= 0 ? Value(node.extra).data : nullptr;
      Add("conv3x3", portable::ConvLaunch<kTerms, 3, 1>(
                         size, x, W("weight"),
                         portable::WriteMap<T>{Value(node.output), residual, nullptr, 0}));
    }
  }

  void Attention(const Node& node) {
    const Map<const T> x = Const(node.input);
    const Map<T> y = Value(node.output);
    const int level = graph_.values[node.input].level, c = Channels(node.input);
    const Map<T> v = MapAt(Temporary(kV), level, c), d = MapAt(Temporary(kD), level, c);
    const int blocks = GramSumBlocks(x.height * x.width);
    Add("gram",
        portable::GramSumLaunch<kGramTerms>(
            portable::GramSumParams<T>{x, Floats(kPartials), blocks}),
        true);
    Add("gram_reduce",
        GramReduceLaunch({.partials = Floats(kPartials),
                          .sum = Floats(kGram),
                          .blocks = blocks,
                          .size = x.stride * x.stride,
                          .images = shape_.images}),
        true);
    const AttentionParams attention{.s = Floats(kGram),
                                    .wq = W("wq"),
                                    .wk = W("wk"),
                                    .wv = W("wv"),
                                    .wproj = W("wproj"),
                                    .rescale = W("rescale"),
                                    .bias = W("bias"),
                                    .logits = Floats(kLogits),
                                    .matrix = Temporary(kMatrix),
                                    .channels = c,
                                    .heads = node.heads,
                                    .C = x.stride,
                                    .images = shape_.images,
                                    .stride = (c + 3) / 4 * 4};
    Add("attention_logits", AttentionLogitsLaunch(attention, network_.gpu_), true);
    Add("attention_matrix", AttentionMatrixLaunch(MatrixForm::kPlain, attention, network_.gpu_),
        true);
    Add("value", portable::ProductLaunch<kTerms>(Size(node.output, x.stride), W("value"),
                                                 portable::LoadPixel<T>{x},
                                                 portable::WriteMap<T>{v, nullptr, nullptr, 0}));
    Add("position", portable::PositionLaunch(portable::PositionParams<T>{Const(v), W("depthwise1"),
                                                                         W("depthwise2"), d.data}));
    // Every image has a matrix of its own.
    for (int image = 0; image < shape_.images; ++image) {
      const auto one = [&](auto map) {
        map.data += static_cast<size_t>(image) * map.height * map.width * map.stride;
        map.images = 1;
        return map;
      };
      portable::ProductSize size = Size(node.output, x.stride);
      size.images = 1;
      Add("attend",
          portable::ProductLaunch<kTerms>(
              size, Floats(kMatrix) + static_cast<size_t>(image) * x.stride * x.stride,
              portable::LoadPixel<T>{one(x)},
              portable::WriteAttention<T>{one(y), one(x), one(Const(d)), W("bias")}),
          false, true);
    }
  }

  void FeedForwardBlock(const Node& node) {
    const Map<const T> x = Const(node.input);
    const int c = Channels(node.input);
    if (network_.Fuses(x.stride)) {
      Add("feed_forward", portable::FeedForwardLaunch<kTerms>(portable::FeedForwardParams<T>{
                              x, Value(node.output).data, W("weight1"), W("depthwise"),
                              W("weight2"), c, Stride(4 * c)}));
      return;
    }
    const Map<T> hidden = MapAt(Temporary(kHidden), graph_.values[node.input].level, 4 * c);
    Add("feed_forward1",
        portable::ProductLaunch<kTerms>(Size(node.output, x.stride, hidden.stride), W("weight1"),
                                        portable::LoadNormalised<T>{x, c},
                                        portable::WriteMap<T>{hidden, nullptr, W("bias1"), 1}));
    Add("feed_forward2", portable::ProductLaunch<kTerms>(
                             Size(node.output, hidden.stride), W("weight2"),
                             portable::LoadDepthwiseGelu<T>{Const(hidden), W("depthwise")},
                             portable::WriteMap<T>{Value(node.output), x.data, nullptr, 0}));
  }

  void Upsample(const Node& node) {
    const Map<const T> x = Const(node.input), skip = Const(node.extra);
    portable::ProductSize size = Size(node.input, x.stride + skip.stride, skip.stride);
    size.groups = 4;
    Add("upsample_fuse",
        portable::ProductLaunch<kTerms>(size, W("weight"), portable::LoadWithSkip<T>{x, skip},
                                        portable::WriteChild<T>{Value(node.output), W("bias")}));
  }

  const PortableNetwork& network_;
  const Graph& graph_;
  Shape shape_;
  MemoryPlan memory_;
  unsigned char* arena_;
  const NetworkIo* io_;
  bool taps_;
  size_t node_ = 0;
  Program program_;
};

template <class T, int kTerms>
Program PortableNetwork<T, kTerms>::Compile(const Shape& shape, bool taps, unsigned char* arena,
                                            const NetworkIo* io) const {
  return Compiler(*this, shape, taps, arena, io).Run();
}

}  // namespace

void CheckCode() {
  cudaFuncAttributes attributes;
  Check(cudaFuncGetAttributes(&attributes, portable::PositionKernel<float>),
        "looking for this GPU's code");
}

std::unique_ptr<DeviceNetwork> MakePortableNetwork(const Network& network, Precision precision,
                                                   const DeviceInfo& device) {
  const Config& config = network.config;
  const int channels = config.channels(config.levels());
  const AttentionShape attention(channels, channels / config.bands, Stride(channels),
                                 AttentionMatrixThreads(channels));
  if (attention.size * 4 > device.shared_bytes) {
    throw Error(ErrorCode::kUnsupported, "cuda",
                "a network of " + std::to_string(config.bands) + " bands and " +
                    std::to_string(config.levels()) +
                    " levels needs more shared memory than this GPU has; use the cpu");
  }
  switch (precision) {
    case Precision::kFP16:
      return std::make_unique<PortableNetwork<portable::Half, 1>>(network, precision, device);
    case Precision::kBF16:
      return std::make_unique<PortableNetwork<portable::Bfloat, 1>>(network, precision, device);
    case Precision::kTF32:
      return std::make_unique<PortableNetwork<float, 1>>(network, Precision::kFP32, device);
    default:
      return std::make_unique<PortableNetwork<float, 3>>(network, Precision::kFP32, device);
  }
}

}  // namespace mstpp::cuda
