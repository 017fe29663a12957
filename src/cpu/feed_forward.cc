// SPDX-License-Identifier: Apache-2.0
// y = x + W2 GELU(dw3x3(GELU(W1 LayerNorm(x)))) on one tile.
//
// The hidden map (four times the channels) never exists: the tile is rolled down a few rows at a
// time, and only three rows of each panel of hidden channels are kept, in a ring. LayerNorm's gain
// and bias are folded into W1: hidden = W1' (x - mean) / deviation + b1. Outside the picture the
// hidden channels are 0, not GELU(b1), as the depthwise convolution pads them.
//
// For each group of rows: normalise; for each hidden panel: first product, GELU, depthwise, GELU
// into `act`; then the second product, which starts from x.
#include "cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/feed_forward.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "cpu/simd-inl.h"
#include "hwy/highway.h"

// Rows per round: the wider the layer, the larger its weights, and the more rows must share them
// while they are in the cache.
#ifndef MSTPP_CPU_FEED_FORWARD_ROWS
#define MSTPP_CPU_FEED_FORWARD_ROWS
namespace mstpp::cpu {
inline ptrdiff_t FeedForwardRows(size_t channels) { return channels > 64 ? 4 : 1; }
}  // namespace mstpp::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mstpp {
namespace cpu {
namespace HWY_NAMESPACE {

// Where a tile's intermediates lie in `work`.
struct FeedForwardBuffers {
  float* normal;  // rows + 2 rows of width + 2 pixels, padded channels
  float* ring;    // a panel: 3 rows of width + 2 pixels
  float* act;     // a row: blocks of 6 pixels; a block: panels; a panel: 6 pixels
  float* row;     // one depthwise row of one panel
  size_t ring_row, ring_panel, act_block, act_row;
};

class FeedForwardTile {
 public:
  FeedForwardTile(const FeedForwardWeights& w, const Map& x, const Map& y, const Tile& tile,
                  float* work)
      : w_(w),
        x_(x),
        y_(y),
        tile_(tile),
        panels_(w.expand.count()),
        rows_(FeedForwardRows(w.channels)) {
    // One pixel more on each side for the depthwise convolution, but for what lies outside.
    left_ = HWY_MAX(tile.x0 - 1, ptrdiff_t{0});
    inside_ = static_cast<size_t>(HWY_MIN(tile.x1 + 1, x.width) - left_);
    skipped_ = static_cast<size_t>(left_ - (tile.x0 - 1));
    const size_t width = tile.width() + 2;
    buffers_.ring_row = width * kPanel;
    buffers_.ring_panel = 3 * buffers_.ring_row;
    buffers_.act_block = panels_ * 6 * kPanel;
    buffers_.act_row = buffers_.act_block * ((tile.width() + 5) / 6 + 1);
    buffers_.normal = work;
    buffers_.ring = buffers_.normal + static_cast<size_t>(rows_ + 2) * width * x.pixel;
    buffers_.act = buffers_.ring + panels_ * buffers_.ring_panel;
    buffers_.row = buffers_.act + static_cast<size_t>(rows_) * buffers_.act_row;
  }

  void Run(float* gram) {
    for (ptrdiff_t y = tile_.y0; y < tile_.y1; y += rows_) {
      const ptrdiff_t end = HWY_MIN(y + rows_, tile_.y1);
      // Hidden rows y - 1 and y are in the ring but for the first round.
      const ptrdiff_t first = y == tile_.y0 ? y - 1 : y + 1;
      for (ptrdiff_t r = first; r <= end; ++r) {
        if (r >= 0 && r < x_.height) NormaliseRow(x_.at(r, left_), NormalRow(r - first));
      }
      for (size_t panel = 0; panel < panels_; ++panel) {
        for (ptrdiff_t r = first; r <= end; ++r) {
          HiddenRow(panel, r, NormalRow(r - first));
          if (r - 1 >= y) DepthwiseGelu(panel, r - 1, ActRow(r - 1 - y));
        }
      }
      for (ptrdiff_t r = y; r < end; ++r) ProjectRow(r, ActRow(r - y));
      AccumulateGramRows(y_, y, end, tile_, gram);
    }
  }

 private:
  float* NormalRow(ptrdiff_t i) const {
    return buffers_.normal + static_cast<size_t>(i) * (tile_.width() + 2) * x_.pixel;
  }
  float* ActRow(ptrdiff_t i) const {
    return buffers_.act + static_cast<size_t>(i) * buffers_.act_row;
  }
  float* RingRow(size_t panel, ptrdiff_t y) const {
    return buffers_.ring + panel * buffers_.ring_panel +
           static_cast<size_t>((y + 3) % 3) * buffers_.ring_row;
  }

  // (x - mean) / deviation of each pixel, the mean over the true channels (padding is zero).
  void NormaliseRow(const float* HWY_RESTRICT x, float* HWY_RESTRICT out) const {
    const D d;
    const size_t channels = w_.channels;
    const size_t whole = channels / kLanes * kLanes;
    const auto tail = hn::FirstN(d, channels - whole);
    const V scale = hn::Set(d, 1.0f / static_cast<float>(channels));
    const V epsilon = hn::Set(d, 1e-5f);
    for (size_t p = 0; p < inside_; ++p, x += x_.pixel, out += x_.pixel) {
      V sum = hn::Zero(d);
      for (size_t c = 0; c < channels; c += kLanes) sum = hn::Add(sum, hn::Load(d, x + c));
      const V mean = hn::Mul(hn::SumOfLanes(d, sum), scale);
      V squares = hn::Zero(d);
      for (size_t c = 0; c < whole; c += kLanes) {
        const V v = hn::Sub(hn::Load(d, x + c), mean);
        squares = hn::MulAdd(v, v, squares);
      }
      if (whole < channels) {
        const V v = hn::IfThenElseZero(tail, hn::Sub(hn::Load(d, x + whole), mean));
        squares = hn::MulAdd(v, v, squares);
      }
      const V variance = hn::MulAdd(hn::SumOfLanes(d, squares), scale, epsilon);
      const V inverse = hn::Div(hn::Set(d, 1.0f), hn::Sqrt(variance));
      for (size_t c = 0; c < channels; c += kLanes) {
        hn::Store(hn::Mul(hn::Sub(hn::Load(d, x + c), mean), inverse), d, out + c);
      }
    }
  }

  void HiddenRow(size_t panel, ptrdiff_t y, const float* normal) const {
    float* out = RingRow(panel, y);
    if (y < 0 || y >= x_.height) {
      std::memset(out, 0, buffers_.ring_row * sizeof(float));
      return;
    }
    const size_t right = skipped_ + inside_;
    std::memset(out, 0, skipped_ * kPanel * sizeof(float));
    std::memset(out + right * kPanel, 0,
                buffers_.ring_row * sizeof(float) - right * kPanel * sizeof(float));
    out += skipped_ * kPanel;
    const float* weights = w_.expand.panel(panel);
    const float* bias = w_.bias.data() + panel * kPanel;
    ForPixelBlocks(inside_, [&](auto count, size_t i) HWY_ATTR {
      constexpr int kRows = decltype(count)::value;
      V acc[kRows][2];
      Broadcast(bias, acc);
      MulAdd<kRows>(normal + i * x_.pixel, x_.pixel, weights, w_.channels, acc);
      StoreRows(acc, out + i * kPanel, kPanel);
    });
    GeluRow(out, 2 * inside_);
  }

  void DepthwiseGelu(size_t panel, ptrdiff_t y, float* act) const {
    DepthwiseRow(RingRow(panel, y - 1), RingRow(panel, y), RingRow(panel, y + 1),
                 w_.depthwise.data() + panel * 9 * kPanel, buffers_.row, tile_.width());
    act += panel * 6 * kPanel;
    const D d;
    ForPixelBlocks(tile_.width(), [&](auto count, size_t i) HWY_ATTR {
      constexpr int kRows = decltype(count)::value;
      const float* in = buffers_.row + i * kPanel;
      MSTPP_UNROLL
      for (int v = 0; v < 2 * kRows; ++v) {
        hn::Store(Gelu(hn::Load(d, in + v * kLanes)), d, act + v * kLanes);
      }
      act += buffers_.act_block;
    });
  }

  void ProjectRow(ptrdiff_t y, const float* act) const {
    const float* x = x_.at(y, tile_.x0);
    float* out = y_.at(y, tile_.x0);
    for (size_t panel = 0; panel < w_.project.count(); ++panel) {
      const float* block = act;
      ForPixelBlocks(tile_.width(), [&](auto count, size_t i) HWY_ATTR {
        constexpr int kRows = decltype(count)::value;
        V acc[kRows][2];
        ZeroAccumulators(acc);
        AddRows(x + i * x_.pixel + panel * kPanel, x_.pixel, acc);
        const float* weights = w_.project.panel(panel);
        const float* a = block;
        size_t left = w_.hidden;
        for (; left >= kPanel; left -= kPanel, a += 6 * kPanel, weights += kPanel * kPanel) {
          MulAdd<kRows, static_cast<int>(kPanel)>(a, kPanel, weights, acc);
        }
        MulAdd<kRows>(a, kPanel, weights, left, acc);
        StoreRows(acc, out + i * y_.pixel + panel * kPanel, y_.pixel);
        block += buffers_.act_block;
      });
    }
  }

  const FeedForwardWeights& w_;
  const Map& x_;
  const Map& y_;
  const Tile& tile_;
  size_t panels_;
  ptrdiff_t rows_;
  ptrdiff_t left_;  // first column of x that is read
  size_t inside_;   // columns read
  size_t skipped_;  // 1 if the tile begins at the picture's left edge
  FeedForwardBuffers buffers_;
};

void RunFeedForward(const FeedForwardWeights& w, const Map& x, const Map& y, const Tile& tile,
                    float* gram, float* work) {
  FeedForwardTile(w, x, y, tile, work).Run(gram);
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
}  // namespace mstpp
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mstpp::cpu {

HWY_EXPORT(RunFeedForward);

FeedForwardWeights::FeedForwardWeights(const StateDict& tensors, const std::string& name) {
  const Tensor& w1 = tensors.at(name + ".fn.net.0.weight");
  const Tensor& w2 = tensors.at(name + ".fn.net.4.weight");
  const Tensor& gain = tensors.at(name + ".norm.weight");
  const Tensor& shift = tensors.at(name + ".norm.bias");
  channels = static_cast<size_t>(w1.shape[1]);
  hidden = static_cast<size_t>(w1.shape[0]);
  expand = Panels(channels, hidden);
  project = Panels(hidden, channels);
  bias = AlignedBuffer(expand.count() * PanelWidth());
  for (size_t h = 0; h < hidden; ++h) {
    double sum = 0;
    for (size_t c = 0; c < channels; ++c) {
      expand.Set(c, h, w1.data[h * channels + c] * gain.data[c]);
      sum += static_cast<double>(w1.data[h * channels + c]) * shift.data[c];
      project.Set(h, c, w2.data[c * hidden + h]);
    }
    bias.data()[h] = static_cast<float>(sum);
  }
  depthwise = PackDepthwise(tensors.at(name + ".fn.net.2.weight"));
}

size_t FeedForwardWork(const FeedForwardWeights& w) {
  const auto rows = static_cast<size_t>(FeedForwardRows(w.channels));
  const size_t width = kTileWidth + 2;
  const size_t panel = PanelWidth();
  const size_t normal = (rows + 2) * width * w.project.count() * panel;
  const size_t ring = w.expand.count() * 3 * width * panel;
  const size_t act = rows * w.expand.count() * 6 * panel * (kTileWidth / 6 + 2);
  return normal + ring + act + kTileWidth * panel;
}

void FeedForward(const FeedForwardWeights& weights, const Map& x, const Map& y, const Tile& tile,
                 float* gram, float* work) {
  HWY_DYNAMIC_DISPATCH(RunFeedForward)(weights, x, y, tile, gram, work);
}

}  // namespace mstpp::cpu
#endif  // HWY_ONCE
