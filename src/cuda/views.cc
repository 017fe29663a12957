// SPDX-License-Identifier: Apache-2.0
#include "cuda/views.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/half.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mstpp::cuda {
namespace {

float Widened(float value) { return value; }
float Widened(uint16_t bits) { return FromHalf(bits); }

void WidenEach(const uint16_t* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = FromHalf(from[i]);
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) void WidenF16c(const uint16_t* from, int64_t count, float* to) {
  for (; count >= 8; count -= 8, from += 8, to += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    _mm256_storeu_ps(to, _mm256_cvtph_ps(halves));
  }
  WidenEach(from, count, to);
}

bool HasF16c() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __builtin_cpu_supports("avx") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
  }();
  return has;
}

void CopyRow(const uint16_t* from, int64_t count, float* to) {
  (HasF16c() ? WidenF16c : WidenEach)(from, count, to);
}
#elif defined(__aarch64__)
void CopyRow(const uint16_t* from, int64_t count, float* to) {
  for (; count >= 4; count -= 4, from += 4, to += 4) {
    vst1q_f32(to, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))));
  }
  WidenEach(from, count, to);
}
#else
void CopyRow(const uint16_t* from, int64_t count, float* to) { WidenEach(from, count, to); }
#endif

void CopyRow(const float* from, int64_t count, float* to) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

// Of a cache's line of 64 bytes.
constexpr int64_t kLine = 64 / sizeof(float);

// Whole lines, to memory past the caches: what is written so need not be read from there before.
// Other threads see it after FinishLines.
#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) void StreamF16c(const uint16_t* from, int64_t count,
                                                    float* to) {
  for (int64_t i = 0; i < count; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_stream_ps(to + i, _mm256_cvtph_ps(halves));
  }
}
void CopyLines(const uint16_t* from, int64_t count, float* to) {
  (HasF16c() ? StreamF16c : WidenEach)(from, count, to);
}
void CopyLines(const float* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += 4) _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
}
void FinishLines() { _mm_sfence(); }
#else
template <class T>
void CopyLines(const T* from, int64_t count, float* to) {
  CopyRow(from, count, to);
}
void FinishLines() {}
#endif

// A row whose lines go past the caches.
template <class T>
void CopyRowPastCaches(const T* from, int64_t count, float* to) {
  const auto into = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) / sizeof(float)) % kLine;
  const int64_t before = std::min(count, (kLine - into) % kLine);
  const int64_t lines = (count - before) / kLine * kLine, after = before + lines;
  CopyRow(from, before, to);
  CopyLines(from + before, lines, to + before);
  CopyRow(from + after, count - after, to + after);
}

template <class T>
void Copy(const BasicTensorView<const T>& from, const MutableTensorView& to, int64_t first,
          int64_t last) {
  // One thread copies several times slower than a GPU's bus; so little at a time that all of them
  // end together.
  constexpr int64_t kFloatsAtATime = 1 << 15;
  const int64_t grain = std::max<int64_t>(1, kFloatsAtATime / std::max<int64_t>(1, from.w));
  // Nothing of so much would still be in a cache when the caller reads it.
  constexpr int64_t kManyFloats = 1 << 22;
  const bool past_caches = to.n * to.c * to.h * to.w >= kManyFloats;
  const tbb::blocked_range<int64_t> rows(first, last, static_cast<size_t>(grain));
  tbb::parallel_for(rows, [&](const tbb::blocked_range<int64_t>& range) {
    for (int64_t row = range.begin(); row < range.end(); ++row) {
      const int64_t y = row % from.h, c = row / from.h % from.c, n = row / from.h / from.c;
      const T* source = from.data + n * from.stride_n + c * from.stride_c + y * from.stride_h;
      float* target = to.data + n * to.stride_n + c * to.stride_c + y * to.stride_h;
      if (from.stride_w == 1 && to.stride_w == 1) {
        if (past_caches) {
          CopyRowPastCaches(source, from.w, target);
        } else {
          CopyRow(source, from.w, target);
        }
      } else {
        for (int64_t x = 0; x < from.w; ++x) {
          target[x * to.stride_w] = Widened(source[x * from.stride_w]);
        }
      }
    }
    if (past_caches) FinishLines();
  });
}

template <class T>
NetworkIo Describe(const TensorView& input, const BasicTensorView<T>& output, Padding padding) {
  NetworkIo io = {};
  io.image = input.data;
  io.cube = output.data;
  const int64_t in[4] = {input.stride_n, input.stride_c, input.stride_h, input.stride_w};
  const int64_t out[4] = {output.stride_n, output.stride_c, output.stride_h, output.stride_w};
  std::copy_n(in, 4, io.image_stride);
  std::copy_n(out, 4, io.cube_stride);
  io.height = static_cast<int>(input.h);
  io.width = static_cast<int>(input.w);
  io.cube_height = static_cast<int>(output.h);
  io.cube_width = static_cast<int>(output.w);
  io.reflect = padding == Padding::kReflect ? 1 : 0;
  return io;
}

}  // namespace

void CopyView(const TensorView& from, const MutableTensorView& to) {
  Copy(from, to, 0, from.n * from.c * from.h);
}
void CopyRows(const TensorView& from, const MutableTensorView& to, int64_t first, int64_t last) {
  Copy(from, to, first, last);
}
void CopyRows(const HalfView& from, const MutableTensorView& to, int64_t first, int64_t last) {
  Copy(from, to, first, last);
}

NetworkIo MakeIo(const TensorView& input, const MutableTensorView& output, Padding padding) {
  return Describe(input, output, padding);
}
NetworkIo MakeIo(const TensorView& input, const BasicTensorView<uint16_t>& output,
                 Padding padding) {
  return Describe(input, output, padding);
}

}  // namespace mstpp::cuda
