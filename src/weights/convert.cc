// SPDX-License-Identifier: Apache-2.0
#include "weights/convert.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "core/half.h"

namespace mstpp {
namespace {

constexpr size_t kMaxRank = 8;
constexpr size_t kMaxName = 1000;

float Decode(DType dtype, uint64_t bits) {
  switch (dtype) {
    case DType::kF64:
      return static_cast<float>(std::bit_cast<double>(bits));
    case DType::kF32:
      return std::bit_cast<float>(static_cast<uint32_t>(bits));
    case DType::kF16:
      return FromHalf(static_cast<uint16_t>(bits));
    case DType::kBF16:
      return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
    case DType::kI64:
      return static_cast<float>(static_cast<int64_t>(bits));
    case DType::kI32:
      return static_cast<float>(static_cast<int32_t>(bits));
    case DType::kI16:
      return static_cast<float>(static_cast<int16_t>(bits));
    case DType::kI8:
      return static_cast<float>(static_cast<int8_t>(bits));
    case DType::kU64:
    case DType::kU32:
    case DType::kU16:
    case DType::kU8:
      return static_cast<float>(bits);
    case DType::kBool:
      return bits != 0 ? 1.0F : 0.0F;
  }
  return 0;
}

uint64_t LoadBits(const uint8_t* item, size_t bytes, bool big_endian) {
  uint64_t bits = 0;
  for (size_t i = 0; i < bytes; ++i) {
    bits |= uint64_t{item[big_endian ? bytes - 1 - i : i]} << (8 * i);
  }
  return bits;
}

// Throws unless every element lies in the storage.
void CheckReach(const StoredTensor& tensor, const std::string& where) {
  bool overflow = tensor.strides.size() != tensor.shape.size() || tensor.offset < 0;
  int64_t last = tensor.offset;
  for (size_t i = 0; i < tensor.shape.size() && !overflow; ++i) {
    int64_t reach;
    overflow = tensor.strides[i] < 0 ||
               __builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &reach) ||
               __builtin_add_overflow(last, reach, &last);
  }
  const size_t held = tensor.storage.size() / ItemBytes(tensor.dtype);
  if (overflow || static_cast<uint64_t>(last) >= held) {
    throw Error(ErrorCode::kCorrupt, where,
                fmt::format("shape [{}] with strides [{}] from element {} reaches outside its "
                            "storage of {} elements",
                            fmt::join(tensor.shape, ", "), fmt::join(tensor.strides, ", "),
                            tensor.offset, held));
  }
}

// The next index in row-major order, and the element's place in the storage.
void Advance(const StoredTensor& tensor, std::vector<int64_t>* index, int64_t* place) {
  for (size_t i = index->size(); i-- > 0;) {
    if (++(*index)[i] < tensor.shape[i]) {
      *place += tensor.strides[i];
      return;
    }
    *place -= (tensor.shape[i] - 1) * tensor.strides[i];
    (*index)[i] = 0;
  }
}

[[noreturn]] void ThrowNonfinite(const std::vector<int64_t>& index, float value,
                                 const std::string& where) {
  throw Error(ErrorCode::kCorrupt, where,
              fmt::format("element [{}] is {} as float32; such weights make every output useless. "
                          "Take a checkpoint from before the training diverged",
                          fmt::join(index, ", "), std::isnan(value) ? "not a number" : "infinite"));
}

std::vector<float> Convert(const StoredTensor& tensor, int64_t count, bool allow_nonfinite,
                           const std::string& where) {
  const size_t item = ItemBytes(tensor.dtype);
  std::vector<float> data(static_cast<size_t>(count));
  std::vector<int64_t> index(tensor.shape.size());
  int64_t place = tensor.offset;
  for (float& value : data) {
    const uint8_t* bytes = tensor.storage.data() + static_cast<size_t>(place) * item;
    value = Decode(tensor.dtype, LoadBits(bytes, item, tensor.big_endian));
    if (!allow_nonfinite && !std::isfinite(value)) ThrowNonfinite(index, value, where);
    Advance(tensor, &index, &place);
  }
  return data;
}

// Of the extents; -1 if one is negative or the product of the others than 0 does not fit.
int64_t Product(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  bool empty = false;
  for (int64_t extent : shape) {
    if (extent < 0) return -1;
    if (extent == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(product, extent, &product)) {
      return -1;
    }
  }
  return empty ? 0 : product;
}

bool IsName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxName &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > 0x20 && c < 0x7F; });
}

}  // namespace

size_t ItemBytes(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 8;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
    case DType::kU16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 1;
}

int64_t CountElements(const std::vector<int64_t>& shape, const std::string& where) {
  if (shape.size() > kMaxRank) {
    throw Error(ErrorCode::kUnsupported, where,
                fmt::format("has {} dimensions; at most {} are read", shape.size(), kMaxRank));
  }
  const int64_t count = Product(shape);
  if (count < 0) {
    throw Error(ErrorCode::kCorrupt, where,
                fmt::format("the shape [{}] has no meaning", fmt::join(shape, ", ")));
  }
  return count;
}

std::vector<int64_t> RowMajorStrides(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t next = 1;
  for (size_t i = shape.size(); i-- > 0; next *= shape[i]) strides[i] = next;
  return strides;
}

std::vector<int64_t> ColumnMajorStrides(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t next = 1;
  for (size_t i = 0; i < shape.size(); next *= shape[i], ++i) strides[i] = next;
  return strides;
}

void AddTensor(const Source& source, const StoredTensor& tensor, WeightsFile* file) {
  const std::string where = Where(source.path, "tensor " + Quoted(tensor.name));
  if (!IsName(tensor.name)) {
    throw Error(ErrorCode::kUnsupported, where,
                "names of tensors are 1 to 1000 printable ASCII characters without spaces");
  }
  if (file->tensors.contains(tensor.name)) {
    throw Error(ErrorCode::kCorrupt, where, "is there twice");
  }
  const int64_t count = CountElements(tensor.shape, where);
  Tensor converted{tensor.shape, {}};
  if (count > 0) {
    CheckReach(tensor, where);
    converted.data = Convert(tensor, count, source.allow_nonfinite, where);
  }
  file->tensors.emplace(tensor.name, std::move(converted));
}

void CheckWritable(const std::string& path, const StateDict& tensors) {
  if (tensors.empty())
    throw Error(ErrorCode::kInvalidArgument, path, "there are no tensors to write");
  for (const auto& [name, tensor] : tensors) {
    const std::string where = Where(path, "tensor " + Quoted(name));
    if (!IsName(name) || name.starts_with("__metadata__")) {
      throw Error(ErrorCode::kInvalidArgument, where, "a tensor of this name cannot be written");
    }
    if (tensor.shape.size() > kMaxRank || Product(tensor.shape) != std::ssize(tensor.data)) {
      throw Error(ErrorCode::kInvalidArgument, where, "its shape and its data disagree");
    }
  }
}

}  // namespace mstpp
