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

// The other way, exactly; NaNs are quiet.
inline float FromHalf(uint16_t bits) {
  const auto sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t magnitude = bits & 0x7FFFU;
  if (magnitude < 0x0400U) {
    const float small = static_cast<float>(magnitude) * 0x1p-24F;
    return sign != 0 ? -small : small;
  }
  uint32_t wide = sign | ((magnitude << 13) + (112U << 23));
  if (magnitude >= 0x7C00U) wide |= 0x7F800000U;
  if (magnitude > 0x7C00U) wide |= 0x00400000U;
  return std::bit_cast<float>(wide);
}

constexpr bool IsInfiniteHalf(uint16_t bits) { return (bits & 0x7FFFU) == 0x7C00U; }

}  // namespace mstpp
