// SPDX-License-Identifier: Apache-2.0
// 4 x 4 convolution with stride 2, zero padding 1, no bias, C to 2 C channels:
//
//   y[r, q] = sum over ky, kx of W[ky, kx] x[2 r - 1 + ky, 2 q - 1 + kx]
//
// Work: a block takes a strip of 16 output columns, `rows` output rows and 8 kTiles kWarps output
// channels; a warp 8 kTiles of these, with all their weights in registers. The rows come two at a
// time through a queue in shared memory that all warps read: the lower two taps of one output row
// and the upper two of the next.
#pragma once

#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda {

struct DownsampleParams {
  const void* x;       // images x height x width x C
  void* y;             // images x height/2 x width/2 x 2 C
  const void* weight;  // [2 C / (8 kTiles)][16 taps][C / 32][kTiles] tiles (PackThinTiles)
  int height, width;   // of the input; even
  int rows, strips, segments, images;
};

template <class Policy, int C, int kTiles>
struct DownsampleShape {
  using V = Vec<typename Policy::Pair>;
  using Stored = typename Policy::Stored;
  static constexpr int kGroups = C / 32;
  static constexpr int kWarps = 2 * C / (8 * kTiles) < 8 ? 2 * C / (8 * kTiles) : 8;
  static constexpr int kParts = 2 * C / (8 * kTiles * kWarps);  // blocks that share a strip
  static constexpr int kColumns = 36;                           // 34, in groups of four
  static constexpr int kPlane = kColumns * 64;
  static constexpr int kRowBytes = kGroups * kPlane * kWords<Stored>;
  static constexpr int kQueue = 3;  // pairs of rows
  static constexpr int kSharedBytes = kQueue * 2 * kRowBytes;
};

template <class Policy, int C, int kTiles>
class Downsample {
  using Shape = DownsampleShape<Policy, C, kTiles>;
  using Pair = typename Policy::Pair;
  using V = typename Shape::V;
  using Stored = typename Shape::Stored;
  static constexpr int kGroups = Shape::kGroups;
  static constexpr int kWarps = Shape::kWarps;
  static constexpr int kElement = sizeof(Stored) / 8;

 public:
  MSTPP_DEVICE explicit Downsample(const DownsampleParams& p)
      : p_(p), queue_(SharedMemory()), lane_(threadIdx.x & 31), g_(lane_ >> 2), t_(lane_ & 3) {
    const int part = blockIdx.x % Shape::kParts;
    const int item = blockIdx.x / Shape::kParts;
    part_ = part * kWarps + (threadIdx.x >> 5);
    strip_ = item % p.strips;
    row_begin_ = item / p.strips % p.segments * p.rows;
    row_end_ = min(row_begin_ + p.rows, p.height / 2);
    image_ = item / p.strips / p.segments;
  }

  MSTPP_DEVICE void Run() {
    V weight[4][4][kGroups][kTiles];
    MSTPP_UNROLL
    for (int i = 0; i < 16 * kGroups * kTiles; ++i) {
      (&weight[0][0][0][0])[i] = LoadWarpVec<V>(static_cast<const unsigned char*>(p_.weight),
                                                part_ * 16 * kGroups * kTiles + i, lane_);
    }
    float next[kTiles][4];
    MSTPP_UNROLL
    for (int j = 0; j < kTiles; ++j) next[j][0] = next[j][1] = next[j][2] = next[j][3] = 0.f;

    // Pair r holds the input rows 2 r + 1 and 2 r + 2.
    Fetch(row_begin_ - 1, 0);
    Fetch(row_begin_, 1);
    int slot = 0;
    MSTPP_NO_UNROLL
    for (int r = row_begin_ - 1; r < row_end_; ++r) {
      CopyWait<1>();
      __syncthreads();
      Fetch(r + 2, slot == 0 ? 2 : slot - 1);
      float sum[kTiles][4];
      MSTPP_UNROLL
      for (int j = 0; j < kTiles; ++j) {
        MSTPP_UNROLL
        for (int c = 0; c < 4; ++c) {
          sum[j][c] = next[j][c];
          next[j][c] = 0.0f;
        }
      }
      MSTPP_UNROLL
      for (int row = 0; row < 2; ++row) {
        MSTPP_UNROLL
        for (int k = 0; k < kGroups; ++k) {
          V x[6];
          MSTPP_UNROLL
          for (int i = 0; i < 6; ++i) {
            x[i] =
                Policy::Unpack(LoadVec<Stored>(Row(slot, row) + k * Shape::kPlane * kWords<Stored> +
                                                   ((i & 3) * 9 + g_ + (i >> 2)) * 64 + t_ * 16,
                                               Shape::kPlane));
          }
          MSTPP_UNROLL
          for (int kx = 0; kx < 4; ++kx) {
            const Rows<Pair> rows = MakeRows(x[kx], x[kx + 2]);
            MSTPP_UNROLL
            for (int j = 0; j < kTiles; ++j) {
              Policy::template MultiplyWide<false>(sum[j], rows, weight[2 + row][kx][k][j]);
              Policy::template MultiplyWide<false>(next[j], rows, weight[row][kx][k][j]);
            }
          }
        }
      }
      if (r >= row_begin_) Store(r, sum);
      slot = slot == 2 ? 0 : slot + 1;
    }
  }

 private:
  MSTPP_DEVICE unsigned char* Row(int slot, int row) const {
    return queue_ + (slot * 2 + row) * Shape::kRowBytes;
  }

  MSTPP_DEVICE void Fetch(int r, int slot) {
    constexpr int kVecs = 34 * 4 * kGroups;
    const char* x = static_cast<const char*>(p_.x) +
                    static_cast<size_t>(image_) * p_.height * p_.width * C * kElement;
    for (int i = threadIdx.x; i < 2 * kVecs; i += kWarps * 32) {
      const int row = i / kVecs, vec = i % kVecs;
      const int pixel = vec / (4 * kGroups), k = vec / 4 % kGroups, part = vec % 4;
      const int y = 2 * r + 1 + row, column = strip_ * 32 - 1 + pixel;
      const bool inside = r < row_end_ &&
                          static_cast<unsigned>(y) < static_cast<unsigned>(p_.height) &&
                          static_cast<unsigned>(column) < static_cast<unsigned>(p_.width);
      const size_t offset =
          inside ? (static_cast<size_t>(y) * p_.width + column) * C + 32 * k + 8 * part : 0;
      unsigned char* to = Row(slot, row) + k * Shape::kPlane * kWords<Stored> +
                          ((pixel & 3) * 9 + (pixel >> 2)) * 64 + part * 16;
      MSTPP_UNROLL
      for (int w = 0; w < kWords<Stored>; ++w) {
        CopyAsync(to + w * Shape::kPlane, x + offset * kElement + w * 16, inside);
      }
    }
    CopyCommit();
  }

  // A lane has the channels 2 kTiles t .. of this warp's: fewer than a Vec.
  MSTPP_DEVICE void Store(int r, const float (&sum)[kTiles][4]) const {
    const int width = p_.width / 2, column = strip_ * 16 + 2 * g_;
    char* out = static_cast<char*>(p_.y) +
                (((static_cast<size_t>(image_) * (p_.height / 2) + r) * width + column) * 2 * C +
                 part_ * 8 * kTiles + 2 * kTiles * t_) *
                    kElement;
    MSTPP_UNROLL
    for (int side = 0; side < 2; ++side) {
      if (column + side >= width) return;
      V vec = Zero<Pair>();
      MSTPP_UNROLL
      for (int j = 0; j < kTiles; ++j) Set(vec.pair[j], sum[j][2 * side], sum[j][2 * side + 1]);
      StoreChannels<2 * kTiles * kElement>(out + side * 2 * C * kElement, Policy::PackStored(vec));
    }
  }

  const DownsampleParams& p_;
  unsigned char* queue_;
  int lane_, g_, t_, part_, strip_, image_, row_begin_, row_end_;
};

}  // namespace mstpp::cuda
