// SPDX-License-Identifier: Apache-2.0
// Finding the parts of MST++ in an ONNX graph by what reads and makes what.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "weights/onnx_graph.h"

namespace mstpp {

// What is not found, or is there more than once, is an Error (kUnsupported) that names the node.
class OnnxWalk {
 public:
  explicit OnnxWalk(const OnnxGraph& graph) : g_(graph) {}

  // Nodes by what they are. A linear node multiplies each pixel by a constant matrix; a product
  // multiplies two computed matrices.
  using Predicate = std::function<bool(int node)>;
  bool Is(int node, const char* op) const { return g_.node(node).op() == op; }
  bool IsDenseConv(int node, int64_t kernel) const;
  bool IsDepthwiseConv(int node) const;  // 3x3
  bool IsLinear(int node) const;
  bool IsProduct(int node) const;

  std::vector<int> Readers(int value, const Predicate& predicate) const;
  int Reader(int value, const Predicate& predicate, const char* what) const;  // the only one
  int Input(int node, size_t i) const;
  int Output(int node) const;

  // The constants of a node: a convolution's weight; a linear node's matrix, outputs x inputs; the
  // bias of either, empty if there is none.
  OnnxConstant Weight(int node) const;
  OnnxConstant Matrix(int node) const;
  OnnxConstant Bias(int node) const;

  // If `value` is a constant times (Mul) or plus (Add) another value: the constant, and `value`
  // becomes the other.
  OnnxConstant TakeOff(const char* op, int* value) const;
  // Which of `candidates` a value comes from through ops that normalise; it must be one.
  int Source(int value, const std::vector<int>& candidates) const;

  // The convolution or linear node behind the GELU behind `node`. The graph's function may be a
  // multiple of GELU: `gain` is the multiple, 1 or 2.
  struct Activated {
    int node;
    float gain;
  };
  Activated AfterGelu(int node) const;

  // The LayerNorm of `x`, one op or written out, and the linear node that reads it.
  struct Normalized {
    int reader;
    OnnxConstant gain, bias;
  };
  Normalized LayerNorm(int x) const;

  // The sum of three values, and of a constant if there is one.
  int Sum(int a, int b, int c, OnnxConstant* constant) const;

 private:
  bool IsConv(int node) const;
  bool Collect(int value, int depth, std::vector<int>* wanted, OnnxConstant* constant) const;
  int Next(int value, const Predicate& through, const Predicate& found, const char* what) const;
  double Evaluate(int value, int variable, double at, int* steps) const;

  const OnnxGraph& g_;
};

}  // namespace mstpp
