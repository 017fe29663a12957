// SPDX-License-Identifier: Apache-2.0
// The rest of a spectral attention block, once its matrix M is known:
//
//   x1  = x + d + X M' + b_proj                      the attention's output; d from position.cuh
//   out = x1 + W2 GELU(dw3(GELU(W1' LN(x1) + b1)))   LN without gain, offset and mean: see Pack
//
// Work: a block of kWarps warps walks down a strip of 8 P columns, two rows at a time; where strips
// meet, their first and last column feed the 3 x 3 only. A warp owns 32 hidden channels: their part
// of W1 and W2 stays in its registers, and so do the hidden rows, from the first product through
// the depthwise convolution to the second. Only the ends of the chain are shared, through shared
// memory: LN(x1) comes in, and each warp's part of W2's sums goes out to the warp that finishes
// that slice of the outputs. A slice is one Vec a lane: pixel i of the lane's P, channels 32q..; it
// is the same slice of x1 that this warp has computed two rows ahead, so x1 for the residual waits
// where no other warp looks.
//
// If 32 kWarps < 4 C the block goes down its rows several times, hidden channels after hidden
// channels, adding to `out`.
#pragma once

#include "cuda/kernels/depthwise.cuh"

namespace mstpp::cuda {

struct FeedForwardParams {
  const void* x;          // images x height x width x C
  const void* d;          // the same
  void* out;              // the same
  const void* matrix;     // images of M, b_proj in its last column: tiles [C / 32][C / 32][4]
  const void* weight1;    // tiles [4 C / 32][C / 32][4], b1 in the last column
  const void* depthwise;  // [4 C / 32] of Depthwise::kWeightBytes
  const void* weight2;    // tiles [C / 32][4 C / 32][4]
  int channels;           // of the network, less than C
  float reciprocal_channels;
  int height, width, rows, strips, segments, images;  // rows: even
};

constexpr Sides kFeedForwardSides = Sides::kTensorCores;

template <int C, int P>
struct FeedForwardShape {
  static constexpr int kGroups = C / 32;      // of 32 channels
  static constexpr int kWarps = kGroups * P;  // also the number of slices
  static constexpr int kHidden = 32 * kWarps;
  static constexpr int kPasses = 4 * C / kHidden;
  static constexpr int kUseful = 8 * P - 2;
  static_assert(4 * C % kHidden == 0, "the hidden channels must divide among the warps");
  // Shared memory.
  static constexpr int kRow = kWarps * kWarpVecBytes;       // a row of x, d or LN(x1)
  static constexpr int kX = 0;                              // two rows
  static constexpr int kD = kX + 2 * kRow;                  // two rows
  static constexpr int kNormed = kD + 2 * kRow;             // two pairs of rows
  static constexpr int kParts = kNormed + 4 * kRow;         // two rows from kWarps warps
  static constexpr int kBase = kParts + 2 * kWarps * kRow;  // four rows of x1, for the residual
  static constexpr int kMatrix = kBase + 4 * kRow;
  static constexpr int kWeight2 = kMatrix + kGroups * kGroups * 4 * kWarpVecBytes;
  // W2 in shared memory where registers are short.
  static constexpr bool kSharedWeight2 = C != 64;
  using Dw = Depthwise<P, kFeedForwardSides>;
  static constexpr int kStats =
      kWeight2 + (kSharedWeight2 ? kWarps * kGroups * 4 * kWarpVecBytes : 0);
  static constexpr int kSharedBytes = kStats + (kGroups > 1 ? kWarps * 16 * 8 : 0);
};

template <int C, int P>
class FeedForward {
  using Shape = FeedForwardShape<C, P>;
  using Dw = typename Shape::Dw;
  static constexpr int kGroups = Shape::kGroups;
  static constexpr int kWarps = Shape::kWarps;
  static constexpr int kElement = 2;

 public:
  MSTPP_DEVICE explicit FeedForward(const FeedForwardParams& p)
      : p_(p),
        shared_(SharedMemory()),
        lane_(threadIdx.x & 31),
        warp_(threadIdx.x >> 5),
        pixel_(warp_ % P),
        group_(warp_ / P) {
    const int strip = blockIdx.x % p.strips;
    const int segment = blockIdx.x / p.strips % p.segments;
    image_ = blockIdx.x / p.strips / p.segments;
    row_begin_ = segment * p.rows;
    row_end_ = min(row_begin_ + p.rows, p.height);
    const int local = P * (lane_ >> 2) + pixel_;
    column_ = strip * Shape::kUseful + local;
    ends_ = {strip == 0, strip == p.strips - 1};
    in_columns_ = static_cast<unsigned>(column_) < static_cast<unsigned>(p.width);
    stores_ = in_columns_ && (local > 0 || ends_.first) && (local < 8 * P - 1 || ends_.last);
    image_offset_ = static_cast<size_t>(image_) * p.height * p.width * C;
  }

  MSTPP_DEVICE void Run() {
    const auto* matrix = static_cast<const uint4*>(p_.matrix) +
                         static_cast<size_t>(image_) * kGroups * kGroups * 4 * sizeof(HalfVec) * 2;
    CopyWords(Shape::kMatrix, matrix, kGroups * kGroups * 4 * kWarpVecBytes);
    MSTPP_NO_UNROLL
    for (int pass = 0; pass < Shape::kPasses; ++pass) {
      Pass(pass);
      __syncthreads();
    }
  }

 private:
  MSTPP_DEVICE void CopyWords(int offset, const uint4* source, int bytes) {
    for (int i = threadIdx.x; i < bytes / 16; i += kWarps * 32) {
      reinterpret_cast<uint4*>(shared_ + offset)[i] = source[i];
    }
  }

  // x1 of row y.
  MSTPP_DEVICE unsigned char* Base(int y) const {
    return shared_ + Shape::kBase + ((y + 1) & 3) * Shape::kRow;
  }

  // Of this lane's pixel in row y, in bytes.
  MSTPP_DEVICE ptrdiff_t Offset(int y) const {
    return (static_cast<ptrdiff_t>(image_offset_) +
            (static_cast<ptrdiff_t>(y) * p_.width + column_) * C + 32 * group_ + 8 * (lane_ & 3)) *
           kElement;
  }

  // Starts the copy of this warp's slice of x and d in the rows y and y + 1.
  MSTPP_DEVICE void Fetch(int y) {
    const ptrdiff_t pitch = static_cast<ptrdiff_t>(p_.width) * C * kElement;
    ptrdiff_t offset = Offset(y);
    const int at = warp_ * kWarpVecBytes + PieceOffset(lane_);
    MSTPP_UNROLL
    for (int r = 0; r < 2; ++r, offset += pitch) {
      const bool inside =
          in_columns_ && static_cast<unsigned>(y + r) < static_cast<unsigned>(p_.height);
      CopyAsync(shared_ + Shape::kX + r * Shape::kRow + at, static_cast<const char*>(p_.x) + offset,
                inside);
      CopyAsync(shared_ + Shape::kD + r * Shape::kRow + at, static_cast<const char*>(p_.d) + offset,
                inside);
    }
    CopyCommit();
  }

  // x1 of this warp's slice in the two rows fetched last.
  MSTPP_DEVICE void Attend(float (&x1)[4][4]) {
    const RowsLoader loader(lane_, Shape::kRow);
    const auto rows = [&](int source, int slice) {
      return loader.Load(shared_ + source + slice * kWarpVecBytes);
    };
    MSTPP_UNROLL
    for (int k = 0; k < kGroups; ++k) {
      const Rows x = rows(Shape::kX, k * P + pixel_);
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        const HalfVec m =
            LoadWarpVec(shared_ + Shape::kMatrix, (group_ * kGroups + k) * 4 + j, lane_);
        if (k == 0) {
          MultiplyWide<true>(x1[j], x, m);
        } else {
          MultiplyWide<false>(x1[j], x, m);
        }
      }
    }
    AddWide(x1, rows(Shape::kX, warp_), lane_);
    AddWide(x1, rows(Shape::kD, warp_), lane_);
  }

  // Mean and sum of squared deviations of the lane quad's 32 channels, of which `count` are the
  // network's and the last of all, if here, is 1.
  MSTPP_DEVICE static void Moments(const float (&x1)[4][4], int row, int count, float& mean,
                                   float& deviation) {
    const float last = count < 32 ? 1.0f : 0.0f;
    float sum = 0.0f;
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) sum += x1[j][2 * row] + x1[j][2 * row + 1];
    sum += ShuffleXor(sum, 1);
    sum += ShuffleXor(sum, 2);
    mean = (sum - last) * Reciprocal(static_cast<float>(count));
    float squares = 0.0f;
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      const float a = x1[j][2 * row] - mean, b = x1[j][2 * row + 1] - mean;
      squares = fmaf(a, a, fmaf(b, b, squares));
    }
    squares += ShuffleXor(squares, 1);
    squares += ShuffleXor(squares, 2);
    const float zeros = static_cast<float>(32 - count) - last;
    deviation = squares - zeros * mean * mean - last * (1.0f - mean) * (1.0f - mean);
  }

  MSTPP_DEVICE int Count(int group) const { return min(32, p_.channels - 32 * group); }

  // Moments of this warp's 32 channels, for the warps that have the pixel's other channels.
  MSTPP_DEVICE void ShareMoments(const float (&mean)[2], const float (&deviation)[2]) {
    if (kGroups == 1 || (lane_ & 3) != 0) return;
    float* stats = reinterpret_cast<float*>(shared_ + Shape::kStats) + warp_ * 32;
    MSTPP_UNROLL
    for (int r = 0; r < 2; ++r) {
      stats[(r * 8 + (lane_ >> 2)) * 2] = mean[r];
      stats[(r * 8 + (lane_ >> 2)) * 2 + 1] = deviation[r];
    }
  }
  MSTPP_DEVICE void CombineMoments(int row, float& mean, float& deviation) const {
    if constexpr (kGroups > 1) {
      const float* stats = reinterpret_cast<const float*>(shared_ + Shape::kStats) + pixel_ * 32 +
                           (row * 8 + (lane_ >> 2)) * 2;
      mean = 0.0f;
      MSTPP_UNROLL
      for (int k = 0; k < kGroups; ++k) mean += stats[k * P * 32] * static_cast<float>(Count(k));
      mean *= p_.reciprocal_channels;
      deviation = 0.0f;
      MSTPP_UNROLL
      for (int k = 0; k < kGroups; ++k) {
        const float shift = stats[k * P * 32] - mean;
        deviation += stats[k * P * 32 + 1] + static_cast<float>(Count(k)) * shift * shift;
      }
    }
  }

  // x1 over its standard deviation, of this warp's slice, for all warps; that the mean is taken off
  // is in W1'. The last channel says whether the pixel is inside. Also keeps x1 itself.
  MSTPP_DEVICE void Normalise(const float (&x1)[4][4], int y, int pair, const float (&mean)[2],
                              const float (&deviation)[2]) {
    HalfVec rows[2];
    Narrow(x1, rows[0], rows[1]);
    MSTPP_UNROLL
    for (int r = 0; r < 2; ++r) {
      float m = mean[r], v = deviation[r];
      CombineMoments(r, m, v);
      StoreBlocks(Base(y + r) + warp_ * kWarpVecBytes, lane_, rows[r]);
      const bool inside =
          in_columns_ && static_cast<unsigned>(y + r) < static_cast<unsigned>(p_.height);
      const float scale = inside ? ReciprocalSqrt(fmaf(v, p_.reciprocal_channels, 1e-5f)) : 0.0f;
      HalfPair factor;
      Set(factor, scale, scale);
      HalfVec normed;
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) normed.pair[j] = Mul(rows[r].pair[j], factor);
      if (group_ == kGroups - 1 && (lane_ & 3) == 3) {
        SetHigh(normed.pair[3], inside ? 1.0f : 0.0f);
      }
      StoreBlocks(shared_ + Shape::kNormed + (pair * 2 + r) * Shape::kRow + warp_ * kWarpVecBytes,
                  lane_, normed);
    }
  }

  struct Weights {
    HalfVec first[kGroups][4];  // W1: this warp's 32 hidden channels from all C
    // W2: all C outputs from this warp's 32 hidden channels
    HalfVec second[Shape::kSharedWeight2 ? 1 : kGroups][4];
  };

  MSTPP_DEVICE void LoadWeights(int pass, Weights& w) const {
    const int hidden = pass * kWarps + warp_;
    const auto* first = static_cast<const unsigned char*>(p_.weight1);
    const auto* second = static_cast<const unsigned char*>(p_.weight2);
    MSTPP_UNROLL
    for (int k = 0; k < kGroups; ++k) {
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        w.first[k][j] = LoadWarpVec(first, (hidden * kGroups + k) * 4 + j, lane_);
        const HalfVec tile = LoadWarpVec(second, (k * C / 8 + hidden) * 4 + j, lane_);
        if constexpr (Shape::kSharedWeight2) {
          StoreWarpVec(shared_ + Shape::kWeight2, (warp_ * kGroups + k) * 4 + j, lane_, tile);
        } else {
          w.second[k][j] = tile;
        }
      }
    }
  }

  // Takes row `row` of pair `pair` of LN(x1) through the hidden layers and, unless `warming`,
  // leaves this warp's part of the outputs of the row above in shared memory.
  MSTPP_DEVICE void Hidden(int pair, int row, bool warming, const Weights& w, Dw& depthwise) {
    const unsigned char* normed = shared_ + Shape::kNormed + (pair * 2 + row) * Shape::kRow;
    const RowsLoader loader(lane_, kPixelStep<P> * kWarpVecBytes);
    HalfPair hidden[4][P];
    MSTPP_UNROLL
    for (int k = 0; k < kGroups; ++k) {
      Rows x[kPixelStep<P>];
      MSTPP_UNROLL
      for (int i = 0; i < kPixelStep<P>; ++i) {
        x[i] = loader.Load(normed + (k * P + i) * kWarpVecBytes);
      }
      if (k == 0) {
        Multiply<true>(hidden, x, w.first[k]);
      } else {
        Multiply<false>(hidden, x, w.first[k]);
      }
    }
    // Pairs one after the other, a step apart: while GELU has one the tensor cores have the next.
    HalfPair above[4][P];
    MSTPP_UNROLL
    for (int j = 0; j < 6; ++j) {
      if (j < 4) Gelu(hidden[j]);
      if (j >= 1 && j < 5) depthwise.Add(j - 1, hidden[j - 1], lane_, ends_, above[j - 1]);
      if (j >= 2) Gelu(above[j - 2]);
    }
    if (warming) return;
    Rows x[kPixelStep<P>];
    MSTPP_UNROLL
    for (int i = 0; i < kPixelStep<P>; ++i) {
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        x[i].a[j >> 1][2 * (j & 1)] = above[j][i];
        x[i].a[j >> 1][2 * (j & 1) + 1] = above[j][i + kPixelStep<P>];
      }
    }
    unsigned char* parts = shared_ + Shape::kParts + row * kWarps * Shape::kRow;
    MSTPP_UNROLL
    for (int k = 0; k < kGroups; ++k) {
      HalfVec second[4];
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        if constexpr (Shape::kSharedWeight2) {
          second[j] = LoadWarpVec(shared_ + Shape::kWeight2, (warp_ * kGroups + k) * 4 + j, lane_);
        } else {
          second[j] = w.second[k][j];
        }
      }
      HalfPair part[4][P];
      Multiply<true>(part, x, second);
      MSTPP_UNROLL
      for (int i = 0; i < P; ++i) {
        StoreWarpVec(parts, (k * P + i) * kWarps + warp_, lane_,
                     {{part[0][i], part[1][i], part[2][i], part[3][i]}});
      }
    }
  }

  // Sums the warps' parts of this warp's slice of output row y, in the order of the warps.
  MSTPP_DEVICE void Finish(int y, int row, int pass) {
    if (!stores_ || y < row_begin_ || y >= row_end_) return;
    const unsigned char* parts = shared_ + Shape::kParts + row * kWarps * Shape::kRow;
    HalfVec part[kWarps];
    MSTPP_UNROLL
    for (int i = 0; i < kWarps; ++i) part[i] = LoadWarpVec(parts, warp_ * kWarps + i, lane_);
    MSTPP_UNROLL
    for (int step = 1; step < kWarps; step *= 2) {
      MSTPP_UNROLL
      for (int i = 0; i < kWarps; i += 2 * step) {
        MSTPP_UNROLL
        for (int j = 0; j < 4; ++j) {
          part[i].pair[j] = Add(part[i].pair[j], part[i + step].pair[j]);
        }
      }
    }
    unsigned char* out = static_cast<unsigned char*>(p_.out) + Offset(y);
    const HalfVec base =
        LoadVec(pass == 0 ? Base(y) + warp_ * kWarpVecBytes + PieceOffset(lane_) : out);
    HalfVec sum;
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) sum.pair[j] = Add(base.pair[j], part[0].pair[j]);
    StoreVec(out, sum);
  }

  MSTPP_DEVICE void Pass(int pass) {
    Weights weights;
    LoadWeights(pass, weights);
    Dw depthwise;
    depthwise.Load(p_.depthwise, pass * kWarps + warp_, lane_);

    float x1[4][4], mean[2], deviation[2];
    const auto attend = [&] {
      Attend(x1);
      MSTPP_UNROLL
      for (int r = 0; r < 2; ++r) Moments(x1, r, Count(group_), mean[r], deviation[r]);
      ShareMoments(mean, deviation);
    };

    int y = row_begin_ - 1;
    Fetch(y);
    CopyWait<0>();
    __syncthreads();
    attend();
    __syncthreads();
    Normalise(x1, y, 0, mean, deviation);
    Fetch(y + 2);
    CopyWait<0>();
    __syncthreads();

    MSTPP_NO_UNROLL
    for (int pair = 0; y <= row_end_; y += 2, pair ^= 1) {
      const bool warming = y < row_begin_, more = y + 2 <= row_end_;
      Hidden(pair, 0, warming, weights, depthwise);
      if (more) attend();
      __syncthreads();
      Finish(y - 1, 0, pass);
      if (more) {
        Normalise(x1, y + 2, pair ^ 1, mean, deviation);
        Fetch(y + 4);
      }
      Hidden(pair, 1, warming, weights, depthwise);
      CopyWait<0>();
      __syncthreads();
      Finish(y, 1, pass);
    }
  }

  const FeedForwardParams& p_;
  unsigned char* shared_;
  int lane_, warp_, pixel_, group_, image_, row_begin_, row_end_, column_;
  StripEnds ends_;
  bool in_columns_, stores_;
  size_t image_offset_;
};

}  // namespace mstpp::cuda
