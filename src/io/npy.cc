// SPDX-License-Identifier: Apache-2.0
#include "io/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>

#include "core/npy_header.h"
#include "io/byte_order.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

// The number of elements, if their bytes fit in 63 bits.
int64_t Product(const std::string& path, const std::vector<int64_t>& shape) {
  constexpr int64_t kLimit = std::numeric_limits<int64_t>::max() / sizeof(double);
  int64_t product = 1;
  for (const int64_t side : shape) {
    if (side < 0 || (side > 0 && product > kLimit / side)) {
      throw Error(ErrorCode::kCorrupt, path,
                  fmt::format("an array of shape ({}) cannot be", fmt::join(shape, ", ")));
    }
    product *= side;
  }
  return product;
}

}  // namespace

NpyReader::NpyReader(const std::string& path) : file_(path) {
  std::vector<uint8_t> start(std::min<uint64_t>(file_.size(), kMaxNpyHeader));
  file_.ReadAt(0, start.data(), start.size());
  const NpyHeader header = ParseNpyHeader(start, path);
  if (header.descr == "<f4" || header.descr == ">f4") bytes_each_ = 4;
  if (header.descr == "<f8" || header.descr == ">f8") bytes_each_ = 8;
  if (bytes_each_ == 0) {
    throw Error(ErrorCode::kUnsupported, path,
                fmt::format("an array of '{}'; save it as float32: "
                            "numpy.save(path, array.astype('float32'))",
                            header.descr));
  }
  if (header.fortran_order && header.shape.size() > 1) {
    throw Error(ErrorCode::kUnsupported, path,
                "an array in Fortran order; save it in C order: "
                "numpy.save(path, numpy.ascontiguousarray(array))");
  }
  swap_ = (header.descr[0] == '>') != (std::endian::native == std::endian::big);
  shape_ = header.shape;
  elements_ = Product(path, shape_);
  offset_ = header.bytes;
  CheckSize();
}

void NpyReader::CheckSize() const {
  const uint64_t expected = static_cast<uint64_t>(elements_) * static_cast<uint64_t>(bytes_each_);
  const uint64_t there = file_.size() - offset_;
  if (expected != there) {
    throw Error(ErrorCode::kCorrupt, path(),
                fmt::format("an array of shape ({}) takes {} bytes; the file has {}",
                            fmt::join(shape_, ", "), expected, there));
  }
}

void NpyReader::Read(float* out, int64_t count) {
  if (bytes_each_ == 4) {
    file_.ReadAt(offset_, out, static_cast<size_t>(count) * 4);
    if (swap_) SwapBytes(out, 4, static_cast<size_t>(count));
    offset_ += static_cast<uint64_t>(count) * 4;
    return;
  }
  std::vector<double> piece(static_cast<size_t>(std::min<int64_t>(count, 1 << 16)));
  while (count > 0) {
    const auto now = static_cast<size_t>(std::min<int64_t>(count, 1 << 16));
    file_.ReadAt(offset_, piece.data(), now * 8);
    if (swap_) SwapBytes(piece.data(), 8, now);
    std::transform(piece.begin(), piece.begin() + static_cast<ptrdiff_t>(now), out,
                   [](double value) { return static_cast<float>(value); });
    offset_ += now * 8;
    out += now;
    count -= static_cast<int64_t>(now);
  }
}

NpyWriter::NpyWriter(const std::string& path, const std::vector<int64_t>& shape)
    : path_(path), file_(path), left_(Product(path, shape)) {
  const std::string header = MakeNpyHeader("<f4", shape);
  file_.Write(header.data(), header.size());
}

void NpyWriter::Write(const float* data, int64_t count) {
  static_assert(std::endian::native == std::endian::little,
                "numbers are written as they lie in memory, little-endian");
  file_.Write(data, static_cast<size_t>(count) * sizeof(float));
  left_ -= count;
}

void NpyWriter::Commit() {
  if (left_ != 0) {
    throw Error(ErrorCode::kInternal, path_,
                fmt::format("the array is short of {} of its numbers", left_));
  }
  file_.Commit();
}

}  // namespace mstpp
