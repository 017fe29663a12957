// SPDX-License-Identifier: Apache-2.0
// ONNX: a computation's graph, in protobuf. Files that this program wrote hold the weights under
// their names; in those of others each is known by its place in the graph (onnx_match.h).
#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "weights/onnx_match.h"
#include "weights/onnx_metadata.h"

namespace mstpp {
namespace {

using google::protobuf::io::CodedInputStream;

// A message takes two bytes in a file and a hundred times that in memory: their number is limited
// before any is made. A file of PyTorch's has 30,000.
constexpr int kMostFields = 1'000'000;

[[noreturn]] void Corrupt(const std::string& path) {
  throw Error(ErrorCode::kCorrupt, path,
              "damaged ONNX file: it was probably cut off, copy or download it again");
}

// The fields that hold messages with many fields: the graph, its nodes and their attributes. What
// is not listed is counted as one.
struct Nested {
  uint32_t field;
  const Nested* inside;
};
constexpr Nested kInAttribute{0, nullptr};
constexpr Nested kInNode{onnx::Node::kAttributeFieldNumber, &kInAttribute};
constexpr Nested kInGraph{onnx::Graph::kNodeFieldNumber, &kInNode};
constexpr Nested kInModel{onnx::Model::kGraphFieldNumber, &kInGraph};

enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

bool SkipField(CodedInputStream* in, uint32_t wire_type) {
  uint64_t number = 0;
  int bytes = 0;
  switch (wire_type) {
    case kVarint:
      return in->ReadVarint64(&number);
    case kFixed64:
      return in->Skip(8);
    case kBytes:
      return in->ReadVarintSizeAsInt(&bytes) && in->Skip(bytes);
    case kFixed32:
      return in->Skip(4);
    default:
      return false;
  }
}

void CountFields(CodedInputStream* in, const Nested& nested, int* left, const std::string& path) {
  while (const uint32_t tag = in->ReadTag()) {
    if (--*left < 0) {
      throw Error(ErrorCode::kUnsupported, path,
                  fmt::format("a graph of more than {} fields is not read", kMostFields));
    }
    const uint32_t wire_type = tag & 7U;
    if (nested.inside == nullptr || tag >> 3U != nested.field || wire_type != kBytes) {
      if (!SkipField(in, wire_type)) Corrupt(path);
      continue;
    }
    int bytes = 0;
    if (!in->ReadVarintSizeAsInt(&bytes)) Corrupt(path);
    const auto limit = in->PushLimit(bytes);
    CountFields(in, *nested.inside, left, path);
    in->PopLimit(limit);
  }
  if (!in->ConsumedEntireMessage()) Corrupt(path);
}

onnx::Model Parse(const Source& source) {
  if (source.bytes.size() > static_cast<size_t>(std::numeric_limits<int>::max())) {
    throw Error(ErrorCode::kUnsupported, source.path, "an ONNX file of 2 GiB or more is not read");
  }
  const int bytes = static_cast<int>(source.bytes.size());
  CodedInputStream counted(source.bytes.data(), bytes);
  int left = kMostFields;
  CountFields(&counted, kInModel, &left, source.path);
  onnx::Model model;
  if (!model.ParseFromArray(source.bytes.data(), bytes)) Corrupt(source.path);
  if (!model.has_graph()) {
    throw Error(
        ErrorCode::kCorrupt, source.path,
        "this ONNX file holds no graph: it was probably cut off, copy or download it again");
  }
  return model;
}

// Linear weights are 1x1 convolutions there, and what LayerNorm reads may be one row a channel.
void RestoreShape(StoredTensor* tensor) {
  const auto ends = [&](const char* ending) { return tensor->name.ends_with(ending); };
  const bool vector = ends(".norm.weight") || ends(".norm.bias");
  const bool matrix =
      ends(".to_q.weight") || ends(".to_k.weight") || ends(".to_v.weight") || ends(".proj.weight");
  const size_t rank = vector ? 1 : matrix ? 2 : tensor->shape.size();
  while (tensor->shape.size() > rank && tensor->shape.back() == 1) {
    tensor->shape.pop_back();
    tensor->strides.pop_back();
  }
}

// The weights of a file that this program wrote and no other one changed; false for other files.
bool ReadByName(const onnx::Graph& graph, const Source& source, WeightsFile* file) {
  OnnxChecksum sum;
  std::vector<StoredTensor> weights;
  for (const onnx::Tensor& tensor : graph.initializer()) {
    if (!IsOnnxWeight(tensor.name())) continue;
    weights.push_back(StoredOnnxTensor(tensor, source.path));
    weights.back().name = tensor.name();
    sum.Add(tensor, weights.back().storage.data(), weights.back().storage.size());
  }
  const auto written = [&](const char* key) {
    const auto entry = file->metadata.find(key);
    return entry == file->metadata.end() ? std::string() : entry->second;
  };
  if (sum.Names() != written(kOnnxNames)) return false;
  if (sum.All() != written(kOnnxChecksum)) {
    throw Error(ErrorCode::kCorrupt, source.path,
                "its weights are not those that were written (their checksum is another): the file "
                "is damaged, or another program changed it. Take the weights that it was exported "
                "from");
  }
  for (StoredTensor& tensor : weights) {
    RestoreShape(&tensor);
    AddTensor(source, tensor, file);
  }
  return true;
}

}  // namespace

// Protobuf has no mark of its own: an ONNX file begins with its version (field 1, below 128), and
// another field of the model follows.
bool DetectOnnx(const Source& source) {
  constexpr std::array<uint8_t, 8> kNextTags{0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72};
  const Bytes& bytes = source.bytes;
  return bytes.size() > 3 && bytes[0] == 0x08 && bytes[1] < 0x80 &&
         std::find(kNextTags.begin(), kNextTags.end(), bytes[2]) != kNextTags.end();
}

void ReadOnnx(const Source& source, WeightsFile* file) {
  const onnx::Model model = Parse(source);
  for (const onnx::Property& property : model.metadata_props()) {
    file->metadata[property.key()] = property.value();
  }
  const bool ours = model.producer_name() == "mstpp";
  if (!ours || !ReadByName(model.graph(), source, file)) {
    if (ours && file->metadata[kOnnxAttention] == "restructured") {
      throw Error(ErrorCode::kUnsupported, source.path,
                  "another program changed this file, and from the restructured form the weights "
                  "can be read by their names only. Export the published form, or take the weights "
                  "that it was exported from");
    }
    MatchOnnxWeights(OnnxGraph(model.graph(), source.path), source, file);
  }
  // What tells of the graph and not of the network ends here.
  for (const char* key : {kOnnxNames, kOnnxChecksum, kOnnxAttention, kOnnxPadding}) {
    file->metadata.erase(key);
  }
}

}  // namespace mstpp
