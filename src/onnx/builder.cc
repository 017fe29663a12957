// SPDX-License-Identifier: Apache-2.0
#include "onnx/builder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/half.h"
#include "mstpp/error.h"
#include "weights/onnx_metadata.h"

namespace mstpp {

using Id = OnnxBuilder::Id;
using onnx::Attribute;
using Type = onnx::Tensor::Type;

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie");

namespace {

Attribute& AddAttribute(onnx::Graph& graph, const char* name, Attribute::Type type) {
  Attribute& attribute = *graph.mutable_node()->rbegin()->add_attribute();
  attribute.set_name(name);
  attribute.set_type(type);
  return attribute;
}

void SetType(onnx::ValueInfo& info, const std::string& name, const OnnxBuilder::Extents& extents) {
  info.set_name(name);
  onnx::TensorType& type = *info.mutable_type()->mutable_tensor_type();
  type.set_elem_type(onnx::Tensor::FLOAT);
  for (const std::string& extent : extents) {
    int64_t number = 0;
    const char* end = extent.data() + extent.size();
    onnx::Dimension& dimension = *type.mutable_shape()->add_dim();
    if (extent.empty()) continue;
    if (std::from_chars(extent.data(), end, number).ptr == end) {
      dimension.set_dim_value(number);
    } else {
      dimension.set_dim_param(extent);
    }
  }
}

}  // namespace

OnnxBuilder::OnnxBuilder(const Settings& settings)
    : settings_(settings), graph_(*model_.mutable_graph()) {}

Id OnnxBuilder::NewValue(const std::string& name, int rank) {
  values_.push_back({name, rank});
  return static_cast<Id>(values_.size()) - 1;
}

Id OnnxBuilder::Node(const char* op, const std::string& name, const std::vector<Id>& inputs) {
  onnx::Node& node = *graph_.add_node();
  node.set_op_type(op);
  node.set_name(name);
  int rank = 0;
  for (Id input : inputs) {
    if (input == kNone) continue;
    node.add_input(values_[input].name);
    rank = std::max(rank, values_[input].rank);
  }
  node.add_output(name);
  return NewValue(name, rank);
}

void OnnxBuilder::Set(const char* name, int64_t value) {
  AddAttribute(graph_, name, Attribute::INT).set_i(value);
}

void OnnxBuilder::Set(const char* name, float value) {
  AddAttribute(graph_, name, Attribute::FLOAT).set_f(value);
}

void OnnxBuilder::Set(const char* name, const char* value) {
  AddAttribute(graph_, name, Attribute::STRING).set_s(value);
}

void OnnxBuilder::Set(const char* name, const std::vector<int64_t>& values) {
  AddAttribute(graph_, name, Attribute::INTS).mutable_ints()->Add(values.begin(), values.end());
}

Id OnnxBuilder::Initializer(const std::string& name, const std::vector<int64_t>& shape, Type type,
                            const void* data, size_t bytes) {
  onnx::Tensor& tensor = *graph_.add_initializer();
  tensor.set_name(name);
  tensor.mutable_dims()->Add(shape.begin(), shape.end());
  tensor.set_data_type(type);
  tensor.set_raw_data(data, bytes);
  return NewValue(name, static_cast<int>(shape.size()));
}

Id OnnxBuilder::Weight(const std::string& name, const Tensor& tensor,
                       const std::vector<int64_t>& shape, Width width) {
  const std::vector<int64_t>& extents = shape.empty() ? tensor.shape : shape;
  if (!settings_.half || width == Width::kWide) {
    return Initializer(name, extents, onnx::Tensor::FLOAT, tensor.data.data(),
                       tensor.data.size() * sizeof(float));
  }
  std::vector<uint16_t> halves;
  halves.reserve(tensor.data.size());
  for (float value : tensor.data) {
    halves.push_back(ToHalf(value));
    if (std::isfinite(value) && IsInfiniteHalf(halves.back())) {
      throw Error(
          ErrorCode::kUnsupported, name,
          fmt::format("holds {}, and float16 ends at 65504; export with --precision fp32", value));
    }
  }
  return Initializer(name, extents, onnx::Tensor::FLOAT16, halves.data(),
                     halves.size() * sizeof(uint16_t));
}

Id OnnxBuilder::Integers(const std::vector<int64_t>& values) {
  const std::string name = fmt::format("constant/[{}]", fmt::join(values, ","));
  const auto [entry, is_new] = constants_.emplace(name, kNone);
  if (is_new) {
    entry->second = Initializer(name, {static_cast<int64_t>(values.size())}, onnx::Tensor::INT64,
                                values.data(), values.size() * sizeof(int64_t));
  }
  return entry->second;
}

Id OnnxBuilder::Scalar(float value, Width width) {
  const bool half = settings_.half && width == Width::kNetwork;
  const std::string name = fmt::format("constant/{}{}", value, half ? "/half" : "");
  const auto [entry, is_new] = constants_.emplace(name, kNone);
  if (is_new) entry->second = Weight(name, {{}, {value}}, {}, width);
  return entry->second;
}

Id OnnxBuilder::Conv(const std::string& name, Id x, Id weight, Id bias, const ConvShape& shape) {
  const Id y = Node("Conv", name, {x, weight, bias});
  if (shape.groups != 1) Set("group", shape.groups);
  if (shape.padding != 0) Set("pads", std::vector<int64_t>(4, shape.padding));
  if (shape.stride != 1) Set("strides", std::vector<int64_t>(2, shape.stride));
  return y;
}

Id OnnxBuilder::ConvTranspose(const std::string& name, Id x, Id weight, Id bias, int stride) {
  const Id y = Node("ConvTranspose", name, {x, weight, bias});
  Set("strides", std::vector<int64_t>(2, stride));
  return y;
}

Id OnnxBuilder::MatMul(const std::string& name, Id a, Id b) { return Node("MatMul", name, {a, b}); }
Id OnnxBuilder::Add(const std::string& name, Id a, Id b) { return Node("Add", name, {a, b}); }
Id OnnxBuilder::Mul(const std::string& name, Id a, Id b) { return Node("Mul", name, {a, b}); }
Id OnnxBuilder::Div(const std::string& name, Id a, Id b) { return Node("Div", name, {a, b}); }

Id OnnxBuilder::Transpose(const std::string& name, Id x, const std::vector<int64_t>& order) {
  const Id y = Node("Transpose", name, {x});
  Set("perm", order);
  return y;
}

Id OnnxBuilder::Softmax(const std::string& name, Id x) {
  const Id y = Node("Softmax", name, {x});
  Set("axis", int64_t{-1});
  return y;
}

Id OnnxBuilder::Sum(const std::string& name, Id x) {
  return Node("ReduceSum", name, {x, Integers({-1})});
}

Id OnnxBuilder::Reshape(const std::string& name, Id x, const std::vector<int64_t>& shape) {
  const Id y = Node("Reshape", name, {x, Integers(shape)});
  values_[y].rank = static_cast<int>(shape.size());
  return y;
}

Id OnnxBuilder::ConcatChannels(const std::string& name, Id a, Id b) {
  const Id y = Node("Concat", name, {a, b});
  Set("axis", int64_t{1});
  return y;
}

Id OnnxBuilder::CastTo(const std::string& name, Id x, Type type) {
  const Id y = Node("Cast", name, {x});
  Set("to", static_cast<int64_t>(type));
  return y;
}

Id OnnxBuilder::Widen(const std::string& name, Id x) {
  return settings_.half ? CastTo(name, x, onnx::Tensor::FLOAT) : x;
}

Id OnnxBuilder::Narrow(const std::string& name, Id x) {
  return settings_.half ? CastTo(name, x, onnx::Tensor::FLOAT16) : x;
}

Id OnnxBuilder::Input(const std::string& name, const Extents& extents) {
  SetType(*graph_.add_input(), name, extents);
  return NewValue(name, static_cast<int>(extents.size()));
}

void OnnxBuilder::AddOutput(const std::string& name, const Extents& extents) {
  SetType(*graph_.add_output(), name, extents);
}

void OnnxBuilder::Rename(Id x, const std::string& name) {
  onnx::Node& node = *graph_.mutable_node()->rbegin();
  node.set_name(name);
  node.set_output(0, name);
  values_[x].name = name;
}

void OnnxBuilder::AddProperty(const std::string& key, const std::string& value) {
  onnx::Property& property = *model_.add_metadata_props();
  property.set_key(key);
  property.set_value(value);
}

void OnnxBuilder::AddChecksum() {
  OnnxChecksum sum;
  for (const onnx::Tensor& tensor : graph_.initializer()) {
    if (!IsOnnxWeight(tensor.name())) continue;
    sum.Add(tensor, tensor.raw_data().data(), tensor.raw_data().size());
  }
  AddProperty(kOnnxNames, sum.Names());
  AddProperty(kOnnxChecksum, sum.All());
}

std::string OnnxBuilder::Finish(const std::string& graph_name,
                                const std::string& producer_version) {
  model_.set_ir_version(settings_.opset < 15 ? 7 : 8);  // of the releases that brought the opsets
  model_.set_producer_name("mstpp");
  model_.set_producer_version(producer_version);
  model_.add_opset_import()->set_version(settings_.opset);
  graph_.set_name(graph_name);
  std::string bytes;
  if (model_.ByteSizeLong() > size_t{std::numeric_limits<int>::max()} ||
      !model_.SerializeToString(&bytes)) {
    throw Error(ErrorCode::kUnsupported, graph_name,
                "a network of more than 2 GiB does not fit an ONNX file");
  }
  return bytes;
}

}  // namespace mstpp
