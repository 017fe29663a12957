// SPDX-License-Identifier: Apache-2.0
#include "cpu/aligned_buffer.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mstpp::cpu {

AlignedBuffer::AlignedBuffer(size_t floats) : size_(floats) {
  constexpr size_t kCacheLine = 64;
  constexpr size_t kHugePage = size_t{2} << 20;
  if (floats > std::numeric_limits<size_t>::max() / (2 * sizeof(float)) - kHugePage) {
    throw std::bad_alloc();
  }
  size_t bytes = floats * sizeof(float);
  const size_t alignment = bytes >= kHugePage ? kHugePage : kCacheLine;
  bytes = (bytes + alignment - 1) / alignment * alignment;
  if (bytes == 0) return;
  data_ = static_cast<float*>(std::aligned_alloc(alignment, bytes));
  if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
  std::memset(data_, 0, bytes);
}

AlignedBuffer::~AlignedBuffer() { std::free(data_); }

}  // namespace mstpp::cpu
