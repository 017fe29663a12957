// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace mstpp {

using Bytes = std::span<const uint8_t>;

// Little-endian reading that cannot leave its bytes: what is not there is Error kCorrupt.
class ByteReader {
 public:
  ByteReader(Bytes bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }
  const std::string& where() const { return where_; }

  void Seek(uint64_t position) {
    if (position > bytes_.size()) ThrowEnd(position);
    position_ = static_cast<size_t>(position);
  }

  Bytes Take(uint64_t count) {
    if (count > left()) ThrowEnd(count);
    const Bytes taken = bytes_.subspan(position_, static_cast<size_t>(count));
    position_ += taken.size();
    return taken;
  }

  std::string_view Text(uint64_t count) {
    const Bytes taken = Take(count);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

  template <std::unsigned_integral T>
  T Read() {
    const Bytes taken = Take(sizeof(T));
    T value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(T{taken[i]} << (8 * i));
    return value;
  }

 private:
  [[noreturn]] void ThrowEnd(uint64_t wanted) const;

  Bytes bytes_;
  size_t position_ = 0;
  std::string where_;
};

}  // namespace mstpp
