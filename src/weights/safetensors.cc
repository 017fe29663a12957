// SPDX-License-Identifier: Apache-2.0
// safetensors: the header's length (8 bytes), the header (JSON: tensors' types, shapes and places;
// metadata), the numbers. As the format demands, the tensors must cover the rest of the file
// without overlap or gap.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "core/atomic_file.h"
#include "weights/convert.h"
#include "weights/format.h"
#include "weights/json.h"

namespace mstpp {
namespace {

constexpr char kMetadata[] = "__metadata__";
constexpr uint64_t kMaxHeader = uint64_t{1} << 20;  // 25 kB for the 227 tensors of MST++
constexpr int kMaxDepth = 3;                        // header, tensor, shape
constexpr size_t kAlignment = 8;
static_assert(std::endian::native == std::endian::little, "numbers are written as they lie");

[[noreturn]] void Corrupt(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::kCorrupt, where, "damaged safetensors file: " + message);
}

DType ParseType(const std::string& name, const std::string& where) {
  static constexpr std::array<std::pair<std::string_view, DType>, 13> kTypes = {
      {{"F64", DType::kF64},
       {"F32", DType::kF32},
       {"F16", DType::kF16},
       {"BF16", DType::kBF16},
       {"I64", DType::kI64},
       {"I32", DType::kI32},
       {"I16", DType::kI16},
       {"I8", DType::kI8},
       {"U64", DType::kU64},
       {"U32", DType::kU32},
       {"U16", DType::kU16},
       {"U8", DType::kU8},
       {"BOOL", DType::kBool}}};
  for (const auto& [known, dtype] : kTypes) {
    if (name == known) return dtype;
  }
  throw Error(ErrorCode::kUnsupported, where,
              "has numbers of type " + Quoted(name) + "; convert them to F32 first");
}

std::vector<int64_t> Integers(const JsonNode* list, const std::string& where, const char* what) {
  std::vector<int64_t> integers;
  if (list == nullptr) Corrupt(where, std::string("it has no list ") + what);
  for (const JsonNode& item : list->children) {
    if (item.kind != JsonNode::Kind::kInteger) Corrupt(where, std::string("wrong ") + what);
    integers.push_back(item.integer);
  }
  return integers;
}

struct Placed {
  uint64_t begin, end;
  StoredTensor tensor;
};

Placed ParseTensor(const JsonNode& entry, Bytes data, const std::string& path) {
  const std::string where = Where(path, "tensor " + Quoted(entry.key));
  const JsonNode* dtype = entry.Find("dtype", JsonNode::Kind::kText);
  if (dtype == nullptr || entry.children.size() != 3) {
    Corrupt(where, "its entry must have dtype, shape and data_offsets");
  }
  StoredTensor tensor;
  tensor.name = entry.key;
  tensor.dtype = ParseType(dtype->text, where);
  tensor.shape = Integers(entry.Find("shape", JsonNode::Kind::kArray), where, "shape");
  const auto count = static_cast<uint64_t>(CountElements(tensor.shape, where));
  tensor.strides = RowMajorStrides(tensor.shape);
  const std::vector<int64_t> offsets =
      Integers(entry.Find("data_offsets", JsonNode::Kind::kArray), where, "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1]) Corrupt(where, "wrong data_offsets");
  const auto begin = static_cast<uint64_t>(offsets[0]), end = static_cast<uint64_t>(offsets[1]);
  if (end > data.size()) {
    Corrupt(where, fmt::format("it ends at byte {} of {} after the header; the file was probably "
                               "cut off, copy or download it again",
                               end, data.size()));
  }
  const size_t item = ItemBytes(tensor.dtype);
  if ((end - begin) % item != 0 || (end - begin) / item != count) {
    Corrupt(where, "its shape and its number of bytes disagree");
  }
  tensor.storage = data.subspan(begin, end - begin);
  return {begin, end, std::move(tensor)};
}

void CheckCovered(std::vector<Placed>* placed, uint64_t bytes, const std::string& path) {
  std::sort(placed->begin(), placed->end(), [](const Placed& a, const Placed& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t covered = 0;
  for (const Placed& p : *placed) {
    if (p.begin != covered) {
      Corrupt(path, fmt::format("tensors overlap or leave a gap at byte {} after the header, at {}",
                                p.begin, Quoted(p.tensor.name)));
    }
    covered = p.end;
  }
  if (covered != bytes) Corrupt(path, fmt::format("{} bytes belong to no tensor", bytes - covered));
}

std::string MakeHeader(const std::string& path, const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::string header = "{";
  if (!metadata.empty()) header += fmt::format("\"{}\":{}", kMetadata, ToJson(metadata, path));
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const uint64_t end = offset + tensor.data.size() * sizeof(float);
    header += fmt::format(R"({}{}:{{"dtype":"F32","shape":[{}],"data_offsets":[{},{}]}})",
                          header.size() > 1 ? "," : "", ToJson(name, path),
                          fmt::join(tensor.shape, ","), offset, end);
    offset = end;
  }
  header += '}';
  header.append((kAlignment - header.size() % kAlignment) % kAlignment, ' ');
  return header;
}

}  // namespace

bool DetectSafetensors(const Source& source) {
  return source.bytes.size() > sizeof(uint64_t) && source.bytes[sizeof(uint64_t)] == '{';
}

void ReadSafetensors(const Source& source, WeightsFile* file) {
  ByteReader reader(source.bytes, source.path);
  const auto header_bytes = reader.Read<uint64_t>();
  if (header_bytes > kMaxHeader) {
    Corrupt(source.path, fmt::format("its header would have {} bytes; at most {} are read",
                                     header_bytes, kMaxHeader));
  }
  const JsonNode header = ParseJson(reader.Text(header_bytes), kMaxDepth, source.path);
  if (header.kind != JsonNode::Kind::kObject) Corrupt(source.path, "its header is no JSON object");
  const Bytes data = reader.Take(reader.left());
  std::vector<Placed> placed;
  for (const JsonNode& entry : header.children) {
    if (entry.key == kMetadata) {
      file->metadata = ToMetadata(entry, source.path);
    } else {
      placed.push_back(ParseTensor(entry, data, source.path));
    }
  }
  CheckCovered(&placed, data.size(), source.path);
  for (const Placed& p : placed) AddTensor(source, p.tensor, file);
}

void WriteSafetensors(const std::string& path, const StateDict& tensors,
                      const std::map<std::string, std::string>& metadata) {
  OrOutOfMemory(path, [&] {
    CheckWritable(path, tensors);
    const std::string header = MakeHeader(path, tensors, metadata);
    std::array<uint8_t, sizeof(uint64_t)> length;
    for (size_t i = 0; i < length.size(); ++i) {
      length[i] = static_cast<uint8_t>(uint64_t{header.size()} >> (8 * i));
    }
    AtomicFile file(path);
    file.Write(length.data(), length.size());
    file.Write(header.data(), header.size());
    for (const auto& [name, tensor] : tensors) {
      file.Write(tensor.data.data(), tensor.data.size() * sizeof(float));
    }
    file.Commit();
  });
}

}  // namespace mstpp
