// SPDX-License-Identifier: Apache-2.0
// What the kernels share, once for each instruction set.

#if defined(MSTPP_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSTPP_CPU_SIMD_INL_H_
#undef MSTPP_CPU_SIMD_INL_H_
#else
#define MSTPP_CPU_SIMD_INL_H_
#endif

#include <cstring>
#include <type_traits>

#include "cpu/map.h"
#include "hwy/highway.h"

// Loops over register arrays must vanish, or the arrays end up in memory.
#if defined(__clang__)
#define MSTPP_UNROLL _Pragma("unroll")
#else
#define MSTPP_UNROLL _Pragma("GCC unroll 32")
#endif

// GCC rewrites the micro-kernel's addresses into so many offsets that they spill, and reads B again
// from memory for each use: a quarter of the whole network's time. Hiding where a pointer comes
// from, and that a vector was just loaded, keeps both in registers.
#if defined(__GNUC__)
#define MSTPP_OPAQUE(pointer) asm volatile("" : "+r"(pointer))
#else
#define MSTPP_OPAQUE(pointer)
#endif
#if defined(__GNUC__) && defined(__x86_64__)
#define MSTPP_IN_REGISTER(v) asm volatile("" : "+v"((v).raw))
#else
#define MSTPP_IN_REGISTER(v)
#endif

HWY_BEFORE_NAMESPACE();
namespace mstpp {
namespace cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr size_t kLanes = hn::MaxLanes(D());
constexpr size_t kPanel = 2 * kLanes;

// The micro-kernel: acc += A B for kRows pixels and one panel of output channels, K input channels.
// Six rows by two vectors fill the registers of AVX2 and leave room for B and one of A.
// a: kRows pixels, `lda` floats apart; b: K x kPanel.
template <int kRows, int K>
HWY_INLINE void MulAdd(const float* HWY_RESTRICT a, size_t lda, const float* HWY_RESTRICT b,
                       V (&acc)[kRows][2]) {
  const D d;
  const float* rows[kRows];
  MSTPP_UNROLL
  for (int m = 0; m < kRows; ++m) {
    rows[m] = a + m * lda;
    MSTPP_OPAQUE(rows[m]);
  }
  MSTPP_OPAQUE(b);
  MSTPP_UNROLL
  for (int k = 0; k < K; ++k) {
    V b0 = hn::Load(d, b + k * kPanel);
    V b1 = hn::Load(d, b + k * kPanel + kLanes);
    MSTPP_IN_REGISTER(b0);
    MSTPP_IN_REGISTER(b1);
    MSTPP_UNROLL
    for (int m = 0; m < kRows; ++m) {
      const V am = hn::Set(d, rows[m][k]);
      acc[m][0] = hn::MulAdd(am, b0, acc[m][0]);
      acc[m][1] = hn::MulAdd(am, b1, acc[m][1]);
    }
  }
}

// The same for any K. The published network's channels are multiples of 31.
template <int kRows>
HWY_INLINE void MulAdd(const float* HWY_RESTRICT a, size_t lda, const float* HWY_RESTRICT b,
                       size_t k, V (&acc)[kRows][2]) {
  if (k % 31 == 0) {
    for (; k != 0; k -= 31, a += 31, b += 31 * kPanel) MulAdd<kRows, 31>(a, lda, b, acc);
    return;
  }
  for (; k >= 4; k -= 4, a += 4, b += 4 * kPanel) MulAdd<kRows, 4>(a, lda, b, acc);
  for (; k != 0; --k, ++a, b += kPanel) MulAdd<kRows, 1>(a, lda, b, acc);
}

// Calls f(std::integral_constant<int, rows>, first) for blocks that cover n pixels: sixes and
// fives, which keep the micro-kernel at full speed, wherever n allows.
template <class F>
HWY_INLINE void ForPixelBlocks(size_t n, const F& f) {
  const size_t blocks = (n + 5) / 6;
  size_t i = 0;
  if (6 * blocks - n <= blocks) {
    const size_t sixes = blocks - (6 * blocks - n);
    for (size_t b = 0; b < sixes; ++b, i += 6) f(std::integral_constant<int, 6>(), i);
    for (size_t b = sixes; b < blocks; ++b, i += 5) f(std::integral_constant<int, 5>(), i);
    return;
  }
  for (; i + 6 <= n; i += 6) f(std::integral_constant<int, 6>(), i);
  switch (n - i) {
    case 1:
      f(std::integral_constant<int, 1>(), i);
      break;
    case 2:
      f(std::integral_constant<int, 2>(), i);
      break;
    case 3:
      f(std::integral_constant<int, 3>(), i);
      break;
    case 4:
      f(std::integral_constant<int, 4>(), i);
      break;
    case 5:
      f(std::integral_constant<int, 5>(), i);
      break;
    default:
      break;
  }
}

template <int kRows>
HWY_INLINE void ZeroAccumulators(V (&acc)[kRows][2]) {
  MSTPP_UNROLL
  for (int m = 0; m < kRows; ++m) acc[m][0] = acc[m][1] = hn::Zero(D());
}

template <int kRows>
HWY_INLINE void Broadcast(const float* HWY_RESTRICT bias, V (&acc)[kRows][2]) {
  const V b0 = hn::Load(D(), bias);
  const V b1 = hn::Load(D(), bias + kLanes);
  MSTPP_UNROLL
  for (int m = 0; m < kRows; ++m) {
    acc[m][0] = b0;
    acc[m][1] = b1;
  }
}

template <int kRows>
HWY_INLINE void AddRows(const float* HWY_RESTRICT rows, size_t stride, V (&acc)[kRows][2]) {
  MSTPP_UNROLL
  for (int m = 0; m < kRows; ++m) {
    acc[m][0] = hn::Add(acc[m][0], hn::Load(D(), rows + m * stride));
    acc[m][1] = hn::Add(acc[m][1], hn::Load(D(), rows + m * stride + kLanes));
  }
}

template <int kRows>
HWY_INLINE void StoreRows(const V (&acc)[kRows][2], float* HWY_RESTRICT rows, size_t stride) {
  MSTPP_UNROLL
  for (int m = 0; m < kRows; ++m) {
    hn::Store(acc[m][0], D(), rows + m * stride);
    hn::Store(acc[m][1], D(), rows + m * stride + kLanes);
  }
}

// GELU(x) = x Phi(x) = max(x, 0) - a Phi(-a) with a = |x|, and Phi(-a) close to p(a)^8 for a
// polynomial p of degree 7: no exponential, no division. Minimax fit on [0, 6], error below 1.2e-7;
// beyond 6, a Phi(-a) is below 6e-9.
HWY_INLINE V Gelu(V x) {
  const D d;
  const V a = hn::Min(hn::Abs(x), hn::Set(d, 6.0f));
  V p = hn::Set(d, 3.2364068829338066e-06f);
  p = hn::MulAdd(p, a, hn::Set(d, -3.5671033401740715e-05f));
  p = hn::MulAdd(p, a, hn::Set(d, -4.002362038590945e-05f));
  p = hn::MulAdd(p, a, hn::Set(d, 0.0016305961180478334f));
  p = hn::MulAdd(p, a, hn::Set(d, -0.0007927810656838119f));
  p = hn::MulAdd(p, a, hn::Set(d, -0.031866323202848434f));
  p = hn::MulAdd(p, a, hn::Set(d, -0.09147211909294128f));
  p = hn::MulAdd(p, a, hn::Set(d, 0.917005181312561f));
  p = hn::Mul(p, p);
  p = hn::Mul(p, p);
  p = hn::Mul(p, p);
  return hn::NegMulAdd(p, a, hn::Max(x, hn::Zero(d)));
}

// In place on n vectors. Four at a time hide the latency of the polynomial's chain.
HWY_INLINE void GeluRow(float* HWY_RESTRICT p, size_t n) {
  const D d;
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    MSTPP_UNROLL
    for (size_t j = 0; j < 4; ++j) {
      hn::Store(Gelu(hn::Load(d, p + (i + j) * kLanes)), d, p + (i + j) * kLanes);
    }
  }
  for (; i < n; ++i) hn::Store(Gelu(hn::Load(d, p + i * kLanes)), d, p + i * kLanes);
}

// One row of a depthwise 3x3 convolution over one vector of channels: n output pixels; r0, r1, r2
// point one pixel to the left of the first. Pixels are kPanel floats apart everywhere.
HWY_INLINE void DepthwiseColumn(const float* HWY_RESTRICT r0, const float* HWY_RESTRICT r1,
                                const float* HWY_RESTRICT r2, const float* HWY_RESTRICT taps,
                                float* HWY_RESTRICT out, size_t n) {
  const D d;
  V w[9];
  MSTPP_UNROLL
  for (int i = 0; i < 9; ++i) w[i] = hn::Load(d, taps + i * kLanes);
  for (size_t i = 0; i < n * kPanel; i += kPanel) {
    V a = hn::Mul(w[0], hn::Load(d, r0 + i));
    V b = hn::Mul(w[3], hn::Load(d, r1 + i));
    V c = hn::Mul(w[6], hn::Load(d, r2 + i));
    a = hn::MulAdd(w[1], hn::Load(d, r0 + i + kPanel), a);
    b = hn::MulAdd(w[4], hn::Load(d, r1 + i + kPanel), b);
    c = hn::MulAdd(w[7], hn::Load(d, r2 + i + kPanel), c);
    a = hn::MulAdd(w[2], hn::Load(d, r0 + i + 2 * kPanel), a);
    b = hn::MulAdd(w[5], hn::Load(d, r1 + i + 2 * kPanel), b);
    c = hn::MulAdd(w[8], hn::Load(d, r2 + i + 2 * kPanel), c);
    hn::Store(hn::Add(hn::Add(a, b), c), d, out + i);
  }
}

// The same over a panel, which is two vectors.
HWY_INLINE void DepthwiseRow(const float* r0, const float* r1, const float* r2, const float* taps,
                             float* out, size_t n) {
  DepthwiseColumn(r0, r1, r2, taps, out, n);
  DepthwiseColumn(r0 + kLanes, r1 + kLanes, r2 + kLanes, taps + 9 * kLanes, out + kLanes, n);
}

// One block of S += X'X: kRows channels from i on by one panel of channels from j on, n pixels.
template <int kRows>
HWY_INLINE void GramBlock(const float* HWY_RESTRICT x, size_t pixel, size_t n, size_t i, size_t j,
                          float* HWY_RESTRICT gram) {
  V acc[kRows][2];
  ZeroAccumulators(acc);
  AddRows(gram + i * pixel + j, pixel, acc);
  const float* left = x + i;
  const float* right = x + j;
  const D d;
  for (size_t p = 0; p < n; ++p, left += pixel, right += pixel) {
    const V b0 = hn::Load(d, right);
    const V b1 = hn::Load(d, right + kLanes);
    MSTPP_UNROLL
    for (int m = 0; m < kRows; ++m) {
      const V am = hn::Set(d, left[m]);
      acc[m][0] = hn::MulAdd(am, b0, acc[m][0]);
      acc[m][1] = hn::MulAdd(am, b1, acc[m][1]);
    }
  }
  StoreRows(acc, gram + i * pixel + j, pixel);
}

// S += X'X over n pixels in a row: the upper triangle, and what the panels carry with it.
HWY_INLINE void AccumulateGram(const float* x, size_t channels, size_t pixel, size_t n,
                               float* gram) {
  for (size_t j = 0; j < channels; j += kPanel) {
    const size_t rows = HWY_MIN(j + kPanel, channels);
    ForPixelBlocks(rows, [&](auto count, size_t i) HWY_ATTR {
      GramBlock<decltype(count)::value>(x, pixel, n, i, j, gram);
    });
  }
}

// Adds a tile's rows [y0, y1) to its gram matrix, if there is one.
HWY_INLINE void AccumulateGramRows(const Map& y, ptrdiff_t y0, ptrdiff_t y1, const Tile& tile,
                                   float* gram) {
  if (gram == nullptr) return;
  for (ptrdiff_t row = y0; row < y1; ++row) {
    AccumulateGram(y.at(row, tile.x0), y.channels, y.pixel, tile.width(), gram);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
}  // namespace mstpp
HWY_AFTER_NAMESPACE();

#endif  // MSTPP_CPU_SIMD_INL_H_
