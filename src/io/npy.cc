// SPDX-License-Identifier: Apache-2.0
#include "io/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <string_view>

#include "io/byte_order.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxHeader = 1 << 16;  // NumPy's own are under 256 bytes

struct Header {
  std::string type;
  bool fortran_order = false;
  std::vector<int64_t> shape;
};

// Parses the header, a Python dictionary of literals:
// {'descr': '<f4', 'fortran_order': False, 'shape': (31, 5, 7), }
class HeaderParser {
 public:
  HeaderParser(const std::string& path, std::string_view text) : path_(path), text_(text) {}

  Header Parse() {
    Header header;
    bool has_type = false, has_order = false, has_shape = false;
    Expect('{');
    while (!Skip('}')) {
      const std::string key = String();
      Expect(':');
      if (key == "descr" && !has_type) {
        header.type = Type();
        has_type = true;
      } else if (key == "fortran_order" && !has_order) {
        header.fortran_order = Bool();
        has_order = true;
      } else if (key == "shape" && !has_shape) {
        header.shape = Tuple();
        has_shape = true;
      } else {
        Fail();
      }
      if (Skip(',')) continue;
      Expect('}');
      break;
    }
    if (!has_type || !has_order || !has_shape) Fail();
    return header;
  }

 private:
  [[noreturn]] void Fail() const {
    throw Error(ErrorCode::kCorrupt, path_, "the .npy header is not what NumPy writes");
  }

  void Spaces() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n')) text_.remove_prefix(1);
  }

  bool Skip(char wanted) {
    Spaces();
    if (text_.empty() || text_[0] != wanted) return false;
    text_.remove_prefix(1);
    return true;
  }

  void Expect(char wanted) {
    if (!Skip(wanted)) Fail();
  }

  bool SkipWord(std::string_view word) {
    Spaces();
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }

  std::string String() {
    const char quote = Skip('\'') ? '\'' : '"';
    if (quote == '"') Expect('"');
    const size_t end = text_.find(quote);
    if (end == std::string_view::npos) Fail();
    std::string value(text_.substr(0, end));
    text_.remove_prefix(end + 1);
    return value;
  }

  std::string Type() {
    if (Skip('[')) {
      throw Error(ErrorCode::kUnsupported, path_,
                  "an array of records; save one plain float32 array");
    }
    return String();
  }

  bool Bool() {
    if (SkipWord("False")) return false;
    if (!SkipWord("True")) Fail();
    return true;
  }

  std::vector<int64_t> Tuple() {
    std::vector<int64_t> values;
    Expect('(');
    while (!Skip(')')) {
      Spaces();
      int64_t value = 0;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
      if (error != std::errc() || value < 0) Fail();
      text_.remove_prefix(static_cast<size_t>(end - text_.data()));
      values.push_back(value);
      if (Skip(',')) continue;
      Expect(')');
      break;
    }
    return values;
  }

  const std::string& path_;
  std::string_view text_;
};

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
  uint8_t start[12] = {};
  const size_t got = file_.ReadSome(0, start, sizeof(start));
  if (std::memcmp(start, kMagic.data(), kMagic.size()) != 0) {
    throw Error(ErrorCode::kUnsupported, path, "not a .npy file");
  }
  const int version = start[6];
  if (version < 1 || version > 3) {
    throw Error(ErrorCode::kUnsupported, path,
                fmt::format(".npy version {}; versions 1 to 3 are read", version));
  }
  const size_t begin = version == 1 ? 10 : 12;
  const size_t length =
      start[8] | start[9] << 8 |
      (version == 1 ? 0
                    : static_cast<size_t>(start[10]) << 16 | static_cast<size_t>(start[11]) << 24);
  if (got < begin || length > std::min<uint64_t>(kMaxHeader, file_.size() - begin)) {
    throw Error(ErrorCode::kCorrupt, path,
                fmt::format("a .npy header of {} bytes in a file of {}", length, file_.size()));
  }
  std::string text(length, '\0');
  file_.ReadAt(begin, text.data(), length);
  const Header header = HeaderParser(path, text).Parse();

  if (header.type == "<f4" || header.type == ">f4") bytes_each_ = 4;
  if (header.type == "<f8" || header.type == ">f8") bytes_each_ = 8;
  if (bytes_each_ == 0) {
    throw Error(ErrorCode::kUnsupported, path,
                fmt::format("an array of '{}'; save it as float32: "
                            "numpy.save(path, array.astype('float32'))",
                            header.type));
  }
  if (header.fortran_order && header.shape.size() > 1) {
    throw Error(ErrorCode::kUnsupported, path,
                "an array in Fortran order; save it in C order: "
                "numpy.save(path, numpy.ascontiguousarray(array))");
  }
  swap_ = (header.type[0] == '>') != (std::endian::native == std::endian::big);
  shape_ = header.shape;
  elements_ = Product(path, shape_);
  offset_ = begin + length;
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
  std::string dict = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{}), }}",
                                 fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  // NumPy ends the header with a newline and pads it so that the numbers begin at a multiple of 64.
  constexpr size_t kFixed = kMagic.size() + 4;
  dict.append(63 - (kFixed + dict.size()) % 64, ' ');
  dict.push_back('\n');
  std::string header(kMagic);
  header +=
      {'\x01', '\x00', static_cast<char>(dict.size() & 0xFF), static_cast<char>(dict.size() >> 8)};
  header += dict;
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
