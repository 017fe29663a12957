// SPDX-License-Identifier: Apache-2.0
// 3x3 convolution, two rows of a tile at a time, so that what it writes is still in the cache when
// the gram matrix or the planes want it.
//
// Wide inputs: Winograd's F(2x2, 3x3) (Lavin & Gray, CVPR 2016): 16 products of transformed 4x4
// patches give 2x2 outputs, 2.25 times fewer than the 36 of the definition:
//   Y = A' [(G g G') . (B' d B)] A,  B' = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1],
//   G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1],  A' = [1 1 1 0; 0 1 -1 -1].
// Narrow ones (the picture): nine products, accumulated in registers.
#include "cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/conv3x3.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mstpp {
namespace cpu {
namespace HWY_NAMESPACE {

// Four rows of an output or residual strip: where its first pixel lies and its strides.
struct Strip {
  float* data;
  size_t row, pixel;
};

// Rows y and y + 1 of a tile by the definition.
void DirectStrip(const Conv3x3Weights& w, const Map& x, ptrdiff_t y, const Tile& tile,
                 const Strip* residual, const Strip& out) {
  for (size_t r = 0; r < 2; ++r) {
    for (size_t panel = 0; panel < w.taps[0].count(); ++panel) {
      ForPixelBlocks(tile.width(), [&](auto count, size_t i) HWY_ATTR {
        constexpr int kRows = decltype(count)::value;
        V acc[kRows][2];
        ZeroAccumulators(acc);
        if (residual != nullptr) {
          AddRows(residual->data + r * residual->row + i * residual->pixel + panel * kPanel,
                  residual->pixel, acc);
        }
        for (size_t tap = 0; tap < 9; ++tap) {
          const float* a = x.at(y + static_cast<ptrdiff_t>(r + tap / 3) - 1,
                                tile.x0 + static_cast<ptrdiff_t>(i + tap % 3) - 1);
          MulAdd<kRows>(a, x.pixel, w.taps[tap].panel(panel), w.in, acc);
        }
        StoreRows(acc, out.data + r * out.row + i * out.pixel + panel * kPanel, out.pixel);
      });
    }
  }
}

// B' d of one column of a patch: rows y - 1 to y + 2.
struct PatchColumn {
  V v[4];
  HWY_INLINE PatchColumn(const float* HWY_RESTRICT p, size_t row) {
    const D d;
    const V a = hn::Load(d, p);
    const V b = hn::Load(d, p + row);
    const V c = hn::Load(d, p + 2 * row);
    const V e = hn::Load(d, p + 3 * row);
    v[0] = hn::Sub(a, c);
    v[1] = hn::Add(b, c);
    v[2] = hn::Sub(c, b);
    v[3] = hn::Sub(b, e);
  }
};

// B' d B of the patches of `count` 2x2 outputs, into 16 matrices of count x padded channels, each
// `step` floats. `x` is the patch's first pixel.
void TransformInput(const float* x, size_t row, size_t pixel, size_t count, size_t step,
                    float* out) {
  const D d;
  for (size_t c = 0; c < pixel; c += kLanes) {
    PatchColumn a(x + c, row);
    PatchColumn b(x + pixel + c, row);
    for (size_t t = 0; t < count; ++t) {
      const PatchColumn e(x + (2 * t + 2) * pixel + c, row);
      const PatchColumn f(x + (2 * t + 3) * pixel + c, row);
      float* HWY_RESTRICT o = out + t * pixel + c;
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i, o += 4 * step) {
        hn::Store(hn::Sub(a.v[i], e.v[i]), d, o);
        hn::Store(hn::Add(b.v[i], e.v[i]), d, o + step);
        hn::Store(hn::Sub(e.v[i], b.v[i]), d, o + 2 * step);
        hn::Store(hn::Sub(b.v[i], f.v[i]), d, o + 3 * step);
      }
      a = e;
      b = f;
    }
  }
}

// A' m A of one vector of channels; `m` is 16 matrices `step` floats apart.
HWY_INLINE void TransformOutput(const float* HWY_RESTRICT m, size_t step, V (&y)[2][2]) {
  const D d;
  V top[4];
  V bottom[4];
  MSTPP_UNROLL
  for (size_t j = 0; j < 4; ++j) {
    const V a = hn::Load(d, m + j * step);
    const V b = hn::Load(d, m + (4 + j) * step);
    const V c = hn::Load(d, m + (8 + j) * step);
    const V e = hn::Load(d, m + (12 + j) * step);
    top[j] = hn::Add(hn::Add(a, b), c);
    bottom[j] = hn::Sub(hn::Sub(b, c), e);
  }
  y[0][0] = hn::Add(hn::Add(top[0], top[1]), top[2]);
  y[0][1] = hn::Sub(hn::Sub(top[1], top[2]), top[3]);
  y[1][0] = hn::Add(hn::Add(bottom[0], bottom[1]), bottom[2]);
  y[1][1] = hn::Sub(hn::Sub(bottom[1], bottom[2]), bottom[3]);
}

void StoreOutputs(const float* products, size_t step, size_t count, size_t panel,
                  const Strip* residual, const Strip& out) {
  const D d;
  for (size_t c = 0; c < kPanel; c += kLanes) {
    for (size_t t = 0; t < count; ++t) {
      V y[2][2];
      TransformOutput(products + t * kPanel + c, step, y);
      MSTPP_UNROLL
      for (size_t r = 0; r < 2; ++r) {
        MSTPP_UNROLL
        for (size_t s = 0; s < 2; ++s) {
          const size_t channel = panel * kPanel + c;
          if (residual != nullptr) {
            y[r][s] = hn::Add(y[r][s], hn::Load(d, residual->data + r * residual->row +
                                                       (2 * t + s) * residual->pixel + channel));
          }
          hn::Store(y[r][s], d, out.data + r * out.row + (2 * t + s) * out.pixel + channel);
        }
      }
    }
  }
}

void WinogradStrip(const Conv3x3Weights& w, const Map& x, ptrdiff_t y, const Tile& tile,
                   const Strip* residual, const Strip& out, float* work) {
  const size_t count = tile.width() / 2;
  const size_t in_step = count * x.pixel;
  const size_t out_step = count * kPanel;
  float* products = work + 16 * in_step;
  TransformInput(x.at(y - 1, tile.x0 - 1), x.row, x.pixel, count, in_step, work);
  for (size_t panel = 0; panel < w.taps[0].count(); ++panel) {
    for (size_t s = 0; s < 16; ++s) {
      const float* a = work + s * in_step;
      const float* weights = w.taps[s].panel(panel);
      float* m = products + s * out_step;
      ForPixelBlocks(count, [&](auto rows, size_t i) HWY_ATTR {
        constexpr int kRows = decltype(rows)::value;
        V acc[kRows][2];
        ZeroAccumulators(acc);
        MulAdd<kRows>(a + i * x.pixel, x.pixel, weights, w.in, acc);
        StoreRows(acc, m + i * kPanel, kPanel);
      });
    }
    StoreOutputs(products, out_step, count, panel, residual, out);
  }
}

// Two rows of `strip` to channel planes, without what lies beyond the planes' edges.
void ScatterToPlanes(const Strip& strip, ptrdiff_t y, const Tile& tile,
                     const MutableTensorView& planes) {
  const ptrdiff_t x1 = HWY_MIN(tile.x1, static_cast<ptrdiff_t>(planes.w));
  for (size_t r = 0; r < 2 && y + static_cast<ptrdiff_t>(r) < planes.h; ++r) {
    for (size_t c = 0; c < static_cast<size_t>(planes.c); ++c) {
      float* out = planes.data + static_cast<ptrdiff_t>(c) * planes.stride_c +
                   (y + static_cast<ptrdiff_t>(r)) * planes.stride_h;
      const float* in = strip.data + r * strip.row + c;
      for (ptrdiff_t x = tile.x0; x < x1; ++x, in += strip.pixel) out[x * planes.stride_w] = *in;
    }
  }
}

void RunConv3x3(const Conv3x3Weights& w, const Map& x, const Residual& residual, const Map& y,
                const MutableTensorView* planes, const Tile& tile, float* gram, float* work) {
  const size_t padded = w.taps[0].count() * kPanel;
  const size_t strip_row = tile.width() * padded;
  const Strip again{work, strip_row, padded};
  const Strip buffer{work + 2 * strip_row, strip_row, padded};
  work += 4 * strip_row;
  for (ptrdiff_t r = tile.y0; r < tile.y1; r += 2) {
    const Strip out = planes != nullptr ? buffer : Strip{y.at(r, tile.x0), y.row, y.pixel};
    Strip added{};
    if (residual.weights != nullptr) {
      DirectStrip(*residual.weights, *residual.input, r, tile, nullptr, again);
      added = again;
    } else if (residual.map != nullptr) {
      added = {residual.map->at(r, tile.x0), residual.map->row, residual.map->pixel};
    }
    const Strip* add = added.data != nullptr ? &added : nullptr;
    if (w.winograd) {
      WinogradStrip(w, x, r, tile, add, out, work);
    } else {
      DirectStrip(w, x, r, tile, add, out);
    }
    if (planes != nullptr) {
      ScatterToPlanes(out, r, tile, *planes);
    } else {
      AccumulateGramRows(y, r, r + 2, tile, gram);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
}  // namespace mstpp
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mstpp::cpu {

HWY_EXPORT(RunConv3x3);

namespace {

// G g G' for one 3x3 kernel.
void TransformKernel(const float* g, double (&u)[16]) {
  constexpr double kG[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      u[i * 4 + j] = 0;
      for (int p = 0; p < 3; ++p) {
        for (int q = 0; q < 3; ++q) u[i * 4 + j] += kG[i][p] * kG[j][q] * g[p * 3 + q];
      }
    }
  }
}

}  // namespace

Conv3x3Weights::Conv3x3Weights(const Tensor& weight)
    : in(static_cast<size_t>(weight.shape[1])), out(static_cast<size_t>(weight.shape[0])) {
  constexpr size_t kNarrow = 8;  // below, transforming costs more than it saves
  winograd = in >= kNarrow;
  for (int i = 0; i < (winograd ? 16 : 9); ++i) taps.emplace_back(in, out);
  for (size_t o = 0; o < out; ++o) {
    for (size_t i = 0; i < in; ++i) {
      const float* kernel = &weight.data[(o * in + i) * 9];
      double u[16];
      TransformKernel(kernel, u);
      for (size_t s = 0; s < taps.size(); ++s) {
        taps[s].Set(i, o, winograd ? static_cast<float>(u[s]) : kernel[s]);
      }
    }
  }
}

size_t Conv3x3Work(const Conv3x3Weights& w) {
  const size_t panel = PanelWidth();
  const size_t strips = 4 * kTileWidth * w.taps[0].count() * panel;
  const size_t in = (w.in + panel - 1) / panel * panel;
  return strips + (w.winograd ? 16 * (kTileWidth / 2) * (in + panel) : 0);
}

void Conv3x3(const Conv3x3Weights& weights, const Map& x, const Residual& residual, const Map& y,
             const MutableTensorView* planes, const Tile& tile, float* gram, float* work) {
  HWY_DYNAMIC_DISPATCH(RunConv3x3)(weights, x, residual, y, planes, tile, gram, work);
}

}  // namespace mstpp::cpu
#endif  // HWY_ONCE
