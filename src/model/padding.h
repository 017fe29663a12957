// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace mstpp {

constexpr int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Which row (or column) of an input with `size` of them lies at `i` of the padded one, by
// reflection about the last row without repeating it, as torch.nn.functional.pad(mode="reflect").
// Needs i < 2 * size - 1.
constexpr int64_t Reflect(int64_t i, int64_t size) { return i < size ? i : 2 * (size - 1) - i; }

// Whether reflection can pad `size` to the next multiple.
constexpr bool CanReflect(int64_t size, int64_t multiple) {
  return RoundUp(size, multiple) - size < size;
}

}  // namespace mstpp
