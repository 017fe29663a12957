// SPDX-License-Identifier: Apache-2.0
// 2 x 2 transposed convolution with stride 2 and the 1 x 1 convolution over its concatenation with
// the skip, folded into one product a pixel:
//
//   y[2 r + a, 2 q + b] = F1 Wup[a, b]' x[r, q] + F2 skip[2 r + a, 2 q + b] + F1 b_up
//
// x has 2 C channels, skip and y have C. The bias is in the column of the skip's last channel.
//
// Work: a warp takes a strip of 16 columns of x, `rows` rows and 8 kTiles output channels, with all
// their weights in registers, and needs no other warp; a row of x and the two of the skip it needs
// come through a private queue in shared memory.
#pragma once

#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda {

struct UpsampleFuseParams {
  const void* x;            // images x height x width x 2 C
  const void* skip;         // images x 2 height x 2 width x C
  void* y;                  // the same
  const void* weight;       // [C / (8 kTiles)][4 (a, b)][2 C / 32][kTiles] tiles (PackThinTiles)
  const void* skip_weight;  // [C / (8 kTiles)][C / 32][kTiles] tiles
  int height, width;        // of x
  int rows, strips, segments, images;
};

template <class Policy, int C, int kTiles>
struct UpsampleFuseShape {
  using V = Vec<typename Policy::Pair>;
  using Stored = typename Policy::Stored;
  static constexpr int kGroups = C / 32;
  static constexpr int kParts = C / (8 * kTiles);
  static constexpr int kVecs = 2 * 2 * kGroups + 2 * 4 * kGroups;  // a lane's, a row of x
  static constexpr int kRowBytes = kVecs * kWarpVecBytes<Stored>;
  static constexpr int SharedBytes(int warps) { return warps * 2 * kRowBytes; }
};

template <class Policy, int C, int kTiles, int kWarps>
class UpsampleFuse {
  using Shape = UpsampleFuseShape<Policy, C, kTiles>;
  using Pair = typename Policy::Pair;
  using V = typename Shape::V;
  using Stored = typename Shape::Stored;
  static constexpr int kGroups = Shape::kGroups;
  static constexpr int kElement = sizeof(Stored) / 8;

 public:
  MSTPP_DEVICE explicit UpsampleFuse(const UpsampleFuseParams& p)
      : p_(p), lane_(threadIdx.x & 31), g_(lane_ >> 2), t_(lane_ & 3) {
    const int warp = threadIdx.x >> 5;
    queue_ = SharedMemory() + warp * 2 * Shape::kRowBytes;
    const int item = blockIdx.x * kWarps + warp;
    part_ = item % Shape::kParts;
    column_ = item / Shape::kParts % p.strips * 16 + 2 * g_;
    row_begin_ = item / Shape::kParts / p.strips % p.segments * p.rows;
    row_end_ = min(row_begin_ + p.rows, p.height);
    image_ = item / Shape::kParts / p.strips / p.segments;
  }

  MSTPP_DEVICE void Run() {
    if (image_ >= p_.images) return;
    V weight[4][2 * kGroups][kTiles], skip_weight[kGroups][kTiles];
    MSTPP_UNROLL
    for (int i = 0; i < 8 * kGroups * kTiles; ++i) {
      (&weight[0][0][0])[i] = LoadWarpVec<V>(static_cast<const unsigned char*>(p_.weight),
                                             part_ * 8 * kGroups * kTiles + i, lane_);
    }
    MSTPP_UNROLL
    for (int i = 0; i < kGroups * kTiles; ++i) {
      (&skip_weight[0][0])[i] = LoadWarpVec<V>(static_cast<const unsigned char*>(p_.skip_weight),
                                               part_ * kGroups * kTiles + i, lane_);
    }
    Fetch(row_begin_);
    MSTPP_NO_UNROLL
    for (int r = row_begin_; r < row_end_; ++r) {
      Fetch(r + 1);
      CopyWait<1>();
      const unsigned char* row = Row(r);
      Rows<Pair> x[2 * kGroups];
      MSTPP_UNROLL
      for (int k = 0; k < 2 * kGroups; ++k) x[k] = Load(row, k * 2, k * 2 + 1);
      MSTPP_UNROLL
      for (int a = 0; a < 2; ++a) {
        MSTPP_UNROLL
        for (int b = 0; b < 2; ++b) {
          float sum[kTiles][4];
          MSTPP_UNROLL
          for (int k = 0; k < kGroups; ++k) {
            // The lane's skip pixels are its x pixels' children: columns b and 2 + b of four.
            const int first = 4 * kGroups + (a * kGroups + k) * 4;
            const Rows<Pair> skip = Load(row, first + b, first + 2 + b);
            MSTPP_UNROLL
            for (int j = 0; j < kTiles; ++j) {
              if (k == 0) {
                Policy::template MultiplyWide<true>(sum[j], skip, skip_weight[k][j]);
              } else {
                Policy::template MultiplyWide<false>(sum[j], skip, skip_weight[k][j]);
              }
            }
          }
          MSTPP_UNROLL
          for (int k = 0; k < 2 * kGroups; ++k) {
            MSTPP_UNROLL
            for (int j = 0; j < kTiles; ++j) {
              Policy::template MultiplyWide<false>(sum[j], x[k], weight[2 * a + b][k][j]);
            }
          }
          Store(2 * r + a, b, sum);
        }
      }
    }
  }

 private:
  MSTPP_DEVICE unsigned char* Row(int r) const { return queue_ + (r & 1) * Shape::kRowBytes; }

  MSTPP_DEVICE Rows<Pair> Load(const unsigned char* row, int lo, int hi) const {
    return MakeRows(Policy::Unpack(LoadWarpVec<Stored>(row, lo, lane_)),
                    Policy::Unpack(LoadWarpVec<Stored>(row, hi, lane_)));
  }

  MSTPP_DEVICE void Copy(unsigned char* to, const void* map, size_t offset, bool inside) const {
    const char* from = static_cast<const char*>(map) + (inside ? offset * kElement : 0);
    MSTPP_UNROLL
    for (int w = 0; w < kWords<Stored>; ++w) {
      CopyAsync(to + w * 512 + lane_ * 16, from + w * 16, inside);
    }
  }

  // Every lane copies what it will read itself: two pixels of x, eight of the skip.
  MSTPP_DEVICE void Fetch(int r) const {
    unsigned char* to = Row(r);
    const bool row_inside = r < row_end_;
    MSTPP_UNROLL
    for (int k = 0; k < 2 * kGroups; ++k) {
      MSTPP_UNROLL
      for (int i = 0; i < 2; ++i) {
        const size_t at = (static_cast<size_t>(image_) * p_.height + r) * p_.width + column_ + i;
        Copy(to, p_.x, at * 2 * C + 32 * k + 8 * t_, row_inside && column_ + i < p_.width);
        to += kWarpVecBytes<Stored>;
      }
    }
    MSTPP_UNROLL
    for (int a = 0; a < 2; ++a) {
      MSTPP_UNROLL
      for (int k = 0; k < kGroups; ++k) {
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) {
          const size_t at =
              (static_cast<size_t>(image_) * 2 * p_.height + 2 * r + a) * 2 * p_.width +
              2 * column_ + i;
          Copy(to, p_.skip, at * C + 32 * k + 8 * t_, row_inside && 2 * column_ + i < 2 * p_.width);
          to += kWarpVecBytes<Stored>;
        }
      }
    }
    CopyCommit();
  }

  MSTPP_DEVICE void Store(int y, int b, const float (&sum)[kTiles][4]) const {
    MSTPP_UNROLL
    for (int side = 0; side < 2; ++side) {
      if (column_ + side >= p_.width) return;
      V vec = Zero<Pair>();
      MSTPP_UNROLL
      for (int j = 0; j < kTiles; ++j) Set(vec.pair[j], sum[j][2 * side], sum[j][2 * side + 1]);
      const size_t at = (static_cast<size_t>(image_) * 2 * p_.height + y) * 2 * p_.width +
                        2 * (column_ + side) + b;
      StoreChannels<2 * kTiles * kElement>(
          static_cast<char*>(p_.y) + (at * C + part_ * 8 * kTiles + 2 * kTiles * t_) * kElement,
          Policy::PackStored(vec));
    }
  }

  const UpsampleFuseParams& p_;
  unsigned char* queue_;
  int lane_, g_, t_, part_, column_, row_begin_, row_end_, image_;
};

}  // namespace mstpp::cuda
