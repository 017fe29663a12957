// SPDX-License-Identifier: Apache-2.0
// The same as downsample.cuh with half maps, for GPUs with products of warpgroups (hopper.cuh).
//
// The weights are the first factor all the same, of 64 output channels, but pixels come from shared
// memory to the tensor cores without registers between. A row lies there as [eight channels][even
// columns, then odd]. The products of a step are begun at once, and the row before is finished
// meanwhile. With 64 input channels each of two warpgroups has 32 of them.
#pragma once

#include "cuda/kernels/downsample.cuh"
#include "cuda/kernels/hopper.cuh"

namespace mstpp::cuda {

template <int C, bool kGram = false>
class WarpgroupDownsample : DownsampleRows<C, Maps::kHalf, kGram, Products::kWarpgroup> {
  using Base = DownsampleRows<C, Maps::kHalf, kGram, Products::kWarpgroup>;
  using Shape = typename Base::Shape;
  using Base::group_, Base::weight_, Base::below_;
  using Base::kGroups, Base::kTiles, Base::kKept, Base::kRowBytes;
  using Base::Pair, Base::FetchUpper, Base::FetchLower, Base::Keep, Base::Finish, Base::AddRow;

 public:
  MSTPP_DEVICE explicit WarpgroupDownsample(const DownsampleParams& p) : Base(p) {}

  MSTPP_DEVICE void Run() {
    this->Begin();
    OrderCopies();
    __syncthreads();
    this->Walk([&]<bool kHere, bool kBelow>(int r) { Step<kHere, kBelow>(r); });
  }

 private:
  // As that of Downsample, with all products begun at once. What is done meanwhile comes before the
  // next barrier too, so that it is as there.
  template <bool kHere, bool kBelow>
  MSTPP_DEVICE void Step(int r) {
    float sum[kTiles][4];
    MSTPP_UNROLL
    for (int i = 0; i < 4 * kTiles; ++i) sum[i / 4][i % 4] = below_[i / 4][i % 4];
    KeepProducts<kHere>(sum);
    BeginProducts();
    const unsigned char* pixels = Pair(r) + group_ * Shape::kPlaneBytes;
    MSTPP_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int row = i / 4, kx = i % 4;
      MSTPP_UNROLL
      for (int s = 0; s < 2; ++s) {
        const int from = row * kRowBytes + (kx & 1) * Shape::kParityBytes +
                         (kx >> 1) * Shape::kPixelBytes + 2 * s * Shape::kChunkBytes;
        if constexpr (kHere) {
          AddProduct<false, Shape::kChunkBytes>(sum, weight_[8 + i][s].a, pixels, from);
        }
        if (kBelow && i == 0 && s == 0) {
          AddProduct<true, Shape::kChunkBytes>(below_, weight_[i][s].a, pixels, from);
        } else if (kBelow) {
          AddProduct<false, Shape::kChunkBytes>(below_, weight_[i][s].a, pixels, from);
        }
      }
    }
    EndProducts();
    CopyWait<Shape::kQueue - 3>();
    OrderCopies();
    __syncthreads();
    if constexpr (kHere) AddRow(r - 2);
    FetchUpper(r + Shape::kQueue - 1);
    FetchLower(r + Shape::kQueue - 1);
    if (kHere) Finish(r - 1);
    AwaitProducts();
    KeepProducts<kHere>(sum);
    if constexpr (kHere) {
      // First the tiles that the warp keeps.
      float tiles[kTiles][4];
      MSTPP_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) {
          tiles[n][i] = kGroups == 1 || group_ == 0 ? sum[n][i] : sum[n ^ kKept][i];
        }
      }
      Keep(r, tiles);
    }
  }
  // Nothing is to be done out of order with what the tensor cores read or write.
  template <bool kHere>
  MSTPP_DEVICE void KeepProducts(float (&sum)[kTiles][4]) {
    if constexpr (kHere) KeepOrder(sum);
    KeepOrder(below_);
    KeepOrder(weight_);
  }
};

}  // namespace mstpp::cuda
