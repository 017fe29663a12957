// SPDX-License-Identifier: Apache-2.0
// Tensors as they lie in files, and their way to row-major float32.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "weights/format.h"

namespace mstpp {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU64, kU32, kU16, kU8, kBool };

size_t ItemBytes(DType dtype);

// Every number here comes from a file and is checked by AddTensor before it is used.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  bool big_endian = false;
  Bytes storage;       // whole elements
  int64_t offset = 0;  // in elements, as are the strides
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

// The number of elements of a shape. Error kCorrupt if an extent is negative or the number does
// not fit, kUnsupported for more than 8 dimensions.
int64_t CountElements(const std::vector<int64_t>& shape, const std::string& where);

// For a shape that CountElements accepted.
std::vector<int64_t> RowMajorStrides(const std::vector<int64_t>& shape);
std::vector<int64_t> ColumnMajorStrides(const std::vector<int64_t>& shape);

// Converts a tensor to float32 and adds it to `file`. Error kCorrupt if it reaches outside its
// storage, is there already, or has a NaN or infinity that the source does not allow; kUnsupported
// if its name is not 1 to 1000 printable ASCII characters, so that it is fit for every message.
void AddTensor(const Source& source, const StoredTensor& tensor, WeightsFile* file);

// Refuses (Error kInvalidArgument) what the readers would refuse: no tensors, other names than
// AddTensor takes or those that the formats use for metadata, a shape unlike its data.
void CheckWritable(const std::string& path, const StateDict& tensors);

}  // namespace mstpp
