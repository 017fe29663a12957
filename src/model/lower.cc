// SPDX-License-Identifier: Apache-2.0
#include "model/lower.h"

#include <string>
#include <vector>

namespace mstpp {
namespace {

using Id = Primitives::Id;
constexpr Id kNone = Primitives::kNone;
using Width = Primitives::Width;

class Lowering {
 public:
  Lowering(const Network& network, AttentionForm form, Primitives& target)
      : network_(network), form_(form), t_(target), values_(network.graph.values.size(), kNone) {}

  Id Run(Id input) {
    const Graph& graph = network_.graph;
    values_[graph.input] = input;
    for (const Node& node : graph.nodes) {
      values_[node.output] = Block(node);
      t_.EndBlock(BlockName(node), values_[node.output]);
    }
    return values_[graph.output];
  }

 private:
  Id Block(const Node& node) {
    const Id x = values_[node.input];
    switch (node.op) {
      case Op::kConv3x3:
        return Conv3x3(node, x);
      case Op::kSpectralAttention:
        return form_ == AttentionForm::kPublished ? PublishedAttention(node, x)
                                                  : RestructuredAttention(node, x);
      case Op::kFeedForward:
        return FeedForward(node.name, x);
      case Op::kDownsample:
        return Conv(node.name, x, {.stride = 2, .padding = 1});
      case Op::kUpsampleFuse:
        return UpsampleFuse(node, x, values_[node.extra]);
    }
    return kNone;
  }

  Id Weight(const std::string& name, const std::vector<int64_t>& shape = {},
            Width width = Width::kNetwork) {
    return t_.Weight(name, network_.tensor(name), shape, width);
  }

  Id Conv(const std::string& name, Id x, const Primitives::ConvShape& shape) {
    return t_.Conv(name, x, Weight(name + ".weight"), kNone, shape);
  }

  Id Depthwise3x3(const std::string& name, Id x, Id bias = kNone) {
    const int64_t channels = network_.tensor(name + ".weight").shape[0];
    return t_.Conv(name, x, Weight(name + ".weight"), bias, {.padding = 1, .groups = channels});
  }

  // torch.nn.Linear on each pixel, as a 1x1 convolution.
  Id Linear(const std::string& name, Id x, Id bias = kNone) {
    return t_.Conv(name, x, LinearWeight(name), bias, {});
  }

  Id LinearWeight(const std::string& name) {
    const std::vector<int64_t>& shape = network_.tensor(name + ".weight").shape;
    return Weight(name + ".weight", {shape[0], shape[1], 1, 1});
  }

  Id Conv3x3(const Node& node, Id x) {
    if (node.extra < 0) return Conv(node.name, x, {.padding = 1});
    const Id y =
        t_.Conv(node.name + "/conv", x, Weight(node.name + ".weight"), kNone, {.padding = 1});
    return t_.Add(node.name, y, values_[node.extra]);
  }

  Id FeedForward(const std::string& name, Id x) {
    const std::string norm = name + ".norm", net = name + ".fn.net.";
    Id h = t_.LayerNorm(norm, x, norm + ".weight", network_.tensor(norm + ".weight"),
                        norm + ".bias", network_.tensor(norm + ".bias"));
    h = t_.Gelu(net + "1", Conv(net + "0", h, {}));
    h = t_.Gelu(net + "3", Depthwise3x3(net + "2", h));
    return t_.Add(name, Conv(net + "4", h, {}), x);
  }

  Id UpsampleFuse(const Node& node, Id x, Id skip) {
    const Id up = t_.ConvTranspose(node.name, x, Weight(node.name + ".weight"),
                                   Weight(node.name + ".bias"), 2);
    return Conv(node.name2, t_.ConcatChannels(node.name2 + "/concat", up, skip), {});
  }

  // dw2(GELU(dw1(V))), with a bias if there is one to add.
  Id PositionalEmbedding(const std::string& name, Id v, Id bias) {
    const Id h = t_.Gelu(name + ".pos_emb.1", Depthwise3x3(name + ".pos_emb.0", v));
    return Depthwise3x3(name + ".pos_emb.2", h, bias);
  }

  // The channels of each head over all pixels, each divided by its norm.
  Id NormalizedHeads(const std::string& name, Id x, const std::vector<int64_t>& heads) {
    const Id wide = t_.Widen(name + "/wide", t_.Reshape(name + "/heads", x, heads));
    const Id unit = t_.Div(name + "/unit", wide, t_.Norm(name + "/norm", wide));
    return t_.Narrow(name + "/narrow", unit);
  }

  Id PublishedAttention(const Node& node, Id x) {
    const std::string& name = node.name;
    const Value& map = network_.graph.values[node.input];
    const std::vector<int64_t> heads{0, node.heads, map.channels / node.heads, -1};
    const Id v = Linear(name + ".to_v", x);
    const Id q = NormalizedHeads(name + ".to_q", Linear(name + ".to_q", x), heads);
    const Id k = NormalizedHeads(name + ".to_k", Linear(name + ".to_k", x), heads);
    const Id scores = t_.Widen(name + "/wide", t_.MatMulTransposed(name + "/scores", k, q));
    const Id a = Attention(name, scores);
    Id y = t_.MatMul(name + "/attended", a, t_.Reshape(name + ".to_v/heads", v, heads));
    y = t_.ReshapeToMap(name + "/map", y, x, map.channels, map.level);
    y = Linear(name + ".proj", y, Weight(name + ".proj.bias"));
    y = t_.Add(name + "/sum", y, PositionalEmbedding(name, v, kNone));
    return t_.Add(name, y, x);
  }

  Id Attention(const std::string& name, Id scores) {
    const Id rescale = Weight(name + ".rescale", {}, Width::kWide);
    const Id a = t_.Softmax(name + "/softmax", t_.Mul(name + "/rescaled", scores, rescale));
    return t_.Narrow(name + "/attention", a);
  }

  // With S = X'X: K'Q = Wk S Wq', |Q_j|^2 = (Wq S Wq')_jj, |K_i|^2 = (Wk S Wk')_ii, and
  // M = Wproj blockdiag(A) Wv. Here P = Wk S and R = Wq S.
  Id RestructuredAttention(const Node& node, Id x) {
    const std::string& name = node.name;
    const Value& map = network_.graph.values[node.input];
    const int64_t c = map.channels, d = c / node.heads;
    const Id flat = t_.Reshape(name + "/flat", x, {0, c, -1});
    const Id wide = t_.Widen(name + "/wide", flat);
    const Id s = t_.MatMulTransposed(name + "/S", wide, wide);

    const Id wq = Weight(name + ".to_q.weight", {}, Width::kWide);
    const Id wk = Weight(name + ".to_k.weight", {}, Width::kWide);
    const Id p = t_.MatMul(name + "/P", wk, s);
    const Id r = t_.MatMul(name + "/R", wq, s);
    const Id norm_k = NormFromS(name + ".to_k", p, wk, {0, node.heads, d, 1});
    const Id norm_q = NormFromS(name + ".to_q", r, wq, {0, node.heads, 1, d});
    const Id p_heads = t_.Reshape(name + "/P/heads", p, {0, node.heads, d, c});
    const Id wq_heads = t_.Reshape(name + ".to_q/heads", wq, {node.heads, d, c});
    Id scores = t_.MatMulTransposed(name + "/scores", p_heads, wq_heads);
    scores = t_.Div(name + "/scores/k", scores, norm_k);
    scores = t_.Div(name + "/scores/q", scores, norm_q);
    const Id a = Attention(name, scores);

    const Id wv = LinearWeight(name + ".to_v");
    const Id wv_heads = t_.Reshape(name + ".to_v/heads", wv, {node.heads, d, c});
    const Id a_v = t_.MatMul(name + "/AV", a, wv_heads);
    const Id m = t_.MatMul(name + "/M", Weight(name + ".proj.weight"),
                           t_.Reshape(name + "/AV/flat", a_v, {0, c, c}));
    Id y = t_.MatMul(name + "/MX", m, flat);
    y = t_.ReshapeToMap(name + "/map", y, x, map.channels, map.level);
    const Id v = t_.Conv(name + ".to_v", x, wv, kNone, {});
    const Id position = PositionalEmbedding(name, v, Weight(name + ".proj.bias"));
    return t_.Add(name, t_.Add(name + "/sum", y, position), x);
  }

  Id NormFromS(const std::string& name, Id product, Id weight, const std::vector<int64_t>& heads) {
    const Id squares = t_.Sum(name + "/sum", t_.Mul(name + "/squares", product, weight));
    const Id norm = t_.SqrtOfAtLeast(name + "/norm", squares, 1e-24F);
    return t_.Reshape(name + "/norm/heads", norm, heads);
  }

  const Network& network_;
  AttentionForm form_;
  Primitives& t_;
  std::vector<Id> values_;  // by number in the graph
};

}  // namespace

Id Lower(const Network& network, AttentionForm form, Primitives& target, Id input) {
  return Lowering(network, form, target).Run(input);
}

}  // namespace mstpp
