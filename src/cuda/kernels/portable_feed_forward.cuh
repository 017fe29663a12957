// SPDX-License-Identifier: Apache-2.0
// The feed-forward network of up to kC channels in one kernel, so that the hidden channels
// never leave the SM:
//
//   y = x + W2 GELU(dw(GELU(W1 LN(x) + b1)))
//
// A block of eight warps takes 16 x 8 pixels, and one around for the depthwise convolution. It
// keeps LN(x) in shared memory and goes through the hidden channels by 16: the first product of all
// 180 pixels, GELU, the depthwise convolution, GELU, and what these channels add to the second
// product, whose sums stay in registers. The weights are copied during the depthwise convolution:
// the second product's, and for the next 16 hidden channels the others.
#pragma once

#include "cuda/kernels/portable.cuh"

namespace mstpp::cuda::portable {

template <class T>
struct FeedForwardParams {
  Map<const T> x;
  T* y;                    // same layout
  const float* weight1;    // FirstFactors (pack.h) with kParts and kC of FeedForwardShape
  const float* depthwise;  // [hidden / 16][9 taps and b1][16]
  const float* weight2;    // SecondFactors
  int channels, hidden;    // hidden: a multiple of 16
};

// kC for so many channels.
constexpr int FeedForwardWidth(int channels) {
  return channels <= 32 ? 32 : channels <= 64 ? 64 : 128;
}

template <int kTerms, int kC>
struct FeedForwardShape : Tile {
  // With many channels one block fills an SM: then two warps share the outputs of 16 pixels.
  static constexpr int kShares = kC > 64 ? 2 : 1, kWarps = 8 * kShares, kThreads = 32 * kWarps;
  static constexpr int kWide = kColumns + 2, kHigh = kRows + 2;
  static constexpr int kPixels = kWide * kHigh, kAll = 192;  // rounded up to whole products
  // In floats: LN(x) [slab][kAll][16], later the sums; 16 hidden channels of all pixels; the same
  // after the depthwise convolution; and of 16 hidden channels the weights: W1's, W2's, and twice
  // the depthwise convolution's and the bias.
  static constexpr int kHidden = kC * kAll;
  static constexpr int kFactors = kHidden + kSlab * kAll;
  static constexpr int kWeight1 = kFactors + kSlab * kColumns * kRows;
  static constexpr int kParts = kTerms == 3 ? 2 : 1, kWeightCount = kParts * kSlab * kC;
  static constexpr int kWeight2 = kWeight1 + kWeightCount;
  static constexpr int kDepthwise = kWeight2 + kWeightCount, kBias = 9 * kSlab;
  static constexpr int kDepthwiseCount = kBias + kSlab;
  static constexpr int kSharedBytes = 4 * (kDepthwise + 2 * kDepthwiseCount);
  static_assert(kSumsRow<kC> * kColumns * kRows <= kHidden, "the sums fit where LN(x) was");
};

template <int kTerms, int kC, class T>
class TileFeedForward {
  using Shape = FeedForwardShape<kTerms, kC>;
  // Tiles of eight pixels of a warp in First (of 16 warps twelve have some), kStep pixels apart,
  // and of eight outputs in Second.
  static constexpr int kTiles = Shape::kShares == 1 ? 3 : 2, kStep = Shape::kAll / kTiles;
  static constexpr int kOutputs = kC / 8 / Shape::kShares;
  static constexpr int kFactor = Shape::kParts * 128;  // floats of a warp's lanes

 public:
  MSTPP_DEVICE explicit TileFeedForward(const FeedForwardParams<T>& p)
      : p_(p),
        shared_(reinterpret_cast<float*>(SharedMemory())),
        g_((threadIdx.x & 31) >> 2),
        t_(threadIdx.x & 3),
        warp_(threadIdx.x >> 5) {
    const Tile tile(static_cast<int>(blockIdx.x), p.x.height, p.x.width);
    image_ = tile.image;
    row_ = tile.row;
    column_ = tile.column;
    outside_ = 0;
    for (int i = 0; i < 2 * kTiles; ++i) {
      if (!IsInside(SumPixel(i)) && SumPixel(i) < Shape::kPixels) outside_ |= 1u << i;
    }
  }

  MSTPP_DEVICE void Run() {
    FetchFirst(0);
    CopyCommit();
    Normalise();
    CopyWait<0>();
    __syncthreads();
    float sum[kOutputs][4] = {};
    MSTPP_NO_UNROLL
    for (int h = 0; h < p_.hidden; h += kSlab) {
      if (kTiles == 3 || warp_ < 12) First(h);
      __syncthreads();
      FetchSecond(h);
      if (h + kSlab < p_.hidden) FetchFirst(h + kSlab);
      CopyCommit();
      Depthwise(h);
      CopyWait<0>();
      __syncthreads();
      Second(sum);
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
  MSTPP_DEVICE static int Lane() { return threadIdx.x & 31; }
  // Pixel i of the tile with one around: its place in the image.
  MSTPP_DEVICE int RowOf(int i) const { return row_ - 1 + i / Shape::kWide; }
  MSTPP_DEVICE int ColumnOf(int i) const { return column_ - 1 + i % Shape::kWide; }
  MSTPP_DEVICE bool IsInside(int i) const {
    return i < Shape::kPixels && p_.x.Inside(RowOf(i), ColumnOf(i));
  }
  // Row or column i of a warp's tile in First is this pixel of it: so that eight lanes that load
  // two rows, and 16 that store their sums of four pixels, have even and odd ones.
  MSTPP_DEVICE static int PixelOf(int i) { return i % 2 == 0 ? i / 2 : 4 + (i / 2 ^ 1); }
  // The pixel of the lane's sums 2 i and 2 i + 1 in First.
  MSTPP_DEVICE int SumPixel(int i) const {
    return 8 * warp_ + kStep * (i / 2) + PixelOf(2 * t_ + i % 2);
  }
  // Where the lane's sums 2 i and 2 i + 1 go.
  MSTPP_DEVICE float* HiddenAt(int i) const {
    return shared_ + Shape::kHidden + SumPixel(i) * kSlab + 2 * g_;
  }

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
      float* to = shared_ + row * kSlab + 4 * t_;
      MSTPP_UNROLL
      for (int k = 0; k < kC / kSlab; ++k) {
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) v[k].v[i] *= scale;
        StoreFour(to + k * (kSlab * Shape::kAll), v[k]);
      }
    }
  }

  MSTPP_DEVICE float* DepthwiseWeights(int h) const {
    return shared_ + Shape::kDepthwise + (h / kSlab & 1) * Shape::kDepthwiseCount;
  }

  // Start to copy the weights of the hidden channels h to h + 15.
  MSTPP_DEVICE void FetchFirst(int h) const {
    Fetch<Shape::kWeightCount>(shared_ + Shape::kWeight1, p_.weight1, h);
    Fetch<Shape::kDepthwiseCount>(DepthwiseWeights(h), p_.depthwise, h);
  }
  MSTPP_DEVICE void FetchSecond(int h) const {
    Fetch<Shape::kWeightCount>(shared_ + Shape::kWeight2, p_.weight2, h);
  }
  template <int kCount>
  MSTPP_DEVICE static void Fetch(float* to, const float* weights, int h) {
    constexpr int kRound = 4 * Shape::kThreads;
    MSTPP_UNROLL
    for (int first = 0; first < kCount; first += kRound) {
      const int e = first + 4 * static_cast<int>(threadIdx.x);
      if (first + kRound > kCount && e >= kCount) break;
      CopyAsync(to + e, weights + (h * (kCount / kSlab) + e), true);
    }
  }

  // 16 hidden channels of all pixels, zeros outside the image.
  MSTPP_DEVICE void First(int h) const {
    const float* weights = shared_ + Shape::kWeight1 + 4 * Lane();
    const float* rows = shared_ + (8 * warp_ + PixelOf(g_)) * kSlab + 4 * t_;
    const float2 bias = LoadTwo(DepthwiseWeights(h) + Shape::kBias + 2 * g_);
    float sum[kTiles][4];
    MSTPP_UNROLL
    for (int i = 0; i < 4 * kTiles; ++i) sum[i / 4][i % 4] = i % 4 < 2 ? bias.x : bias.y;
    const int inputs = kC == 32 ? kC : p_.x.stride;
    MSTPP_NO_UNROLL
    for (int pair = 0; pair < inputs; pair += 2 * kSlab) {  // behind the inputs there are zeros
      MSTPP_UNROLL
      for (int k = 0; k < 2 * kSlab; k += kSlab) {
        SplitFactor<kTerms, 4> w[2];
        SplitFactor<kTerms, 2> x[kTiles][2];
        MSTPP_UNROLL
        for (int s = 0; s < 2; ++s) LoadRows(w[s], weights + (k / 8 + s) * kFactor, 128);
        MSTPP_UNROLL
        for (int m = 0; m < kTiles; ++m) {
          SetColumn(x[m], LoadFour(rows + k * Shape::kAll + kStep * m * kSlab));
        }
        Multiply<kTerms, kTiles>([&](int) { return w; }, [&](int m) { return x[m]; },
                                 [&](int m) { return sum[m]; });
      }
      weights += 4 * kFactor;
      rows += 2 * kSlab * Shape::kAll;
    }
    MSTPP_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      StoreTwo(HiddenAt(i), Gelu(sum[i / 2][i % 2]), Gelu(sum[i / 2][i % 2 + 2]));
    }
    if (outside_ == 0) return;
    MSTPP_NO_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      if (outside_ >> i & 1) StoreTwo(HiddenAt(i), 0.0f, 0.0f);
    }
  }

  // A thread takes two channels of four pixels, or with 16 warps of two, one below the other.
  MSTPP_DEVICE void Depthwise(int h) const {
    constexpr int kPixels = 4 / Shape::kShares;
    const int channel = threadIdx.x % 8 * 2, column = threadIdx.x / 8 % Shape::kColumns;
    const int row = static_cast<int>(threadIdx.x) / (8 * Shape::kColumns) * kPixels;
    const float* weights = DepthwiseWeights(h) + channel;
    const float* from = shared_ + Shape::kHidden + (row * Shape::kWide + column) * kSlab + channel;
    float2 weight[9], sum[kPixels] = {};
    MSTPP_UNROLL
    for (int tap = 0; tap < 9; ++tap) weight[tap] = LoadTwo(weights + tap * kSlab);
    MSTPP_UNROLL
    for (int y = 0; y < kPixels + 2; ++y) {
      MSTPP_UNROLL
      for (int x = 0; x < 3; ++x) {
        const float2 v = LoadTwo(from + (y * Shape::kWide + x) * kSlab);
        MSTPP_UNROLL
        for (int i = 0; i < kPixels; ++i) {
          if (y < i || y >= i + 3) continue;
          const float2 w = weight[(y - i) * 3 + x];
          sum[i] = make_float2(fmaf(v.x, w.x, sum[i].x), fmaf(v.y, w.y, sum[i].y));
        }
      }
    }
    float* to = shared_ + Shape::kFactors + (row * Shape::kColumns + column) * kSlab + channel;
    MSTPP_UNROLL
    for (int i = 0; i < kPixels; ++i) {
      StoreTwo(to + i * (Shape::kColumns * kSlab), Gelu(sum[i].x), Gelu(sum[i].y));
    }
  }

  // A warp takes 16 pixels, one row of the tile, and all outputs or half.
  MSTPP_DEVICE int Output() const { return warp_ / 8 * (8 * kOutputs); }
  MSTPP_DEVICE void Second(float (&sum)[kOutputs][4]) const {
    const float* rows = shared_ + Shape::kFactors + warp_ % 8 * 16 * kSlab + 4 * Lane();
    const float* weights = shared_ + Shape::kWeight2 + Output() / 8 * kFactor + 4 * Lane();
    SplitFactor<kTerms, 4> x[2];
    SetRows(x, LoadFour(rows), LoadFour(rows + 8 * kSlab));
    MSTPP_UNROLL
    for (int n = 0; n < kOutputs; n += kTogether) {
      SplitFactor<kTerms, 2> w[kTogether][2];
      MSTPP_UNROLL
      for (int i = 0; i < kTogether; ++i) LoadColumn(w[i], weights + (n + i) * kFactor, 128);
      Multiply<kTerms, kTogether>([&](int) { return x; }, [&](int i) { return w[i]; },
                                  [&](int i) { return sum[n + i]; });
    }
  }

  const FeedForwardParams<T>& p_;
  float* shared_;
  int g_, t_, warp_;
  int column_, row_, image_;
  unsigned outside_;  // bit i: the pixel of the sums 2 i and 2 i + 1 in First is not in the image
};

}  // namespace mstpp::cuda::portable
