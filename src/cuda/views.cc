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
// Rows with `past_caches` go to memory past them, in whole lines.
constexpr int64_t kLine = 64 / sizeof(float);

// How many numbers come before the first whole line.
int64_t BeforeLine(const float* to, int64_t count) {
  const auto into = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) / sizeof(float)) % kLine;
  return std::min(count, (kLine - into) % kLine);
}

__attribute__((target("avx,f16c"))) void WidenF16c(const uint16_t* from, int64_t count, float* to,
                                                   bool past_caches) {
  if (past_caches) {
    const int64_t before = BeforeLine(to, count);
    WidenEach(from, before, to);
    from += before;
    to += before;
    for (count -= before; count >= kLine; count -= kLine, from += kLine, to += kLine) {
      const auto* halves = reinterpret_cast<const __m128i*>(from);
      _mm256_stream_ps(to, _mm256_cvtph_ps(_mm_loadu_si128(halves)));
      _mm256_stream_ps(to + 8, _mm256_cvtph_ps(_mm_loadu_si128(halves + 1)));
    }
  }
  for (; count >= 8; count -= 8, from += 8, to += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    _mm256_storeu_ps(to, _mm256_cvtph_ps(halves));
  }
  WidenEach(from, count, to);
}

bool HasF16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

void CopyRow(const uint16_t* from, int64_t count, float* to, bool past_caches) {
  static const bool has_f16c = HasF16c();
  if (has_f16c) {
    WidenF16c(from, count, to, past_caches);
  } else {
    WidenEach(from, count, to);
  }
}

void CopyRow(const float* from, int64_t count, float* to, bool past_caches) {
  if (past_caches) {
    const int64_t before = BeforeLine(to, count);
    std::copy_n(from, before, to);
    from += before;
    to += before;
    for (count -= before; count >= kLine; count -= kLine, from += kLine, to += kLine) {
      for (int i = 0; i < kLine; i += 4) _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
    }
  }
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

// Other threads see what has gone past the caches.
void FinishCopies() { _mm_sfence(); }
#else
#if defined(__aarch64__)
void CopyRow(const uint16_t* from, int64_t count, float* to, bool /*past_caches*/) {
  for (; count >= 4; count -= 4, from += 4, to += 4) {
    vst1q_f32(to, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))));
  }
  WidenEach(from, count, to);
}
#else
void CopyRow(const uint16_t* from, int64_t count, float* to, bool /*past_caches*/) {
  WidenEach(from, count, to);
}
#endif
void CopyRow(const float* from, int64_t count, float* to, bool /*past_caches*/) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}
void FinishCopies() {}
#endif

template <class T>
void Copy(const BasicTensorView<const T>& from, const MutableTensorView& to, int64_t first,
          int64_t last) {
  // One thread copies several times slower than a GPU's bus; so little at a time that all of them
  // end together.
  constexpr int64_t kFloatsAtATime = 1 << 15;
  const int64_t grain = std::max<int64_t>(1, kFloatsAtATime / std::max<int64_t>(1, from.w));
  // Nothing of so much would still be in a cache when the caller reads it; and what is written to
  // memory past the caches need not be read from there before.
  constexpr int64_t kManyFloats = 1 << 22;
  const bool past_caches = to.n * to.c * to.h * to.w >= kManyFloats;
  const tbb::blocked_range<int64_t> rows(first, last, static_cast<size_t>(grain));
  tbb::parallel_for(rows, [&](const tbb::blocked_range<int64_t>& range) {
    for (int64_t row = range.begin(); row < range.end(); ++row) {
      const int64_t y = row % from.h, c = row / from.h % from.c, n = row / from.h / from.c;
      const T* source = from.data + n * from.stride_n + c * from.stride_c + y * from.stride_h;
      float* target = to.data + n * to.stride_n + c * to.stride_c + y * to.stride_h;
      if (from.stride_w == 1 && to.stride_w == 1) {
        CopyRow(source, from.w, target, past_caches);
      } else {
        for (int64_t x = 0; x < from.w; ++x) {
          target[x * to.stride_w] = Widened(source[x * from.stride_w]);
        }
      }
    }
    FinishCopies();
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
