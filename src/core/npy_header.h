// SPDX-License-Identifier: Apache-2.0
// The header of NumPy's .npy files (versions 1 to 3 of the format).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/byte_reader.h"

namespace mstpp {

// The longest header that is read, from the file's first byte to that of its data; NumPy's own
// have 128 bytes.
inline constexpr size_t kMaxNpyHeader = size_t{1} << 16;

struct NpyHeader {
  std::string descr;  // the elements' type: "<f4"
  bool fortran_order = false;
  std::vector<int64_t> shape;  // as in the file: an extent may be negative, the product anything
  size_t bytes = 0;            // where the data begin
};

// `start` is the file's beginning, kMaxNpyHeader bytes of it or all. Error kCorrupt, naming
// `where`; kUnsupported for structured types and other versions.
NpyHeader ParseNpyHeader(Bytes start, const std::string& where);

// The header, magic and padding included, of a row-major array.
std::string MakeNpyHeader(std::string_view descr, const std::vector<int64_t>& shape);

}  // namespace mstpp
