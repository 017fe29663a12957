// SPDX-License-Identifier: Apache-2.0
// The feed-forward network of up to kC channels in one kernel, so that the hidden channels
// never leave the SM:
//
//   y = x + W2 GELU(dw(GELU(W1 LN(x) + b1)))
//
// A block of eight warps takes 16 x 8 pixels, and one around for the depthwise convolution. It
// keeps LN(x) in shared memory and goes through the hidden channels by 16: the first product of all
// 180 pixels, GELU, the depthwise convolution, GELU, and what these channels add to the second
// product, whose sums stay in registers. The weights are copied 16 hidden channels ahead.
#pragma once

#include "cuda/kernels/portable.cuh"

namespace mstpp::cuda::portable {

template <class T>
struct FeedForwardParams {
  Map<const T> x;
  T* y;                  // same layout
  const float* weight1;  // [inputs / 16][hidden][16]
  const float* bias1;
  const float* depthwise;  // [9][hidden]
  const float* weight2;    // [hidden / 16][outputs][16]
  int channels, hidden;    // hidden: a multiple of 16
};

template <int kC>
struct FeedForwardShape : Tile {
  // With many channels one block fills an SM: then two warps share the outputs of 16 pixels.
  static constexpr int kShares = kC > 64 ? 2 : 1, kWarps = 8 * kShares, kThreads = 32 * kWarps;
  static constexpr int kWide = kColumns + 2, kHigh = kRows + 2;
  static constexpr int kAll = 192;  // kWide kHigh, rounded up to whole products
  // In floats: LN(x) [slab][kAll][16], later the sums; 16 hidden channels of all pixels; the same
  // after the depthwise convolution; and twice the weights of 16 hidden channels: W1's, W2's, the
  // depthwise convolution's and the bias.
  static constexpr int kHidden = kC * kAll;
  static constexpr int kFactors = kHidden + kSlab * kAll;
  static constexpr int kWeights = kFactors + kSlab * kColumns * kRows;
  static constexpr int kWeight2 = kSlab * kC, kDepthwise = 2 * kSlab * kC;
  static constexpr int kBias = kDepthwise + 9 * kSlab, kWeightsSize = kBias + kSlab;
  static constexpr int kSharedBytes = 4 * (kWeights + 2 * kWeightsSize);
  static_assert(kSumsRow<kC> * kColumns * kRows <= kHidden, "the sums fit where LN(x) was");
};

template <int kTerms, int kC, class T>
class TileFeedForward {
  using Shape = FeedForwardShape<kC>;
  // Tiles of 16 pixels of a warp in First (of 16 warps twelve have some), and of eight outputs in
  // Second.
  static constexpr int kTiles = Shape::kShares == 1 ? 3 : 2, kStep = 12 / kTiles * 16;
  static constexpr int kOutputs = kC / 8 / Shape::kShares;

 public:
  MSTPP_DEVICE explicit TileFeedForward(const FeedForwardParams<T>& p)
      : p_(p),
        shared_(reinterpret_cast<float*>(SharedMemory())),
        g_((threadIdx.x & 31) >> 2),
        t_(threadIdx.x & 3),
        warp_(threadIdx.x >> 5),
        swizzled_(4 * (t_ ^ (g_ >> 1))) {
    const Tile tile(static_cast<int>(blockIdx.x), p.x.height, p.x.width);
    image_ = tile.image;
    row_ = tile.row;
    column_ = tile.column;
    inside_ = 0;
    for (int i = 0; i < 2 * kTiles; ++i) {
      if (IsInside(FirstPixel() + kStep * (i / 2) + 8 * (i % 2))) inside_ |= 1u << i;
    }
  }

  MSTPP_DEVICE void Run() {
    Fetch(0);
    Normalise();
    CopyWait<0>();
    __syncthreads();
    float sum[kOutputs][4] = {};
    MSTPP_NO_UNROLL
    for (int h = 0; h < p_.hidden; h += kSlab) {
      if (kTiles == 3 || warp_ < 12) First(h);
      __syncthreads();
      if (h + kSlab < p_.hidden) Fetch(h + kSlab);
      Depthwise(h);
      CopyWait<0>();
      __syncthreads();
      Second(h, sum);
    }
    __syncthreads();
    StageSums<kC>(shared_ + Output(), 16 * (warp_ % 8), sum);
    __syncthreads();
    ForStagedSums<kC, Shape::kThreads, false>(shared_, [&](int pixel, int n, const Four& sums) {
      const int y = row_ + pixel / Shape::kColumns, x = column_ + pixel % Shape::kColumns;
      if (n >= p_.x.stride || !p_.x.Inside(y, x)) return;
      const T* at = p_.x.At(image_, y, x) + n;
      StoreFour(p_.y + (at - p_.x.data), Plus(LoadFour(at), sums));
    });
  }

 private:
  // Pixel i of the tile with one around: its place in the image.
  MSTPP_DEVICE int RowOf(int i) const { return row_ - 1 + i / Shape::kWide; }
  MSTPP_DEVICE int ColumnOf(int i) const { return column_ - 1 + i % Shape::kWide; }
  MSTPP_DEVICE bool IsInside(int i) const {
    return i < Shape::kWide * Shape::kHigh && p_.x.Inside(RowOf(i), ColumnOf(i));
  }
  // In First a warp takes eight channels of 16 pixels, and of every kStep pixels after these; this
  // is the lane's first.
  MSTPP_DEVICE int FirstPixel() const { return warp_ / 2 * 16 + g_; }

  // Four neighbouring threads take a pixel, and its channels from registers.
  MSTPP_DEVICE void Normalise() const {
    const float each = Reciprocal(static_cast<float>(p_.channels));
    MSTPP_NO_UNROLL
    for (int row = static_cast<int>(threadIdx.x >> 2); row < Shape::kAll;
         row += Shape::kThreads / 4) {
      const bool inside = IsInside(row);
      const T* at = p_.x.At(image_, inside ? RowOf(row) : row_, inside ? ColumnOf(row) : column_);
      Four v[kC / kSlab];
      float sum = 0.0f, squares = 0.0f;
      MSTPP_UNROLL
      for (int k = 0; k < kC / kSlab; ++k) {
        const int c = k * kSlab + 4 * t_;
        v[k] = inside && c < p_.x.stride ? LoadFour(at + c) : Four{};
        sum += v[k].v[0] + v[k].v[1] + v[k].v[2] + v[k].v[3];
      }
      sum += ShuffleXor(sum, 1);
      const float mean = (sum + ShuffleXor(sum, 2)) * each;
      MSTPP_UNROLL
      for (int k = 0; k < kC / kSlab; ++k) {
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) {
          v[k].v[i] = k * kSlab + 4 * t_ + i < p_.channels ? v[k].v[i] - mean : 0.0f;
          squares = fmaf(v[k].v[i], v[k].v[i], squares);
        }
      }
      squares += ShuffleXor(squares, 1);
      squares += ShuffleXor(squares, 2);
      const float scale = ReciprocalSqrt(fmaf(squares, each, 1e-5f));
      float* to = QuadAt(shared_, row, t_);
      MSTPP_UNROLL
      for (int k = 0; k < kC / kSlab; ++k) {
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) v[k].v[i] *= scale;
        StoreFour(to + k * (kSlab * Shape::kAll), v[k]);
      }
    }
  }

  MSTPP_DEVICE float* Weights(int h) const {
    return shared_ + Shape::kWeights + (h / kSlab & 1) * Shape::kWeightsSize;
  }

  // Starts to copy the weights of the hidden channels h to h + 15.
  MSTPP_DEVICE void Fetch(int h) const {
    float* to = Weights(h);
    MSTPP_UNROLL
    for (int first = 0; first < kC * 4; first += Shape::kThreads) {
      const int e = first + static_cast<int>(threadIdx.x), row = e / 4, quad = e % 4;
      if (e >= kC * 4) break;
      const bool wanted = row < p_.x.stride;
      const int at = wanted ? row / 16 * p_.hidden + row % 16 : 0, at2 = wanted ? row : 0;
      CopyAsync(QuadAt(to, row, quad), p_.weight1 + static_cast<size_t>(at + h) * kSlab + 4 * quad,
                wanted);
      CopyAsync(QuadAt(to + Shape::kWeight2, row, quad),
                p_.weight2 + static_cast<size_t>(h) * p_.x.stride + at2 * kSlab + 4 * quad, wanted);
    }
    const int e = threadIdx.x;
    if (e < 36) {
      CopyAsync(to + Shape::kDepthwise + 4 * e, p_.depthwise + e / 4 * p_.hidden + h + e % 4 * 4,
                true);
    } else if (e < 40) {
      CopyAsync(to + Shape::kBias + 4 * (e - 36), p_.bias1 + h + 4 * (e - 36), true);
    }
    CopyCommit();
  }

  // Hidden channels h to h + 15 of all pixels, zeros outside the image.
  MSTPP_DEVICE void First(int h) const {
    const int half = warp_ & 1, channel = 8 * half + 2 * t_;
    const float* weights = Weights(h) + (8 * half + g_) * kSlab + swizzled_;
    const float* rows = shared_ + FirstPixel() * kSlab + swizzled_;
    float sum[kTiles][4] = {};
    MSTPP_UNROLL_2
    for (int k = 0; k < p_.x.stride; k += kSlab) {
      SplitFactor<kTerms, 2> w[2];
      SplitFactor<kTerms, 4> x[kTiles][2];
      SetColumn(w, LoadFour(weights + k * kSlab));
      MSTPP_UNROLL
      for (int m = 0; m < kTiles; ++m) {
        const float* at = rows + k * Shape::kAll + kStep * m * kSlab;
        SetRows(x[m], LoadFour(at), LoadFour(at + 8 * kSlab));
      }
      Multiply<kTerms, kTiles>([&](int m) { return x[m]; }, [&](int) { return w; },
                               [&](int m) { return sum[m]; });
    }
    const float* bias = Weights(h) + Shape::kBias + channel;
    float* to = shared_ + Shape::kHidden + FirstPixel() * kSlab + channel;
    MSTPP_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      const float low = Gelu(sum[i / 2][2 * (i % 2)] + bias[0]);
      const float high = Gelu(sum[i / 2][2 * (i % 2) + 1] + bias[1]);
      const bool inside = inside_ >> i & 1;
      *reinterpret_cast<float2*>(to + (kStep * (i / 2) + 8 * (i % 2)) * kSlab) =
          make_float2(inside ? low : 0.0f, inside ? high : 0.0f);
    }
  }

  // A thread takes four channels of a pixel, or with eight warps of two, one below the other.
  MSTPP_DEVICE void Depthwise(int h) const {
    constexpr int kPixels = 2 / Shape::kShares;
    const int column = static_cast<int>(threadIdx.x >> 2) % Shape::kColumns;
    const int row = static_cast<int>(threadIdx.x) / 64 * kPixels;
    const float* weights = Weights(h) + Shape::kDepthwise + 4 * t_;
    const float* from = shared_ + Shape::kHidden + (row * Shape::kWide + column) * kSlab + 4 * t_;
    Four weight[9], sum[kPixels] = {};
    MSTPP_UNROLL
    for (int tap = 0; tap < 9; ++tap) weight[tap] = LoadFour(weights + tap * kSlab);
    MSTPP_UNROLL
    for (int y = 0; y < kPixels + 2; ++y) {
      MSTPP_UNROLL
      for (int x = 0; x < 3; ++x) {
        const Four v = LoadFour(from + (y * Shape::kWide + x) * kSlab);
        MSTPP_UNROLL
        for (int i = 0; i < kPixels; ++i) {
          if (y >= i && y < i + 3) AddProduct(sum[i], v, weight[(y - i) * 3 + x]);
        }
      }
    }
    float* to = QuadAt(shared_ + Shape::kFactors, row * Shape::kColumns + column, t_);
    MSTPP_UNROLL
    for (int i = 0; i < kPixels; ++i) StoreFour(to + i * (Shape::kColumns * kSlab), GeluOf(sum[i]));
  }

  // A warp takes 16 pixels, one row of the tile, and all outputs or half.
  MSTPP_DEVICE int Output() const { return warp_ / 8 * (8 * kOutputs); }
  MSTPP_DEVICE void Second(int h, float (&sum)[kOutputs][4]) const {
    const float* rows = shared_ + Shape::kFactors + (16 * (warp_ % 8) + g_) * kSlab + swizzled_;
    const float* weights = Weights(h) + Shape::kWeight2 + (Output() + g_) * kSlab + swizzled_;
    SplitFactor<kTerms, 4> x[2];
    SetRows(x, LoadFour(rows), LoadFour(rows + 8 * kSlab));
    MSTPP_UNROLL
    for (int n = 0; n < kOutputs; n += kTogether) {
      SplitFactor<kTerms, 2> w[kTogether][2];
      MSTPP_UNROLL
      for (int i = 0; i < kTogether; ++i) SetColumn(w[i], LoadFour(weights + 8 * (n + i) * kSlab));
      Multiply<kTerms, kTogether>([&](int) { return x; }, [&](int i) { return w[i]; },
                                  [&](int i) { return sum[n + i]; });
    }
  }

  const FeedForwardParams<T>& p_;
  float* shared_;
  int g_, t_, warp_;
  int swizzled_;  // where quad t of row g lies in it, and of every eighth row from there
  int column_, row_, image_;
  unsigned inside_;  // which of the lane's pixels in First are
};

}  // namespace mstpp::cuda::portable
