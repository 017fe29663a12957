// SPDX-License-Identifier: Apache-2.0
#include "weights/onnx_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

namespace mstpp {
namespace {

constexpr std::array<std::string_view, 9> kMoves{"Cast",    "Expand", "Flatten", "Identity", "Pad",
                                                 "Reshape", "Slice",  "Squeeze", "Transpose"};
constexpr int kExternal = 1;  // Tensor::data_location

bool Moves(const OnnxNode& node) {
  const std::string& op = node.op();
  return !node.inputs.empty() &&
         (std::find(kMoves.begin(), kMoves.end(), op) != kMoves.end() || op == "Unsqueeze");
}

std::vector<int64_t> Dims(const onnx::Tensor& tensor) {
  return {tensor.dims().begin(), tensor.dims().end()};
}

template <typename T>
Bytes BytesOf(const T& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(*values.data())};
}

std::string WhereIs(const onnx::Tensor& tensor, const std::string& path) {
  return Where(path, "tensor " + Quoted(tensor.name()));
}

void CheckHeld(const onnx::Tensor& tensor, const std::string& path) {
  if (tensor.data_location() == kExternal) {
    throw Error(ErrorCode::kUnsupported, WhereIs(tensor, path),
                "lies in another file; external data are not read. Save the model as one file");
  }
}

bool IsFloat(const onnx::Tensor& tensor) {
  const int type = tensor.data_type();
  return type == onnx::Tensor::FLOAT || type == onnx::Tensor::DOUBLE ||
         type == onnx::Tensor::FLOAT16 || type == onnx::Tensor::BFLOAT16;
}

bool IsTransposeOfMatrix(const OnnxNode& node, const onnx::Tensor& tensor) {
  const onnx::Attribute* order = node.Find("perm");
  return node.op() == "Transpose" && tensor.dims_size() == 2 &&
         (order == nullptr ||
          (order->ints_size() == 2 && order->ints(0) == 1 && order->ints(1) == 0));
}

// Where a tensor's elements lie: `step` is how many elements apart.
struct Layout {
  DType dtype;
  Bytes storage;
  int64_t step = 1;
};

Layout LayoutOf(const onnx::Tensor& tensor, const std::string& path) {
  const bool raw = tensor.has_raw_data();
  const Bytes bytes = BytesOf(tensor.raw_data());
  switch (tensor.data_type()) {
    case onnx::Tensor::FLOAT:
      return {DType::kF32, raw ? bytes : BytesOf(tensor.float_data())};
    case onnx::Tensor::DOUBLE:
      return {DType::kF64, raw ? bytes : BytesOf(tensor.double_data())};
    case onnx::Tensor::FLOAT16:
    case onnx::Tensor::BFLOAT16: {
      const DType dtype = tensor.data_type() == onnx::Tensor::FLOAT16 ? DType::kF16 : DType::kBF16;
      if (raw) return {dtype, bytes};
      return {dtype, BytesOf(tensor.int32_data()), 2};  // in the lower halves
    }
    default:
      throw Error(ErrorCode::kUnsupported, WhereIs(tensor, path),
                  fmt::format("has elements of ONNX type {}; weights are float, float16, bfloat16 "
                              "or double",
                              tensor.data_type()));
  }
}

}  // namespace

std::vector<int64_t> OnnxConstant::shape() const {
  std::vector<int64_t> shape = Dims(*tensor);
  if (columns > 0) shape[1] = columns;
  if (transposed) std::swap(shape[0], shape[1]);
  return shape;
}

const onnx::Attribute* OnnxNode::Find(const char* attribute) const {
  for (const onnx::Attribute& candidate : proto->attribute()) {
    if (candidate.name() == attribute) return &candidate;
  }
  return nullptr;
}

OnnxGraph::OnnxGraph(const onnx::Graph& graph, const std::string& path) : path_(path) {
  for (const onnx::Tensor& tensor : graph.initializer()) {
    CheckHeld(tensor, path);
    values_[NewValue(tensor.name(), -1)].constant.tensor = &tensor;
  }
  for (const onnx::ValueInfo& input : graph.input()) {
    if (!names_.contains(input.name())) inputs_.push_back(NewValue(input.name(), -1));
  }
  for (const onnx::Node& node : graph.node()) AddNode(node);
  CheckUsed(graph);
}

int OnnxGraph::NewValue(const std::string& name, int maker) {
  const int value = static_cast<int>(values_.size());
  if (!name.empty() && !names_.emplace(name, value).second) {
    throw Error(ErrorCode::kCorrupt, path_, "value " + Quoted(name) + " is made twice");
  }
  values_.push_back({.maker = maker});
  return value;
}

void OnnxGraph::AddNode(const onnx::Node& proto) {
  OnnxNode node{.proto = &proto};
  for (const std::string& name : proto.input()) {
    const auto value = names_.find(name);
    if (value == names_.end() && !name.empty()) {
      throw Error(ErrorCode::kCorrupt, path_,
                  fmt::format("node {} reads {}, which nothing before it makes",
                              Quoted(proto.name()), Quoted(name)));
    }
    node.inputs.push_back(name.empty() ? -1 : value->second);
  }
  for (const std::string& name : proto.output()) {
    node.outputs.push_back(NewValue(name, static_cast<int>(nodes_.size())));
  }
  FoldConstant(node);
  if (!DivideProduct(node)) Append(std::move(node));
}

int OnnxGraph::Append(OnnxNode node) {
  const int index = static_cast<int>(nodes_.size());
  for (int input : node.inputs) {
    if (input < 0) continue;
    std::vector<int>& readers = values_[input].readers;
    if (readers.empty() || readers.back() != index) readers.push_back(index);  // each once
  }
  for (int output : node.outputs) values_[output].maker = index;
  nodes_.push_back(std::move(node));
  return index;
}

// Simplifiers join products of one value with several matrices: one product with all columns, then
// a Split. Undoes it, with matrices of equal width as those of MST++ are.
bool OnnxGraph::DivideProduct(const OnnxNode& split) {
  if (split.op() != "Split" || split.inputs.empty() || split.inputs[0] < 0) return false;
  const int maker = values_[split.inputs[0]].maker;
  if (maker < 0 || nodes_[maker].op() != "MatMul" || nodes_[maker].inputs.size() != 2) return false;
  const int x = nodes_[maker].inputs[0];
  const OnnxConstant all = Constant(nodes_[maker].inputs[1]);
  const auto parts = static_cast<int64_t>(split.outputs.size());
  if (x < 0 || !all || all.transposed || all.columns > 0 || all.shape().size() != 2 || parts < 2 ||
      all.shape()[1] <= 0 || all.shape()[1] % parts != 0) {
    return false;
  }
  nodes_[maker].replaced = true;
  const int64_t columns = all.shape()[1] / parts;
  for (int64_t i = 0; i < parts; ++i) {
    const int matrix = NewValue("", -1);
    values_[matrix].constant = {all.tensor, false, i * columns, columns};
    Append({.proto = nodes_[maker].proto, .inputs = {x, matrix}, .outputs = {split.outputs[i]}});
  }
  return true;
}

void OnnxGraph::FoldConstant(const OnnxNode& node) {
  if (node.outputs.size() != 1) return;
  OnnxConstant& constant = values_[node.outputs[0]].constant;
  if (node.op() == "Constant") {
    const onnx::Attribute* value = node.Find("value");
    if (value == nullptr || !value->has_t()) return;
    CheckHeld(value->t(), path_);
    constant.tensor = &value->t();
  } else if (node.inputs.size() == 1 && Constant(node.inputs[0])) {
    const OnnxConstant& input = Constant(node.inputs[0]);
    if (node.op() == "Identity" || node.op() == "Cast") {
      constant = input;
    } else if (IsTransposeOfMatrix(node, *input.tensor)) {
      constant = {input.tensor, !input.transposed};
    }
  }
}

// A weight that nothing reads shows that something else is read in its place.
void OnnxGraph::CheckUsed(const onnx::Graph& graph) const {
  std::set<std::string> outputs;
  for (const onnx::ValueInfo& output : graph.output()) outputs.insert(output.name());
  for (const auto& [name, value] : names_) {
    const Value& v = values_[value];
    if (v.constant && IsFloat(*v.constant.tensor) && v.readers.empty() && !outputs.contains(name)) {
      throw Error(ErrorCode::kCorrupt, path_, "no node reads the constant " + Quoted(name));
    }
  }
}

int OnnxGraph::Input() const {
  if (inputs_.size() != 1) {
    throw Error(ErrorCode::kUnsupported, path_,
                fmt::format("the graph has {} inputs; MST++ has one", inputs_.size()));
  }
  return inputs_[0];
}

const OnnxConstant& OnnxGraph::Constant(int value) const {
  static const OnnxConstant kNone;
  return value < 0 ? kNone : values_[value].constant;
}

std::optional<double> OnnxGraph::Scalar(int value) const {
  const OnnxConstant& constant = Constant(value);
  if (!constant) return std::nullopt;
  for (int64_t extent : constant.shape()) {
    if (extent != 1) return std::nullopt;
  }
  if (!IsFloat(*constant.tensor)) return std::nullopt;
  StoredTensor stored = StoredOnnxConstant(constant, path_);
  stored.name = "scalar";
  WeightsFile file;
  AddTensor({path_, {}, true}, stored, &file);
  return file.tensors.at("scalar").data[0];
}

int OnnxGraph::OtherInput(const OnnxNode& node, int value) const {
  if (node.inputs.size() != 2 || node.inputs[0] < 0 || node.inputs[1] < 0) return -1;
  const int root = Root(value);
  if (Root(node.inputs[0]) == root) return node.inputs[1];
  return Root(node.inputs[1]) == root ? node.inputs[0] : -1;
}

int OnnxGraph::Root(int value) const {
  while (values_[value].maker >= 0) {
    const OnnxNode& maker = nodes_[values_[value].maker];
    if (!Moves(maker) || maker.inputs[0] < 0 || value != maker.outputs[0]) break;
    value = maker.inputs[0];
  }
  return value;
}

std::vector<int> OnnxGraph::Readers(int value) const {
  std::vector<int> readers, open{value};
  while (!open.empty()) {
    const int read = open.back();
    open.pop_back();
    for (int reader : values_[read].readers) {
      const OnnxNode& node = nodes_[reader];
      if (!Moves(node)) {
        if (!node.replaced) readers.push_back(reader);
      } else if (node.inputs[0] == read && !node.outputs.empty()) {
        open.push_back(node.outputs[0]);
      }
    }
  }
  std::sort(readers.begin(), readers.end());
  readers.erase(std::unique(readers.begin(), readers.end()), readers.end());
  return readers;
}

void OnnxGraph::Unlike(int node, const std::string& what) const {
  std::string where = path_;
  if (node >= 0) {
    const onnx::Node& proto = *nodes_[node].proto;
    where = Where(path_, fmt::format("node {} {}", node, Quoted(proto.name())));
  }
  throw Error(ErrorCode::kUnsupported, where,
              what +
                  "; weights are read from PyTorch's exports of the official MST++, and from "
                  "this program's. Take the weights that the file was exported from");
}

StoredTensor StoredOnnxTensor(const onnx::Tensor& tensor, const std::string& path) {
  CheckHeld(tensor, path);
  const std::string where = WhereIs(tensor, path);
  const Layout layout = LayoutOf(tensor, path);
  StoredTensor stored;
  stored.dtype = layout.dtype;
  stored.storage = layout.storage;
  stored.shape = Dims(tensor);
  const auto count = static_cast<uint64_t>(CountElements(stored.shape, where));
  const uint64_t item = ItemBytes(layout.dtype) * static_cast<uint64_t>(layout.step);
  if (layout.storage.size() % item != 0 || layout.storage.size() / item != count) {
    throw Error(ErrorCode::kCorrupt, where, "its shape and its number of bytes disagree");
  }
  stored.strides = RowMajorStrides(stored.shape);
  for (int64_t& stride : stored.strides) stride *= layout.step;
  return stored;
}

StoredTensor StoredOnnxConstant(const OnnxConstant& constant, const std::string& path) {
  StoredTensor stored = StoredOnnxTensor(*constant.tensor, path);
  if (constant.columns > 0) {
    stored.offset = constant.first_column * stored.strides[1];
    stored.shape[1] = constant.columns;
  }
  if (constant.transposed) {
    std::swap(stored.shape[0], stored.shape[1]);
    std::swap(stored.strides[0], stored.strides[1]);
  }
  return stored;
}

}  // namespace mstpp
