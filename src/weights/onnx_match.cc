// SPDX-License-Identifier: Apache-2.0
#include "weights/onnx_match.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "weights/onnx_walk.h"

namespace mstpp {
namespace {

// A weight and where it comes from. `otherwise` is what it holds if the graph has left it out.
struct Entry {
  std::string name;
  OnnxConstant constant;
  std::vector<int64_t> shape;  // the constant's but for extents of 1
  std::optional<float> otherwise = {};
  float gain = 1;  // the constant is the weight divided by it
};
using Entries = std::vector<Entry>;

// Puts weights into a WeightsFile.
class Taker {
 public:
  Taker(const Source& source, WeightsFile* file) : source_(source), file_(file) {}

  void Take(const Entry& entry) {
    const std::string where = Where(source_.path, "tensor " + entry.name);
    if (entry.constant) {
      TakeConstant(entry, where);
    } else if (entry.otherwise) {
      Tensor tensor{entry.shape, {}};
      tensor.data.assign(static_cast<size_t>(tensor.size()), *entry.otherwise);
      file_->tensors.emplace(entry.name, std::move(tensor));
    } else {
      throw Error(ErrorCode::kUnsupported, where, "is not a constant of the graph");
    }
  }

  void Take(const std::string& prefix, Entries entries) {
    for (Entry& entry : entries) {
      entry.name.insert(0, prefix);
      Take(entry);
    }
  }

 private:
  void TakeConstant(const Entry& entry, const std::string& where) {
    StoredTensor stored = StoredOnnxConstant(entry.constant, source_.path);
    stored.name = entry.name;
    Fit(entry.shape, &stored, where);
    Spend(CountElements(stored.shape, where), where);
    AddTensor(source_, stored, file_);
    if (entry.gain == 1) return;
    for (float& value : file_->tensors.at(entry.name).data) {
      value *= entry.gain;
      if (!source_.allow_nonfinite && !std::isfinite(value)) {
        throw Error(ErrorCode::kCorrupt, where, "is beyond the range of float32");
      }
    }
  }

  // Gives a tensor another shape, with the same extents but for those of 1.
  static void Fit(const std::vector<int64_t>& shape, StoredTensor* stored,
                  const std::string& where) {
    std::vector<int64_t> strides(shape.size(), 0);
    size_t from = 0;
    const auto skip_ones = [&] {
      while (from < stored->shape.size() && stored->shape[from] == 1) ++from;
    };
    for (size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] == 1) continue;
      skip_ones();
      if (from == stored->shape.size() || stored->shape[from] != shape[i]) break;
      strides[i] = stored->strides[from++];
    }
    skip_ones();
    const int64_t wanted = CountElements(shape, where);
    if (from != stored->shape.size() || wanted != CountElements(stored->shape, where)) {
      throw Error(ErrorCode::kCorrupt, where,
                  fmt::format("has the shape [{}] in the graph, expected [{}]",
                              fmt::join(stored->shape, ", "), fmt::join(shape, ", ")));
    }
    stored->shape = shape;
    stored->strides = std::move(strides);
  }

  // Graphs may use a constant more than once. A small file must not become any number of weights.
  void Spend(int64_t elements, const std::string& where) {
    constexpr uint64_t kMostUses = 4;
    spent_ += static_cast<uint64_t>(elements) * sizeof(float);
    if (spent_ > kMostUses * source_.bytes.size()) {
      throw Error(ErrorCode::kCorrupt, where, "the graph uses the same constants too often");
    }
  }

  const Source& source_;
  WeightsFile* file_;
  uint64_t spent_ = 0;
};

class Matcher {
 public:
  Matcher(const OnnxGraph& graph, const Source& source, WeightsFile* file)
      : g_(graph), walk_(graph), taker_(source, file) {}

  void Run() {
    const int conv_in = walk_.Reader(g_.Input(), Dense(3), "the convolution conv_in");
    const std::vector<int64_t> shape = walk_.Weight(conv_in).shape();
    taker_.Take({"conv_in.weight", walk_.Weight(conv_in), shape});
    bands_ = shape[0];
    const int a = walk_.Output(conv_in);
    int y = a;
    for (int stage = 0;; ++stage) {
      const int conv = walk_.Reader(y, Dense(3), "a 3x3 convolution");
      if (!StartsAttention(walk_.Output(conv))) {
        taker_.Take({"conv_out.weight", walk_.Weight(conv), {bands_, bands_, 3, 3}});
        Residual(walk_.Output(conv), a);
        return;
      }
      y = Stage(fmt::format("body.{}.", stage), conv, y);
    }
  }

 private:
  OnnxWalk::Predicate Dense(int64_t kernel) const {
    return [this, kernel](int node) { return walk_.IsDenseConv(node, kernel); };
  }
  OnnxWalk::Predicate Depthwise() const {
    return [this](int node) { return walk_.IsDepthwiseConv(node); };
  }
  OnnxWalk::Predicate Linear() const {
    return [this](int node) { return walk_.IsLinear(node); };
  }
  OnnxWalk::Predicate Product() const {
    return [this](int node) { return walk_.IsProduct(node); };
  }
  OnnxWalk::Predicate Op(const char* op) const {
    return [this, op](int node) { return walk_.Is(node, op); };
  }

  bool StartsAttention(int x) const { return walk_.Readers(x, Linear()).size() == 3; }

  // The sum of `branch` and the residual `x`.
  int Residual(int branch, int x) const {
    const int add = walk_.Reader(branch, Op("Add"), "a residual sum");
    const int other = g_.OtherInput(g_.node(add), branch);
    if (other < 0 || g_.Root(other) != g_.Root(x)) g_.Unlike(add, "is another residual sum");
    return walk_.Output(add);
  }

  // One U-shaped transformer; `y` is its input, `embedding` its first convolution.
  int Stage(const std::string& name, int embedding, int y) {
    int64_t c = bands_;
    taker_.Take({name + "embedding.weight", walk_.Weight(embedding), {c, c, 3, 3}});
    int x = walk_.Output(embedding);
    std::vector<int> skips;
    for (;; c *= 2) {
      Entries blocks;
      x = Blocks(x, c, &blocks);
      const std::vector<int> downs = walk_.Readers(x, Dense(4));
      if (downs.size() != 1) {
        taker_.Take(name + "bottleneck.", std::move(blocks));
        break;
      }
      const std::string layer = fmt::format("{}encoder_layers.{}.", name, skips.size());
      taker_.Take(layer + "0.", std::move(blocks));
      taker_.Take({layer + "1.weight", walk_.Weight(downs[0]), {2 * c, c, 4, 4}});
      skips.push_back(x);
      x = walk_.Output(downs[0]);
    }
    for (size_t i = 0; i < skips.size(); ++i) {
      c /= 2;
      x = Decoder(fmt::format("{}decoder_layers.{}.", name, i), x, skips[skips.size() - 1 - i], c);
    }
    const int mapping = walk_.Reader(x, Dense(3), "the convolution mapping");
    taker_.Take({name + "mapping.weight", walk_.Weight(mapping), {c, c, 3, 3}});
    return Residual(walk_.Output(mapping), y);
  }

  int Decoder(const std::string& name, int x, int skip, int64_t c) {
    const int up = walk_.Reader(x, Op("ConvTranspose"), "a transposed convolution");
    taker_.Take({name + "0.weight", walk_.Weight(up), {2 * c, c, 2, 2}});
    taker_.Take({name + "0.bias", walk_.Bias(up), {c}, 0.0F});
    const int concat = walk_.Reader(walk_.Output(up), Op("Concat"), "a concatenation");
    const std::vector<int>& inputs = g_.node(concat).inputs;
    if (inputs.size() != 2 || inputs[0] < 0 || inputs[1] < 0 ||
        g_.Root(inputs[0]) != g_.Root(walk_.Output(up)) || g_.Root(inputs[1]) != g_.Root(skip)) {
      g_.Unlike(concat, "is another concatenation");
    }
    const int fusion = walk_.Reader(walk_.Output(concat), Linear(), "a 1x1 convolution");
    taker_.Take({name + "1.weight", walk_.Matrix(fusion), {c, 2 * c, 1, 1}});
    Entries blocks;
    x = Blocks(walk_.Output(fusion), c, &blocks);
    taker_.Take(name + "2.", std::move(blocks));
    return x;
  }

  // Attention blocks, as many as there are; their names begin with "blocks".
  int Blocks(int x, int64_t c, Entries* entries) const {
    for (int i = 0; StartsAttention(x); ++i) {
      x = Attention(fmt::format("blocks.{}.0.", i), x, c, entries);
      x = FeedForward(fmt::format("blocks.{}.1.", i), x, c, entries);
    }
    if (entries->empty()) g_.Unlike(g_.Maker(x), "is not followed by an attention block");
    return x;
  }

  int Attention(const std::string& name, int x, int64_t c, Entries* entries) const {
    // The values go into a positional embedding, queries and keys do not.
    std::vector<int> others = walk_.Readers(x, Linear());
    const auto is_v = [&](int linear) {
      return !walk_.Readers(walk_.Output(linear), Depthwise()).empty();
    };
    const auto found = std::find_if(others.begin(), others.end(), is_v);
    if (found == others.end()) g_.Unlike(others[0], "starts an attention without values");
    const int v = *found;
    others.erase(found);

    const int attended = walk_.Reader(walk_.Output(v), Product(), "the product of attention");
    const Scores scores = FindScores(walk_.Input(attended, 0), others);
    const int proj = walk_.Reader(walk_.Output(attended), Linear(), "the projection");
    const int dw1 = walk_.Reader(walk_.Output(v), Depthwise(), "the positional embedding");
    const OnnxWalk::Activated dw2 = walk_.AfterGelu(dw1);
    if (!walk_.IsDepthwiseConv(dw2.node)) g_.Unlike(dw2.node, "is no positional embedding");
    OnnxConstant bias = walk_.Bias(proj);
    const int sum = walk_.Sum(walk_.Output(proj), walk_.Output(dw2.node), x, &bias);

    entries->push_back({name + "rescale", scores.rescale, {c / bands_, 1, 1}, 1.0F});
    entries->push_back({name + "to_q.weight", walk_.Matrix(scores.q), {c, c}});
    entries->push_back({name + "to_k.weight", walk_.Matrix(scores.k), {c, c}});
    entries->push_back({name + "to_v.weight", walk_.Matrix(v), {c, c}});
    entries->push_back({name + "proj.weight", walk_.Matrix(proj), {c, c}});
    entries->push_back({name + "proj.bias", bias, {c}, 0.0F});
    entries->push_back({name + "pos_emb.0.weight", walk_.Weight(dw1), {c, 1, 3, 3}});
    entries->push_back(
        {name + "pos_emb.2.weight", walk_.Weight(dw2.node), {c, 1, 3, 3}, {}, dw2.gain});
    return sum;
  }

  struct Scores {
    OnnxConstant rescale;
    int k, q;
  };

  // Behind the attention matrix: softmax(rescale * K Q').
  Scores FindScores(int attention, const std::vector<int>& candidates) const {
    const int softmax = g_.Maker(attention);
    if (softmax < 0 || !walk_.Is(softmax, "Softmax")) {
      g_.Unlike(softmax, "stands where a softmax is expected");
    }
    const onnx::Attribute* axis = g_.node(softmax).Find("axis");
    if (axis != nullptr && axis->i() != -1 && axis->i() != 3) {
      g_.Unlike(softmax, "works along another axis than the last");
    }
    int scaled = walk_.Input(softmax, 0);
    Scores scores;
    scores.rescale = walk_.TakeOff("Mul", &scaled);
    const int product = g_.Maker(scaled);
    if (product < 0 || !walk_.IsProduct(product)) {
      g_.Unlike(product, "stands where the product of keys and queries is expected");
    }
    scores.k = walk_.Source(walk_.Input(product, 0), candidates);
    scores.q = walk_.Source(walk_.Input(product, 1), candidates);
    if (scores.k == scores.q) g_.Unlike(product, "multiplies one thing by itself");
    return scores;
  }

  int FeedForward(const std::string& name, int x, int64_t c, Entries* entries) const {
    const OnnxWalk::Normalized norm = walk_.LayerNorm(x);
    const int net0 = norm.reader;
    const OnnxWalk::Activated net2 = walk_.AfterGelu(net0);
    const OnnxWalk::Activated net4 = walk_.AfterGelu(net2.node);
    if (!walk_.IsDepthwiseConv(net2.node) || !walk_.IsLinear(net4.node)) {
      g_.Unlike(net0, "is not followed by the convolutions of a feed-forward network");
    }
    entries->push_back({name + "norm.weight", norm.gain, {c}, 1.0F});
    entries->push_back({name + "norm.bias", norm.bias, {c}, 0.0F});
    entries->push_back({name + "fn.net.0.weight", walk_.Matrix(net0), {4 * c, c, 1, 1}});
    entries->push_back(
        {name + "fn.net.2.weight", walk_.Weight(net2.node), {4 * c, 1, 3, 3}, {}, net2.gain});
    entries->push_back(
        {name + "fn.net.4.weight", walk_.Matrix(net4.node), {c, 4 * c, 1, 1}, {}, net4.gain});
    return Residual(walk_.Output(net4.node), x);
  }

  const OnnxGraph& g_;
  OnnxWalk walk_;
  Taker taker_;
  int64_t bands_ = 0;
};

}  // namespace

void MatchOnnxWeights(const OnnxGraph& graph, const Source& source, WeightsFile* file) {
  Matcher(graph, source, file).Run();
}

}  // namespace mstpp
