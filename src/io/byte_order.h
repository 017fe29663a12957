// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace mstpp {

// Reverses the bytes of each of `count` numbers of `bytes` bytes, in place.
inline void SwapBytes(void* data, size_t bytes, size_t count) {
  auto* next = static_cast<uint8_t*>(data);
  for (size_t i = 0; i < count; ++i, next += bytes) std::reverse(next, next + bytes);
}

}  // namespace mstpp
