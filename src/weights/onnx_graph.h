// SPDX-License-Identifier: Apache-2.0
// An ONNX graph made ready for walking: values and nodes by number, who makes and who reads what.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "weights/convert.h"
#include "weights/onnx.pb.h"

namespace mstpp {

// A tensor that the graph holds; if that is a matrix, it may be the transpose, or (not both) some
// of the columns.
struct OnnxConstant {
  const onnx::Tensor* tensor = nullptr;
  bool transposed = false;
  int64_t first_column = 0, columns = 0;  // 0: all

  explicit operator bool() const { return tensor != nullptr; }
  std::vector<int64_t> shape() const;
};

struct OnnxNode {
  const onnx::Node* proto = nullptr;
  std::vector<int> inputs;   // values, -1 for one left out
  std::vector<int> outputs;  // values
  bool replaced = false;     // by others, which read and make the same

  const std::string& op() const { return proto->op_type(); }
  const onnx::Attribute* Find(const char* attribute) const;  // null if it is not given
};

class OnnxGraph {
 public:
  // Checks what walking relies on. Throws Error: kCorrupt if a node reads what no earlier one
  // makes, a value is made twice or an initializer is read by nothing; kUnsupported for data in
  // other files.
  OnnxGraph(const onnx::Graph& graph, const std::string& path);

  const std::string& path() const { return path_; }
  const OnnxNode& node(int i) const { return nodes_[i]; }
  int Input() const;  // the only one that is not a constant; throws Error (kUnsupported)

  const OnnxConstant& Constant(int value) const;          // empty if it is computed, or value is -1
  std::optional<double> Scalar(int value) const;          // a constant of one element
  int OtherInput(const OnnxNode& node, int value) const;  // of two, the one with another root

  // Some ops hand on the elements of their first input: transposes, reshapes, casts and the like.
  // The value that `value` is but for these, and the node that makes that one (-1: none).
  int Root(int value) const;
  int Maker(int value) const { return values_[Root(value)].maker; }
  // The nodes that read `value`, these ops left out and looked through.
  std::vector<int> Readers(int value) const;

  // Throws Error (kUnsupported): at this node the graph is not what was looked for.
  [[noreturn]] void Unlike(int node, const std::string& what) const;

 private:
  struct Value {
    int maker = -1;
    std::vector<int> readers;
    OnnxConstant constant;
  };

  int NewValue(const std::string& name, int maker);
  void AddNode(const onnx::Node& proto);
  int Append(OnnxNode node);
  void FoldConstant(const OnnxNode& node);
  bool DivideProduct(const OnnxNode& split);
  void CheckUsed(const onnx::Graph& graph) const;

  std::string path_;
  std::vector<Value> values_;
  std::vector<OnnxNode> nodes_;
  std::vector<int> inputs_;
  std::map<std::string, int> names_;
};

// The elements of a tensor as they lie in the file, without a name. Throws Error: kCorrupt if its
// size and its data disagree, kUnsupported for data in another file and for types but floats.
StoredTensor StoredOnnxTensor(const onnx::Tensor& tensor, const std::string& path);
StoredTensor StoredOnnxConstant(const OnnxConstant& constant, const std::string& path);

}  // namespace mstpp
