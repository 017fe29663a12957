// SPDX-License-Identifier: Apache-2.0
// The builder's methods that take several nodes, and those about a graph's ends.
#include <utility>

#include "onnx/builder.h"

namespace mstpp {

using Id = OnnxBuilder::Id;
namespace {

constexpr float kEpsilon = 1e-5F;  // of LayerNorm
constexpr float kSqrt2 = 1.41421356F;

}  // namespace

Id OnnxBuilder::MatMulTransposed(const std::string& name, Id a, Id b) {
  std::vector<int64_t> order;
  for (int64_t i = 0; i < values_[b].rank; ++i) order.push_back(i);
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return MatMul(name, a, Transpose(name + "/transpose", b, order));
}

// In the order in which runtimes look for it when they fuse.
Id OnnxBuilder::Gelu(const std::string& name, Id x) {
  const Id erf = Node("Erf", name + "/erf", {Div(name + "/div", x, Scalar(kSqrt2))});
  const Id gate = Mul(name + "/mul", x, Add(name + "/add", erf, Scalar(1)));
  return Mul(name, gate, Scalar(0.5F));
}

Id OnnxBuilder::LayerNorm(const std::string& name, Id x, const std::string& gain_name,
                          const Tensor& gain, const std::string& bias_name, const Tensor& bias) {
  if (settings_.opset >= 17) {
    return LayerNormOp(name, x, Weight(gain_name, gain, {}, Width::kNetwork),
                       Weight(bias_name, bias, {}, Width::kNetwork));
  }
  const std::vector<int64_t> shape{gain.size(), 1, 1};
  const Id y =
      LayerNormByParts(name, Widen(name + "/wide", x), Weight(gain_name, gain, shape, Width::kWide),
                       Weight(bias_name, bias, shape, Width::kWide));
  return Narrow(name, y);
}

// The op works along the last axes only; its sums are float32 whatever its input is.
Id OnnxBuilder::LayerNormOp(const std::string& name, Id x, Id gain, Id bias) {
  const Id pixels = Transpose(name + "/to_nhwc", x, {0, 2, 3, 1});
  const Id y = Node("LayerNormalization", name + "/layer_norm", {pixels, gain, bias});
  Set("axis", int64_t{-1});
  Set("epsilon", kEpsilon);
  return Transpose(name, y, {0, 3, 1, 2});
}

Id OnnxBuilder::LayerNormByParts(const std::string& name, Id x, Id gain, Id bias) {
  const Id mean = Node("ReduceMean", name + "/mean", {x});
  Set("axes", std::vector<int64_t>{1});
  const Id centred = Node("Sub", name + "/centred", {x, mean});
  const Id squares = Mul(name + "/squares", centred, centred);
  const Id variance = Node("ReduceMean", name + "/variance", {squares});
  Set("axes", std::vector<int64_t>{1});
  const Id steadied = Add(name + "/variance/add", variance, Scalar(kEpsilon, Width::kWide));
  const Id unit = Div(name + "/unit", centred, Node("Sqrt", name + "/deviation", {steadied}));
  return Add(settings_.half ? name + "/sum" : name, Mul(name + "/scaled", unit, gain), bias);
}

Id OnnxBuilder::Norm(const std::string& name, Id x) {
  const Id norm = Node("ReduceL2", name + "/l2", {x});
  Set("axes", std::vector<int64_t>{-1});
  return Node("Max", name, {norm, Scalar(1e-12F, Width::kWide)});
}

Id OnnxBuilder::SqrtOfAtLeast(const std::string& name, Id x, float least) {
  return Node("Sqrt", name, {Node("Max", name + "/max", {x, Scalar(least, Width::kWide)})});
}

Id OnnxBuilder::ReshapeToMap(const std::string& name, Id x, Id map, int channels, int level) {
  if (settings_.size.height > 0) {
    return Reshape(name, x,
                   {0, channels, settings_.size.height >> level, settings_.size.width >> level});
  }
  const Id y = Node("Reshape", name, {x, Node("Shape", name + "/shape", {map})});
  values_[y].rank = 4;
  return y;
}

// No other node reads `y` yet: it may still be given another name.
void OnnxBuilder::EndBlock(const std::string& name, Id y) {
  if (!settings_.taps) return;
  if (settings_.half) {
    Rename(y, name + "/half");
    Widen(name, y);
  }
  AddOutput(name, Extents(4));
  exposed_ = y;
}

void OnnxBuilder::Output(const std::string& name, Id x, const Extents& extents) {
  if (settings_.half) {
    Widen(name, x);
  } else if (x == exposed_) {
    Node("Identity", name, {x});
  } else {
    Rename(x, name);
  }
  AddOutput(name, extents);
}

Id OnnxBuilder::Pad(const std::string& name, Id x, PadMode mode, int64_t bottom, int64_t right) {
  return PadBy(name, x, mode, Integers({0, 0, 0, 0, 0, 0, bottom, right}));
}

// -size mod multiple is what is missing: the op's result has the sign of the divisor.
Id OnnxBuilder::PadToMultiple(const std::string& name, Id x, PadMode mode, int64_t multiple) {
  const Id negative = Node("Neg", name + "/neg", {HeightAndWidth(x)});
  const Id missing = Node("Mod", name + "/mod", {negative, Integers({multiple})});
  const Id pads = Node("Concat", name + "/pads", {Integers({0, 0, 0, 0, 0, 0}), missing});
  Set("axis", int64_t{0});
  return PadBy(name, x, mode, pads);
}

Id OnnxBuilder::PadBy(const std::string& name, Id x, PadMode mode, Id pads) {
  const Id y = Node("Pad", name, {x, pads});
  Set("mode", mode == PadMode::kReflect ? "reflect" : "constant");
  return y;
}

Id OnnxBuilder::Crop(const std::string& name, Id x, int64_t height, int64_t width) {
  return Node("Slice", name, {x, Integers({0, 0}), Integers({height, width}), Integers({2, 3})});
}

Id OnnxBuilder::CropLike(const std::string& name, Id x, Id picture) {
  return Node("Slice", name, {x, Integers({0, 0}), HeightAndWidth(picture), Integers({2, 3})});
}

Id OnnxBuilder::HeightAndWidth(Id x) {
  const auto [entry, is_new] = sizes_.emplace(x, kNone);
  if (is_new) {
    const std::string name = values_[x].name + "/size";
    entry->second =
        Node("Slice", name, {Node("Shape", name + "/shape", {x}), Integers({2}), Integers({4})});
  }
  return entry->second;
}

}  // namespace mstpp
