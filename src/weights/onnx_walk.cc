// SPDX-License-Identifier: Apache-2.0
#include "weights/onnx_walk.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string_view>

namespace mstpp {
namespace {

// No part of MST++ is larger; a graph where one would be is something else.
constexpr size_t kMostNodes = 100;

template <size_t N>
bool IsOneOf(const std::array<std::string_view, N>& ops, const std::string& op) {
  return std::find(ops.begin(), ops.end(), op) != ops.end();
}

constexpr std::array<std::string_view, 7> kActivationOps{"Add", "Div", "Erf", "Gelu",
                                                         "Mul", "Sub", "Tanh"};
constexpr std::array<std::string_view, 7> kLayerNormOps{"Add",  "Div",        "Mul", "Pow",
                                                        "Sqrt", "ReduceMean", "Sub"};
constexpr std::array<std::string_view, 9> kNormalizingOps{
    "Abs", "Clip", "Div", "Max", "Mul", "Pow", "ReduceL2", "ReduceSum", "Sqrt"};

double Gelu(double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }

}  // namespace

bool OnnxWalk::IsConv(int node) const {
  const OnnxNode& n = g_.node(node);
  return n.op() == "Conv" && n.inputs.size() >= 2 && !n.outputs.empty() && n.inputs[0] >= 0 &&
         g_.Constant(n.inputs[1]) && g_.Constant(n.inputs[1]).shape().size() == 4;
}

bool OnnxWalk::IsDenseConv(int node, int64_t kernel) const {
  if (!IsConv(node)) return false;
  const onnx::Attribute* group = g_.node(node).Find("group");
  const std::vector<int64_t> shape = Weight(node).shape();
  return shape[2] == kernel && shape[3] == kernel && (group == nullptr || group->i() == 1);
}

bool OnnxWalk::IsDepthwiseConv(int node) const {
  if (!IsConv(node)) return false;
  const onnx::Attribute* group = g_.node(node).Find("group");
  const std::vector<int64_t> shape = Weight(node).shape();
  return shape[1] == 1 && shape[2] == 3 && shape[3] == 3 && group != nullptr &&
         group->i() == shape[0];
}

bool OnnxWalk::IsLinear(int node) const {
  const OnnxNode& n = g_.node(node);
  if (n.op() == "Conv") return IsDenseConv(node, 1);
  if ((n.op() != "MatMul" && n.op() != "Gemm") || n.inputs.size() < 2) return false;
  const OnnxConstant &a = g_.Constant(n.inputs[0]), &b = g_.Constant(n.inputs[1]);
  const OnnxConstant& matrix = a ? a : b;
  return !(a && b) && matrix && matrix.shape().size() == 2 && (n.op() == "MatMul" || b) &&
         n.inputs[0] >= 0 && n.inputs[1] >= 0 && !n.outputs.empty();
}

bool OnnxWalk::IsProduct(int node) const {
  const OnnxNode& n = g_.node(node);
  return n.op() == "MatMul" && n.inputs.size() == 2 && n.inputs[0] >= 0 && n.inputs[1] >= 0 &&
         !g_.Constant(n.inputs[0]) && !g_.Constant(n.inputs[1]) && !n.outputs.empty();
}

std::vector<int> OnnxWalk::Readers(int value, const Predicate& predicate) const {
  std::vector<int> readers = g_.Readers(value);
  std::erase_if(readers, [&](int node) { return !predicate(node); });
  return readers;
}

int OnnxWalk::Reader(int value, const Predicate& predicate, const char* what) const {
  const std::vector<int> readers = Readers(value, predicate);
  if (readers.size() != 1) {
    g_.Unlike(g_.Maker(value), fmt::format("{} should follow, and {} do", what, readers.size()));
  }
  return readers[0];
}

int OnnxWalk::Input(int node, size_t i) const {
  const std::vector<int>& inputs = g_.node(node).inputs;
  if (i >= inputs.size() || inputs[i] < 0) g_.Unlike(node, "lacks an input");
  return inputs[i];
}

int OnnxWalk::Output(int node) const {
  if (g_.node(node).outputs.empty()) g_.Unlike(node, "has no output");
  return g_.node(node).outputs[0];
}

OnnxConstant OnnxWalk::Weight(int node) const { return g_.Constant(Input(node, 1)); }

OnnxConstant OnnxWalk::Matrix(int node) const {
  const OnnxNode& n = g_.node(node);
  if (n.op() == "Conv" || g_.Constant(n.inputs[0])) {
    return g_.Constant(n.inputs[n.op() == "Conv" ? 1 : 0]);
  }
  OnnxConstant matrix = g_.Constant(n.inputs[1]);
  const onnx::Attribute* transposed = n.Find("transB");
  if (transposed == nullptr || transposed->i() == 0) matrix.transposed = !matrix.transposed;
  const auto is = [&](const char* attribute, float value) {
    return n.Find(attribute) == nullptr || n.Find(attribute)->f() == value;
  };
  const onnx::Attribute* other = n.Find("transA");
  if (!is("alpha", 1) || !is("beta", 1) || (other != nullptr && other->i() != 0)) {
    g_.Unlike(node, "scales or transposes what it multiplies");
  }
  return matrix;
}

OnnxConstant OnnxWalk::Bias(int node) const {
  const OnnxNode& n = g_.node(node);
  if (n.op() == "MatMul" || n.inputs.size() < 3 || n.inputs[2] < 0) return {};
  if (!g_.Constant(n.inputs[2])) g_.Unlike(node, "computes its bias");
  return g_.Constant(n.inputs[2]);
}

OnnxConstant OnnxWalk::TakeOff(const char* op, int* value) const {
  const int maker = g_.Maker(*value);
  if (maker < 0 || !Is(maker, op) || g_.node(maker).inputs.size() != 2) return {};
  const int a = Input(maker, 0), b = Input(maker, 1);
  if (!g_.Constant(a) == !g_.Constant(b)) return {};
  *value = g_.Constant(a) ? b : a;
  return g_.Constant(a) ? g_.Constant(a) : g_.Constant(b);
}

int OnnxWalk::Source(int value, const std::vector<int>& candidates) const {
  std::set<int> seen, sources;
  std::vector<int> open{value};
  while (!open.empty()) {
    const int maker = g_.Maker(open.back());
    open.pop_back();
    if (maker < 0 || !seen.insert(maker).second) continue;
    if (std::find(candidates.begin(), candidates.end(), maker) != candidates.end()) {
      sources.insert(maker);
      continue;
    }
    if (!IsOneOf(kNormalizingOps, g_.node(maker).op()) || seen.size() > kMostNodes) {
      g_.Unlike(maker, "does not belong to the norm of queries or keys");
    }
    for (int input : g_.node(maker).inputs) {
      if (input >= 0 && !g_.Constant(g_.Root(input))) open.push_back(input);
    }
  }
  if (sources.size() != 1) g_.Unlike(g_.Maker(value), "mixes queries and keys");
  return *sources.begin();
}

// Forward from `value` through some ops: the only node found behind them.
int OnnxWalk::Next(int value, const Predicate& through, const Predicate& found,
                   const char* what) const {
  std::set<int> seen, ends;
  std::vector<int> open{value};
  while (!open.empty()) {
    const std::vector<int> readers = g_.Readers(open.back());
    open.pop_back();
    for (int reader : readers) {
      if (!seen.insert(reader).second) continue;
      if (seen.size() > kMostNodes) g_.Unlike(reader, "is one node of too many");
      if (found(reader)) {
        ends.insert(reader);
      } else if (through(reader)) {
        open.push_back(Output(reader));
      }
    }
  }
  if (ends.size() != 1) {
    g_.Unlike(g_.Maker(value), fmt::format("{} should follow, and {} do", what, ends.size()));
  }
  return *ends.begin();
}

double OnnxWalk::Evaluate(int value, int variable, double at, int* steps) const {
  if (g_.Root(value) == g_.Root(variable)) return at;
  if (const auto scalar = g_.Scalar(g_.Root(value))) return *scalar;
  const int maker = g_.Maker(value);
  if (maker < 0 || --*steps < 0) g_.Unlike(maker, "is not an activation");
  const std::string& op = g_.node(maker).op();
  const auto input = [&](size_t i) { return Evaluate(Input(maker, i), variable, at, steps); };
  if (op == "Add") return input(0) + input(1);
  if (op == "Sub") return input(0) - input(1);
  if (op == "Mul") return input(0) * input(1);
  if (op == "Div") return input(0) / input(1);
  if (op == "Erf") return std::erf(input(0));
  const onnx::Attribute* approximate = g_.node(maker).Find("approximate");
  if (op == "Gelu" && (approximate == nullptr || approximate->s() == "none")) return Gelu(input(0));
  g_.Unlike(maker, "belongs to an activation that is not GELU with erf");
}

// However GELU is written, its values show it.
OnnxWalk::Activated OnnxWalk::AfterGelu(int node) const {
  const auto through = [&](int n) { return IsOneOf(kActivationOps, g_.node(n).op()); };
  const auto found = [&](int n) { return IsConv(n) || IsLinear(n); };
  const int next = Next(Output(node), through, found, "a convolution behind a GELU");
  const int input = Input(next, IsConv(next) || !g_.Constant(Input(next, 0)) ? 0 : 1);
  float gain = 0;
  for (double x : {-1.5, -0.5, 0.75, 2.0}) {
    int steps = static_cast<int>(kMostNodes);
    const double ratio = Evaluate(input, Output(node), x, &steps) / Gelu(x);
    const float rounded = std::round(static_cast<float>(ratio));
    const bool fits = std::abs(ratio - rounded) < 1e-3 && (rounded == 1.0F || rounded == 2.0F);
    if (!fits || (gain != 0 && rounded != gain)) {
      g_.Unlike(node, "is not followed by GELU with erf");
    }
    gain = rounded;
  }
  return {next, gain};
}

OnnxWalk::Normalized OnnxWalk::LayerNorm(int x) const {
  const auto is_linear = [&](int n) { return IsLinear(n); };
  const std::vector<int> ops = Readers(x, [&](int n) { return Is(n, "LayerNormalization"); });
  if (ops.size() == 1) {
    Normalized norm;
    norm.reader = Reader(Output(ops[0]), is_linear, "a 1x1 convolution");
    norm.gain = Weight(ops[0]);
    norm.bias = Bias(ops[0]);
    return norm;
  }
  const int centred = Reader(
      x, [&](int n) { return Is(n, "Sub"); }, "a LayerNorm");
  const auto through = [&](int n) { return IsOneOf(kLayerNormOps, g_.node(n).op()); };
  Normalized norm;
  norm.reader = Next(Output(centred), through, is_linear, "a 1x1 convolution");
  int input = Input(norm.reader, g_.Constant(Input(norm.reader, 0)) ? 1 : 0);
  norm.bias = TakeOff("Add", &input);
  norm.gain = TakeOff("Mul", &input);
  return norm;
}

bool OnnxWalk::Collect(int value, int depth, std::vector<int>* wanted,
                       OnnxConstant* constant) const {
  if (g_.Constant(value)) {
    if (*constant) return false;
    *constant = g_.Constant(value);
    return true;
  }
  const auto term = std::find(wanted->begin(), wanted->end(), g_.Root(value));
  if (term != wanted->end()) {
    wanted->erase(term);
    return true;
  }
  const int maker = g_.Maker(value);
  return depth > 0 && maker >= 0 && Is(maker, "Add") &&
         Collect(Input(maker, 0), depth - 1, wanted, constant) &&
         Collect(Input(maker, 1), depth - 1, wanted, constant);
}

int OnnxWalk::Sum(int a, int b, int c, OnnxConstant* constant) const {
  std::vector<int> wanted{g_.Root(b), g_.Root(c)};
  int sum = a;
  while (!wanted.empty()) {
    const int add = Reader(
        sum, [&](int n) { return Is(n, "Add"); }, "a sum");
    const int other = g_.OtherInput(g_.node(add), sum);
    if (other < 0 || !Collect(other, 2, &wanted, constant)) {
      g_.Unlike(add, "adds what does not belong there");
    }
    sum = Output(add);
  }
  return sum;
}

}  // namespace mstpp
