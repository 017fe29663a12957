// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace mstpp {

// float32 to IEEE 754 binary16, rounded to nearest, ties to even; beyond 65504 an infinity.
inline uint16_t ToHalf(float value) {
  const auto sign = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16 & 0x8000U);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7E00U;
  if (magnitude >= 65520.0F) return sign | 0x7C00U;
  // Below 2^-14 the spacing is 2^-24 throughout.
  if (magnitude < 0x1p-14F) {
    return sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24F));
  }
  uint32_t bits = std::bit_cast<uint32_t>(magnitude);
  bits += 0xFFFU + (bits >> 13 & 1U);
  return sign | static_cast<uint16_t>((bits >> 13) - (112U << 10));
}

constexpr bool IsInfiniteHalf(uint16_t bits) { return (bits & 0x7FFFU) == 0x7C00U; }

}  // namespace mstpp
