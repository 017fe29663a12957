// SPDX-License-Identifier: Apache-2.0
// 4x4 convolution of stride 2 on one tile.
//
// The even and the odd rows and columns of x are four maps ("phases"), and the convolution is the
// sum of a 2x2 convolution of each. These go by Winograd's F(2x2, 2x2), two rows of a tile at a
// time: 9 products of transformed 3x3 patches give 2x2 outputs where the definition has 16,
//   Y = A' [sum over phases of (G g G') . (B' d B)] A,
//   B' = [1 -1 0; 0 1 0; 0 1 -1],  G = [1 0; 1 1; 0 1],  A' = [1 1 0; 0 1 -1].
// The phases are one after the other in the products' inner dimension, so that their sum stays in
// registers.
//
// Maps that may have an odd height or width go by the definition: for each block of output pixels
// and panel of output channels, sixteen products over the input channels, accumulated in registers.
#include "cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/downsample.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mstpp {
namespace cpu {
namespace HWY_NAMESPACE {

// Row r of the tile by the definition.
void DirectRow(const DownsampleWeights& w, const Map& x, const Map& y, ptrdiff_t r,
               const Tile& tile) {
  for (size_t panel = 0; panel * kPanel < w.out; ++panel) {
    float* out = y.at(r, tile.x0) + panel * kPanel;
    ForPixelBlocks(tile.width(), [&](auto count, size_t i) HWY_ATTR {
      constexpr int kRows = decltype(count)::value;
      V acc[kRows][2];
      ZeroAccumulators(acc);
      const ptrdiff_t column = 2 * (tile.x0 + static_cast<ptrdiff_t>(i)) - 1;
      for (size_t tap = 0; tap < 16; ++tap) {
        const float* a = x.at(2 * r - 1 + static_cast<ptrdiff_t>(tap / 4),
                              column + static_cast<ptrdiff_t>(tap % 4));
        MulAdd<kRows>(a, 2 * x.pixel, w.taps[tap].panel(panel), w.in, acc);
      }
      StoreRows(acc, out + i * y.pixel, y.pixel);
    });
  }
}

// B' d of one column of a phase's patch.
struct PhaseColumn {
  V v[3];
  HWY_INLINE PhaseColumn(const float* HWY_RESTRICT p, size_t row) {
    const D d;
    const V b = hn::Load(d, p + 2 * row);
    v[0] = hn::Sub(hn::Load(d, p), b);
    v[1] = b;
    v[2] = hn::Sub(b, hn::Load(d, p + 4 * row));
  }
};

// B' d B of one phase for `count` 2x2 outputs, into nine matrices `step` floats apart of `count`
// rows `stride` apart. `x` is the phase's first pixel.
void TransformPhase(const float* x, size_t row, size_t pixel, size_t count, size_t step,
                    size_t stride, float* out) {
  const D d;
  for (size_t c = 0; c < pixel; c += kLanes) {
    PhaseColumn left(x + c, row);
    for (size_t t = 0; t < count; ++t) {
      const PhaseColumn middle(x + (4 * t + 2) * pixel + c, row);
      const PhaseColumn right(x + (4 * t + 4) * pixel + c, row);
      float* HWY_RESTRICT o = out + t * stride + c;
      MSTPP_UNROLL
      for (int i = 0; i < 3; ++i, o += 3 * step) {
        hn::Store(hn::Sub(left.v[i], middle.v[i]), d, o);
        hn::Store(middle.v[i], d, o + step);
        hn::Store(hn::Sub(middle.v[i], right.v[i]), d, o + 2 * step);
      }
      left = right;
    }
  }
}

// A' m A of one panel of `count` 2x2 outputs; `products` is nine matrices `step` floats apart.
void StoreDownsampled(const float* products, size_t step, size_t count, float* out, size_t row,
                      size_t pixel) {
  const D d;
  for (size_t c = 0; c < kPanel; c += kLanes) {
    for (size_t t = 0; t < count; ++t) {
      const float* m = products + t * kPanel + c;
      V top[3];
      V bottom[3];
      MSTPP_UNROLL
      for (size_t j = 0; j < 3; ++j) {
        const V middle = hn::Load(d, m + (3 + j) * step);
        top[j] = hn::Add(hn::Load(d, m + j * step), middle);
        bottom[j] = hn::Sub(middle, hn::Load(d, m + (6 + j) * step));
      }
      float* o = out + 2 * t * pixel + c;
      hn::Store(hn::Add(top[0], top[1]), d, o);
      hn::Store(hn::Sub(top[1], top[2]), d, o + pixel);
      hn::Store(hn::Add(bottom[0], bottom[1]), d, o + row);
      hn::Store(hn::Sub(bottom[1], bottom[2]), d, o + row + pixel);
    }
  }
}

// Rows r and r + 1 of the tile.
void WinogradRows(const DownsampleWeights& w, const Map& x, const Map& y, ptrdiff_t r,
                  const Tile& tile, float* work) {
  const size_t count = tile.width() / 2;
  const size_t stride = 4 * x.pixel;
  const size_t in_step = count * stride;
  const size_t out_step = count * kPanel;
  float* products = work + 9 * in_step;
  for (size_t phase = 0; phase < 4; ++phase) {
    const float* first = x.at(2 * r - 1 + static_cast<ptrdiff_t>(phase / 2),
                              2 * tile.x0 - 1 + static_cast<ptrdiff_t>(phase % 2));
    TransformPhase(first, x.row, x.pixel, count, in_step, stride, work + phase * x.pixel);
  }
  for (size_t panel = 0; panel < w.taps[0].count(); ++panel) {
    for (size_t s = 0; s < 9; ++s) {
      const float* a = work + s * in_step;
      float* m = products + s * out_step;
      ForPixelBlocks(count, [&](auto rows, size_t i) HWY_ATTR {
        constexpr int kRows = decltype(rows)::value;
        V acc[kRows][2];
        ZeroAccumulators(acc);
        for (size_t phase = 0; phase < 4; ++phase) {
          MulAdd<kRows>(a + i * stride + phase * x.pixel, stride,
                        w.taps[s].panel(panel) + phase * w.in * kPanel, w.in, acc);
        }
        StoreRows(acc, m + i * kPanel, kPanel);
      });
    }
    StoreDownsampled(products, out_step, count, y.at(r, tile.x0) + panel * kPanel, y.row, y.pixel);
  }
}

void RunDownsample(const DownsampleWeights& w, const Map& x, const Map& y, const Tile& tile,
                   float* gram, float* work) {
  const ptrdiff_t rows = w.winograd ? 2 : 1;
  for (ptrdiff_t r = tile.y0; r < tile.y1; r += rows) {
    if (w.winograd) {
      WinogradRows(w, x, y, r, tile, work);
    } else {
      DirectRow(w, x, y, r, tile);
    }
    AccumulateGramRows(y, r, r + rows, tile, gram);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
}  // namespace mstpp
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mstpp::cpu {

HWY_EXPORT(RunDownsample);

namespace {

// G g G' of the four phases of one 4x4 kernel: u[3 i + j][phase].
void TransformKernel(const float* kernel, double (&u)[9][4]) {
  constexpr double kG[3][2] = {{1, 0}, {1, 1}, {0, 1}};
  for (int s = 0; s < 9; ++s) {
    for (int phase = 0; phase < 4; ++phase) {
      u[s][phase] = 0;
      for (int a = 0; a < 2; ++a) {
        for (int b = 0; b < 2; ++b) {
          const int tap = (2 * a + phase / 2) * 4 + 2 * b + phase % 2;
          u[s][phase] += kG[s / 3][a] * kG[s % 3][b] * kernel[tap];
        }
      }
    }
  }
}

}  // namespace

DownsampleWeights::DownsampleWeights(const Tensor& weight, bool even)
    : winograd(even),
      in(static_cast<size_t>(weight.shape[1])),
      out(static_cast<size_t>(weight.shape[0])) {
  for (int i = 0; i < (winograd ? 9 : 16); ++i) taps.emplace_back(winograd ? 4 * in : in, out);
  for (size_t o = 0; o < out; ++o) {
    for (size_t i = 0; i < in; ++i) {
      const float* kernel = &weight.data[(o * in + i) * 16];
      if (!winograd) {
        for (size_t tap = 0; tap < 16; ++tap) taps[tap].Set(i, o, kernel[tap]);
        continue;
      }
      double u[9][4];
      TransformKernel(kernel, u);
      for (size_t s = 0; s < 9; ++s) {
        for (size_t phase = 0; phase < 4; ++phase) {
          taps[s].Set(phase * in + i, o, static_cast<float>(u[s][phase]));
        }
      }
    }
  }
}

size_t DownsampleWork(const DownsampleWeights& w) {
  const size_t panel = PanelWidth();
  const size_t in = (w.in + panel - 1) / panel * panel;
  return w.winograd ? 9 * (kTileWidth / 2) * (4 * in + panel) : 0;
}

void Downsample(const DownsampleWeights& weights, const Map& x, const Map& y, const Tile& tile,
                float* gram, float* work) {
  HWY_DYNAMIC_DISPATCH(RunDownsample)(weights, x, y, tile, gram, work);
}

}  // namespace mstpp::cpu
#endif  // HWY_ONCE
