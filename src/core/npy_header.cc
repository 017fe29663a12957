// SPDX-License-Identifier: Apache-2.0
#include "core/npy_header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <utility>

#include "mstpp/error.h"

namespace mstpp {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kAlignment = 64;

// Reads the header's Python literal, {'descr': '<f4', 'fortran_order': False, 'shape': (3, 3), }:
// only this form, with the keys in any order.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  NpyHeader Parse() {
    Expect('{');
    for (bool first = true; !Accept('}'); first = false) {
      if (!first) Expect(',');
      if (Accept('}')) break;
      const std::string_view key = Text();
      Expect(':');
      Item(key);
    }
    Spaces();
    if (!text_.empty() || !has_descr_ || !has_order_ || !has_shape_) Fail();
    return std::move(header_);
  }

 private:
  [[noreturn]] void Fail() const {
    throw Error(ErrorCode::kCorrupt, where_, "damaged .npy header");
  }

  void Item(std::string_view key) {
    if (key == "descr" && !has_descr_) {
      has_descr_ = true;
      Spaces();
      if (text_.starts_with('[')) {
        throw Error(ErrorCode::kUnsupported, where_, "is an array of structures, not of numbers");
      }
      header_.descr = Text();
    } else if (key == "fortran_order" && !has_order_) {
      has_order_ = true;
      header_.fortran_order = AcceptWord("True");
      if (!header_.fortran_order && !AcceptWord("False")) Fail();
    } else if (key == "shape" && !has_shape_) {
      has_shape_ = true;
      Shape();
    } else {
      Fail();
    }
  }

  void Shape() {
    Expect('(');
    while (!Accept(')')) {
      Spaces();
      int64_t extent;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), extent);
      if (error != std::errc()) Fail();
      text_.remove_prefix(static_cast<size_t>(end - text_.data()));
      header_.shape.push_back(extent);
      if (Accept(',')) continue;
      Expect(')');
      if (header_.shape.size() == 1) Fail();  // (3) is no tuple in Python
      return;
    }
  }

  void Spaces() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n')) text_.remove_prefix(1);
  }

  bool Accept(char c) {
    Spaces();
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }

  bool AcceptWord(std::string_view word) {
    Spaces();
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }

  void Expect(char c) {
    if (!Accept(c)) Fail();
  }

  std::string_view Text() {
    Expect('\'');
    const size_t end = text_.find('\'');
    if (end == std::string_view::npos) Fail();
    const std::string_view text = text_.substr(0, end);
    text_.remove_prefix(end + 1);
    return text;
  }

  std::string_view text_;
  const std::string& where_;
  bool has_descr_ = false, has_order_ = false, has_shape_ = false;
  NpyHeader header_;
};

}  // namespace

NpyHeader ParseNpyHeader(Bytes start, const std::string& where) {
  ByteReader reader(start, where);
  if (reader.Text(kMagic.size()) != kMagic) {
    throw Error(ErrorCode::kCorrupt, where, "does not begin as a .npy file does");
  }
  const auto major = reader.Read<uint8_t>();
  const auto minor = reader.Read<uint8_t>();
  if (major < 1 || major > 3 || minor != 0) {
    throw Error(ErrorCode::kUnsupported, where,
                fmt::format("has version {}.{} of the .npy format", major, minor));
  }
  const uint32_t length = major == 1 ? reader.Read<uint16_t>() : reader.Read<uint32_t>();
  if (length > kMaxNpyHeader) {
    throw Error(ErrorCode::kCorrupt, where,
                fmt::format("its .npy header would have {} bytes", length));
  }
  NpyHeader header = HeaderParser(reader.Text(length), where).Parse();
  header.bytes = reader.position();
  return header;
}

std::string MakeNpyHeader(std::string_view descr, const std::vector<int64_t>& shape) {
  const std::string extents =
      fmt::format("{}{}", fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  std::string text =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, extents);
  const size_t prefix = kMagic.size() + 4;
  text.append((kAlignment - (prefix + text.size() + 1) % kAlignment) % kAlignment, ' ');
  text += '\n';
  std::string header(kMagic);
  header +=
      {'\x01', '\x00', static_cast<char>(text.size() & 0xFF), static_cast<char>(text.size() >> 8)};
  return header + text;
}

}  // namespace mstpp
