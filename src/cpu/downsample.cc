// SPDX-License-Identifier: Apache-2.0
// 4x4 convolution of stride 2 on one tile: for each block of output pixels and panel of output
// channels, sixteen products over the input channels, accumulated in registers.
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

void RunDownsample(const DownsampleWeights& w, const Map& x, const Map& y, const Tile& tile,
                   float* gram) {
  for (ptrdiff_t r = tile.y0; r < tile.y1; ++r) {
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
    AccumulateGramRows(y, r, r + 1, tile, gram);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
}  // namespace mstpp
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mstpp::cpu {

HWY_EXPORT(RunDownsample);

DownsampleWeights::DownsampleWeights(const Tensor& weight)
    : in(static_cast<size_t>(weight.shape[1])), out(static_cast<size_t>(weight.shape[0])) {
  for (size_t tap = 0; tap < 16; ++tap) {
    Panels& panels = taps.emplace_back(in, out);
    for (size_t o = 0; o < out; ++o) {
      for (size_t i = 0; i < in; ++i) panels.Set(i, o, weight.data[(o * in + i) * 16 + tap]);
    }
  }
}

void Downsample(const DownsampleWeights& weights, const Map& x, const Map& y, const Tile& tile,
                float* gram) {
  HWY_DYNAMIC_DISPATCH(RunDownsample)(weights, x, y, tile, gram);
}

}  // namespace mstpp::cpu
#endif  // HWY_ONCE
