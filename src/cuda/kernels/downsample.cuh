// SPDX-License-Identifier: Apache-2.0
// 4 x 4 convolution with stride 2, zero padding 1, no bias, C to 2 C channels (FP16, sums in FP32):
//
//   y[r, q] = sum over ky, kx of W[ky, kx] x[2 r - 1 + ky, 2 q - 1 + kx]
//
// Work: a block takes a strip of 32 output columns, `rows` output rows and 64 output channels; each
// of its warps sixteen of these and 32 input channels, whose weights for all sixteen taps fill half
// of its registers. With 64 input channels two warps so share outputs: each keeps half the columns,
// gives its sums of the others to its partner through shared memory and adds what it is given.
//
// The input comes through a queue in shared memory two rows at a time: the lower two taps of one
// output row and the upper two of the next, whose sums are under way together. A row lies there as
// its even and its odd columns, so that the pixels of one tap are neighbours.
#pragma once

#include "cuda/kernels/weight_rows.cuh"

namespace mstpp::cuda {

struct DownsampleParams {
  const void* x;       // images x height x width x C
  void* y;             // images x height/2 x width/2 x 2 C
  const void* weight;  // rows [2 C / 16][16 taps][C / 16] (Packer::Rows, kQuads, kVecs)
  int height, width;   // of the input; even
  int rows, strips, segments, images;
};

template <int C>
struct DownsampleShape {
  static constexpr int kGroups = C / 32;  // of input channels
  static constexpr int kWarps = 4 * kGroups;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kParts = 2 * C / 64;    // blocks that share a strip
  static constexpr int kColumns = 32;          // of output
  static constexpr int kTiles = kColumns / 8;  // of pixels
  static constexpr int kKept = kTiles / kGroups;
  // A row of the queue: for every group of channels the even columns, then the odd. 64 bytes more
  // keep what is copied at a time in different banks.
  static constexpr int kParityBytes = (kColumns + 1) * 64;
  static constexpr int kPlaneBytes = 2 * kParityBytes + 64;
  static constexpr int kPairBytes = 2 * kGroups * kPlaneBytes;
  static constexpr int kQueue = 4;  // pairs of rows, a power of two
  // Sums that are given away, of the last row and the one before.
  static constexpr int kGivenBytes = (kTiles - kKept) * 512;  // of a warp
  static constexpr int kSharedBytes = kQueue * kPairBytes + 2 * kWarps * kGivenBytes;
};

template <int C>
class Downsample {
  using Shape = DownsampleShape<C>;
  static constexpr int kGroups = Shape::kGroups;
  static constexpr int kTiles = Shape::kTiles, kKept = Shape::kKept;
  static constexpr int kChunks = C / 8;  // of 16 bytes in an input pixel
  static constexpr int kRowBytes = Shape::kPairBytes / 2;

 public:
  MSTPP_DEVICE explicit Downsample(const DownsampleParams& p)
      : p_(p), lane_(threadIdx.x & 31), warp_(threadIdx.x >> 5), group_(warp_ % kGroups) {
    const int item = static_cast<int>(blockIdx.x) / Shape::kParts;
    sixteen_ = static_cast<int>(blockIdx.x) % Shape::kParts * 4 + warp_ / kGroups;
    const int column = item % p.strips * Shape::kColumns;
    const int segment = item / p.strips, image = segment / p.segments;
    row_begin_ = segment % p.segments * p.rows;
    row_end_ = min(row_begin_ + p.rows, p.height / 2);

    const int width = p.width / 2, thread = threadIdx.x;
    const int first = column + group_ * kKept * 8 + (lane_ >> 2);
    row_bytes_ = static_cast<int64_t>(p.width) * (2 * C);
    store_ = (static_cast<int64_t>(image) * (p.height / 2) + row_begin_) * row_bytes_ +
             first * (4 * C) + sixteen_ * 32 + (lane_ & 3) * 8;
    columns_ = 0;
    for (int n = 0; n < kKept; ++n) {
      if (first + 8 * n < width) columns_ |= kStoreBit << n;
    }

    // The block copies 32 of a row's 66 pixels at a time; some threads one of the last two.
    const int pixel = thread / kChunks, chunk = thread % kChunks;
    const int x = 2 * column - 1 + pixel;
    const int rest = 64 + (pixel & 1), rest_row = pixel >> 1 & 1;
    fetch_ = (static_cast<int64_t>(image) * p.height + 2 * row_begin_ - 1) * row_bytes_ +
             x * (2 * C) + chunk * 16;
    to_ = InRow(pixel, chunk);
    rest_ = (rest_row * p.width + rest - pixel) * (2 * C);
    rest_to_ = rest_row * kRowBytes + InRow(rest, chunk);
    if (x >= 0 && x < p.width) columns_ |= kInputBit;
    if (x + 32 < p.width) columns_ |= kInputBit << 1;
    if (x - pixel + rest < p.width) columns_ |= kInputBit << (2 + rest_row);
  }

  MSTPP_DEVICE void Run() {
    MSTPP_UNROLL
    for (int i = 0; i < 32; ++i) {
      (&weight_[0][0][0])[i] =
          LoadWeightRows(p_.weight, (sixteen_ * 16 + i / 2) * (C / 16) + 2 * group_ + i % 2, lane_);
    }
    WaitForKernelsBefore();
    for (int r = row_begin_ - 1; r < row_begin_ + 2; ++r) Fetch(r);
    Step<false, true>(row_begin_ - 1);
    MSTPP_NO_UNROLL
    for (int r = row_begin_; r < row_end_ - 1; ++r) Step<true, true>(r);
    Step<true, false>(row_end_ - 1);
    if constexpr (kGroups > 1) {
      __syncthreads();
      AddGiven(row_end_ - 1);
      Store(kept_);
    }
  }

 private:
  // The bits of columns_: input, of a row's pixels, and of the first or second row's last.
  static constexpr unsigned kStoreBit = 1, kInputBit = 16;

  MSTPP_DEVICE static int InRow(int pixel, int chunk) {
    return chunk / 4 * Shape::kPlaneBytes + (pixel & 1) * Shape::kParityBytes + (pixel >> 1) * 64 +
           chunk % 4 * 16;
  }

  MSTPP_DEVICE static unsigned char* Pair(int r) {
    return SharedMemory() + (r & (Shape::kQueue - 1)) * Shape::kPairBytes;
  }

  // Pair r, the input rows 2 r + 1 and 2 r + 2, after the pair before.
  MSTPP_DEVICE void Fetch(int r) {
    if (r < row_end_) {
      const auto* from = static_cast<const unsigned char*>(p_.x) + fetch_;
      unsigned char* to = Pair(r);
      const unsigned upper = r >= 0 ? columns_ : 0u;
      const unsigned lower = 2 * r + 2 < p_.height ? columns_ : 0u;
      CopyAsync(to + to_, from, upper & kInputBit);
      CopyAsync(to + to_ + 1024, from + 64 * C, upper & kInputBit << 1);
      CopyAsync(to + to_ + kRowBytes, from + row_bytes_, lower & kInputBit);
      CopyAsync(to + to_ + kRowBytes + 1024, from + row_bytes_ + 64 * C, lower & kInputBit << 1);
      if (static_cast<int>(threadIdx.x) < 4 * kChunks) {
        CopyAsync(to + rest_to_, from + rest_, (upper & kInputBit << 2) | (lower & kInputBit << 3));
      }
    }
    fetch_ += 2 * row_bytes_;
    CopyCommit();
  }

  // Adds pair r to the sums. kHere: output row r is wanted, and finished. kBelow: the next is.
  template <bool kHere, bool kBelow>
  MSTPP_DEVICE void Step(int r) {
    CopyWait<Shape::kQueue - 2>();
    __syncthreads();
    Fetch(r + Shape::kQueue - 1);
    if constexpr (kGroups > 1) {
      if (r > row_begin_) {
        AddGiven(r - 1);
        Store(kept_);
      }
    }
    // The tiles that the warp keeps come first.
    const unsigned char* pair = Pair(r) + group_ * Shape::kPlaneBytes + lane_ * 16;
    const unsigned char* first = pair + group_ * kKept * 512;
    const unsigned char* second = pair + (kGroups > 1 ? (1 - group_) * kKept * 512 : 0);
    float sum[kTiles][4], zero[4] = {};
    MSTPP_UNROLL
    for (int row = 0; row < 2; ++row) {
      MSTPP_UNROLL
      for (int kx = 0; kx < 4; ++kx) {
        const int at = row * kRowBytes + (kx & 1) * Shape::kParityBytes + (kx >> 1) * 64;
        HalfVec x[kTiles];
        MSTPP_UNROLL
        for (int n = 0; n < kTiles; ++n) {
          x[n] = LoadVec<HalfVec>((n < kKept ? first + n * 512 : second + (n - kKept) * 512) + at);
        }
        MSTPP_UNROLL
        for (int s = 0; s < 2; ++s) {
          const bool begins = row == 0 && kx == 0 && s == 0;
          MSTPP_UNROLL
          for (int n = 0; n < kTiles; ++n) {
            const HalfPair x0 = x[n].pair[2 * s], x1 = x[n].pair[2 * s + 1];
            float(&here)[4] = sum[n];
            float(&below)[4] = below_[n];
            if (kHere) Multiply(here, weight_[2 + row][kx][s], x0, x1, begins ? below : here);
            if (kBelow) Multiply(below, weight_[row][kx][s], x0, x1, begins ? zero : below);
          }
        }
      }
    }
    if constexpr (kHere && kGroups == 1) Store(sum);
    if constexpr (kHere && kGroups > 1) Give(r, sum);
  }

  MSTPP_DEVICE static float4* Given(int r, int warp) {
    unsigned char* given = SharedMemory() + Shape::kQueue * Shape::kPairBytes;
    return reinterpret_cast<float4*>(given + ((r & 1) * Shape::kWarps + warp) * Shape::kGivenBytes);
  }

  MSTPP_DEVICE void Give(int r, const float (&sum)[kTiles][4]) {
    float4* to = Given(r, warp_ ^ 1) + lane_;
    MSTPP_UNROLL
    for (int n = 0; n < kKept; ++n) {
      const float(&give)[4] = sum[(kKept + n) % kTiles];
      to[n * 32] = make_float4(give[0], give[1], give[2], give[3]);
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) kept_[n][i] = sum[n][i];
    }
  }

  MSTPP_DEVICE void AddGiven(int r) {
    const float4* from = Given(r, warp_) + lane_;
    MSTPP_UNROLL
    for (int n = 0; n < kKept; ++n) {
      const float4 other = from[n * 32];
      kept_[n][0] += other.x;
      kept_[n][1] += other.y;
      kept_[n][2] += other.z;
      kept_[n][3] += other.w;
    }
  }

  // Row after row: four channels of a pixel a lane.
  template <int kCount>
  MSTPP_DEVICE void Store(const float (&sum)[kCount][4]) {
    auto* to = static_cast<unsigned char*>(p_.y) + store_;
    MSTPP_UNROLL
    for (int n = 0; n < kKept; ++n) {
      HalfPair first, second;
      TurnToPixels(sum[n], first, second);
      if (columns_ & kStoreBit << n) {
        *reinterpret_cast<uint2*>(to + n * 8 * 4 * C) = make_uint2(first.bits, second.bits);
      }
    }
    store_ += row_bytes_;
  }

  const DownsampleParams& p_;
  WeightRows weight_[4][4][2];
  float below_[kTiles][4], kept_[kKept][4];
  int lane_, warp_, group_, sixteen_, row_begin_, row_end_;
  int64_t row_bytes_;      // of the input, and of the output: as many
  int64_t fetch_, store_;  // the thread's next
  int rest_;               // from fetch_
  int to_, rest_to_;       // in a pair of the queue
  unsigned columns_;       // which of the thread's columns are inside
};

}  // namespace mstpp::cuda
