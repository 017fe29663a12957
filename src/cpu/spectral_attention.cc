// SPDX-License-Identifier: Apache-2.0
// y = x + X M' + bias + dw2(GELU(dw1(X Wv'))) on one tile. M holds queries, keys and softmax for
// the whole picture (attention_matrix.cc); nothing else of the S-MSA is not local.
//
// The tile is rolled down row by row. For each panel of channels three rows of V and three of
// GELU(dw1(V)) are kept in rings, with two and one pixels more on each side. Outside the picture
// both are 0, as the depthwise convolutions pad them.
#include "cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/spectral_attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mstpp {
namespace cpu {
namespace HWY_NAMESPACE {

class SpectralAttentionTile {
 public:
  SpectralAttentionTile(const SpectralAttentionWeights& w, const Panels& product, const Map& x,
                        const Map& y, const Tile& tile, float* work)
      : w_(w), product_(product), x_(x), y_(y), tile_(tile) {
    left_ = HWY_MAX(tile.x0 - 2, ptrdiff_t{0});
    inside_ = static_cast<size_t>(HWY_MIN(tile.x1 + 2, x.width) - left_);
    skipped_ = static_cast<size_t>(left_ - (tile.x0 - 2));
    value_row_ = (tile.width() + 4) * kPanel;
    position_row_ = (tile.width() + 2) * kPanel;
    values_ = work;
    positions_ = values_ + product.count() * 3 * value_row_;
    row_ = positions_ + product.count() * 3 * position_row_;
  }

  void Run() const {
    for (ptrdiff_t y = tile_.y0 - 2; y < tile_.y1 + 2; ++y) {
      for (size_t panel = 0; panel < product_.count(); ++panel) {
        ValueRow(panel, y);
        if (y - 1 >= tile_.y0 - 1) PositionRow(panel, y - 1);
        if (y - 2 >= tile_.y0) OutputRow(panel, y - 2);
      }
    }
  }

 private:
  float* Values(size_t panel, ptrdiff_t y) const {
    return values_ + (panel * 3 + static_cast<size_t>((y + 3) % 3)) * value_row_;
  }
  float* Positions(size_t panel, ptrdiff_t y) const {
    return positions_ + (panel * 3 + static_cast<size_t>((y + 3) % 3)) * position_row_;
  }

  void ValueRow(size_t panel, ptrdiff_t y) const {
    float* out = Values(panel, y);
    if (y < 0 || y >= x_.height) {
      std::memset(out, 0, value_row_ * sizeof(float));
      return;
    }
    const size_t right = (skipped_ + inside_) * kPanel;
    std::memset(out, 0, skipped_ * kPanel * sizeof(float));
    std::memset(out + right, 0, (value_row_ - right) * sizeof(float));
    out += skipped_ * kPanel;
    const float* x = x_.at(y, left_);
    const float* weights = w_.value.panel(panel);
    ForPixelBlocks(inside_, [&](auto count, size_t i) HWY_ATTR {
      constexpr int kRows = decltype(count)::value;
      V acc[kRows][2];
      ZeroAccumulators(acc);
      MulAdd<kRows>(x + i * x_.pixel, x_.pixel, weights, w_.channels, acc);
      StoreRows(acc, out + i * kPanel, kPanel);
    });
  }

  void PositionRow(size_t panel, ptrdiff_t y) const {
    float* out = Positions(panel, y);
    if (y < 0 || y >= x_.height) {
      std::memset(out, 0, position_row_ * sizeof(float));
      return;
    }
    const size_t width = tile_.width() + 2;
    DepthwiseRow(Values(panel, y - 1), Values(panel, y), Values(panel, y + 1),
                 w_.first.data() + panel * 9 * kPanel, out, width);
    GeluRow(out, 2 * width);
    if (tile_.x0 == 0) std::memset(out, 0, kPanel * sizeof(float));
    if (tile_.x1 == x_.width) {
      std::memset(out + (width - 1) * kPanel, 0, kPanel * sizeof(float));
    }
  }

  void OutputRow(size_t panel, ptrdiff_t y) const {
    DepthwiseRow(Positions(panel, y - 1), Positions(panel, y), Positions(panel, y + 1),
                 w_.second.data() + panel * 9 * kPanel, row_, tile_.width());
    const float* x = x_.at(y, tile_.x0);
    float* out = y_.at(y, tile_.x0) + panel * kPanel;
    const float* weights = product_.panel(panel);
    ForPixelBlocks(tile_.width(), [&](auto count, size_t i) HWY_ATTR {
      constexpr int kRows = decltype(count)::value;
      V acc[kRows][2];
      Broadcast(w_.bias.data() + panel * kPanel, acc);
      AddRows(row_ + i * kPanel, kPanel, acc);
      AddRows(x + i * x_.pixel + panel * kPanel, x_.pixel, acc);
      MulAdd<kRows>(x + i * x_.pixel, x_.pixel, weights, w_.channels, acc);
      StoreRows(acc, out + i * y_.pixel, y_.pixel);
    });
  }

  const SpectralAttentionWeights& w_;
  const Panels& product_;
  const Map& x_;
  const Map& y_;
  const Tile& tile_;
  ptrdiff_t left_;
  size_t inside_, skipped_, value_row_, position_row_;
  float* values_;
  float* positions_;
  float* row_;
};

void RunSpectralAttention(const SpectralAttentionWeights& w, const Panels& product, const Map& x,
                          const Map& y, const Tile& tile, float* work) {
  SpectralAttentionTile(w, product, x, y, tile, work).Run();
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
}  // namespace mstpp
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mstpp::cpu {

HWY_EXPORT(RunSpectralAttention);

SpectralAttentionWeights::SpectralAttentionWeights(const StateDict& tensors,
                                                   const std::string& name, int head_count)
    : heads(head_count) {
  const auto doubles = [&](const char* suffix) {
    const std::vector<float>& data = tensors.at(name + suffix).data;
    return std::vector<double>(data.begin(), data.end());
  };
  q = doubles(".to_q.weight");
  k = doubles(".to_k.weight");
  v = doubles(".to_v.weight");
  project = doubles(".proj.weight");
  rescale = doubles(".rescale");
  const std::vector<float>& shift = tensors.at(name + ".proj.bias").data;
  channels = shift.size();
  q_transposed.resize(q.size());
  value = Panels(channels, channels);
  bias = AlignedBuffer(value.count() * PanelWidth());
  for (size_t o = 0; o < channels; ++o) {
    bias.data()[o] = shift[o];
    for (size_t i = 0; i < channels; ++i) {
      q_transposed[i * channels + o] = q[o * channels + i];
      value.Set(i, o, static_cast<float>(v[o * channels + i]));
    }
  }
  first = PackDepthwise(tensors.at(name + ".pos_emb.0.weight"));
  second = PackDepthwise(tensors.at(name + ".pos_emb.2.weight"));
}

size_t SpectralAttentionWork(const SpectralAttentionWeights& w) {
  const size_t panel = PanelWidth();
  const size_t ring = 3 * (kTileWidth + 4 + kTileWidth + 2) * panel;
  return w.value.count() * ring + kTileWidth * panel;
}

void SpectralAttention(const SpectralAttentionWeights& weights, const Panels& product, const Map& x,
                       const Map& y, const Tile& tile, float* work) {
  HWY_DYNAMIC_DISPATCH(RunSpectralAttention)(weights, product, x, y, tile, work);
}

}  // namespace mstpp::cpu
#endif  // HWY_ONCE
