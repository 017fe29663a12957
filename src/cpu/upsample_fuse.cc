// SPDX-License-Identifier: Apache-2.0
// The transposed 2x2 convolution, the concatenation and the 1x1 fusion as one: with the fusion's
// weight split into [F1 | F2],
//   y[2r + a, 2c + b] = (F1 Wup[:, :, a, b]') x[r, c] + F2 skip[2r + a, 2c + b] + F1 bias.
#include "cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/upsample_fuse.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mstpp {
namespace cpu {
namespace HWY_NAMESPACE {

// `work` holds a copy of the skip's row, as y may be the skip and a pixel's panels are written one
// after the other.
void RunUpsampleFuse(const UpsampleFuseWeights& w, const Map& x, const Map& skip, const Map& y,
                     const Tile& tile, float* gram, float* work) {
  for (ptrdiff_t r = tile.y0; r < tile.y1; ++r) {
    std::memcpy(work, skip.at(r, tile.x0), tile.width() * skip.pixel * sizeof(float));
    for (size_t b = 0; b < 2; ++b) {
      const float* in = x.at(r / 2, tile.x0 / 2);
      const float* skipped = work + b * skip.pixel;
      const Panels& up = w.up[static_cast<size_t>(r % 2) * 2 + b];
      for (size_t panel = 0; panel < up.count(); ++panel) {
        float* out = y.at(r, tile.x0) + b * y.pixel + panel * kPanel;
        ForPixelBlocks(tile.width() / 2, [&](auto count, size_t i) HWY_ATTR {
          constexpr int kRows = decltype(count)::value;
          V acc[kRows][2];
          Broadcast(w.bias.data() + panel * kPanel, acc);
          MulAdd<kRows>(in + i * x.pixel, x.pixel, up.panel(panel), w.in, acc);
          MulAdd<kRows>(skipped + 2 * i * skip.pixel, 2 * skip.pixel, w.skip.panel(panel), w.out,
                        acc);
          StoreRows(acc, out + 2 * i * y.pixel, 2 * y.pixel);
        });
      }
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

HWY_EXPORT(RunUpsampleFuse);

UpsampleFuseWeights::UpsampleFuseWeights(const Tensor& up_weight, const Tensor& up_bias,
                                         const Tensor& fusion)
    : in(static_cast<size_t>(up_weight.shape[0])),
      out(static_cast<size_t>(up_weight.shape[1])),
      skip(out, out) {
  const auto fuse = [&](size_t o, size_t m) {
    return static_cast<double>(fusion.data[o * 2 * out + m]);
  };
  bias = AlignedBuffer(skip.count() * PanelWidth());
  for (size_t o = 0; o < out; ++o) {
    double sum = 0;
    for (size_t m = 0; m < out; ++m) {
      sum += fuse(o, m) * up_bias.data[m];
      skip.Set(m, o, fusion.data[o * 2 * out + out + m]);
    }
    bias.data()[o] = static_cast<float>(sum);
  }
  for (size_t phase = 0; phase < 4; ++phase) {
    Panels& panels = up.emplace_back(in, out);
    for (size_t o = 0; o < out; ++o) {
      for (size_t i = 0; i < in; ++i) {
        double sum = 0;
        for (size_t m = 0; m < out; ++m) {
          sum += fuse(o, m) * up_weight.data[(i * out + m) * 4 + phase];
        }
        panels.Set(i, o, static_cast<float>(sum));
      }
    }
  }
}

size_t UpsampleFuseWork(const UpsampleFuseWeights& w) {
  return kTileWidth * w.skip.count() * PanelWidth();
}

void UpsampleFuse(const UpsampleFuseWeights& weights, const Map& x, const Map& skip, const Map& y,
                  const Tile& tile, float* gram, float* work) {
  HWY_DYNAMIC_DISPATCH(RunUpsampleFuse)(weights, x, skip, y, tile, gram, work);
}

}  // namespace mstpp::cpu
#endif  // HWY_ONCE
