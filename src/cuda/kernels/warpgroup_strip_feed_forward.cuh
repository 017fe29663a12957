// SPDX-License-Identifier: Apache-2.0
// The same as feed_forward.cuh with 32 channels and half maps, for GPUs with products of warpgroups
// (hopper.cuh).
//
// The block's four warps multiply by M and by W2 as one warpgroup. Each warp leaves its hidden
// channels of two rows in shared memory; behind the pair's one barrier they are multiplied by W2, a
// product of 64 pixels. Each warp's sixteen are those of its slice, so it gets their sums over all
// hidden channels and has their x1. x and d, which only their own warp reads, are waited for by the
// warp itself.
#pragma once

#include "cuda/kernels/feed_forward.cuh"
#include "cuda/kernels/hopper.cuh"

namespace mstpp::cuda {

class WarpgroupStripFeedForward : FeedForwardRows<32, 4, Maps::kHalf, Products::kWarpgroup> {
  static constexpr int C = 32, P = 4;

 public:
  MSTPP_DEVICE explicit WarpgroupStripFeedForward(const FeedForwardParams& p)
      : FeedForwardRows(p) {}

  MSTPP_DEVICE void Run() {
    if (ends_.first || ends_.last) {
      Walk<true>();
    } else {
      Walk<false>();
    }
  }

 private:
  // x1 of this warp's slice in the two rows fetched last, and its moments.
  MSTPP_DEVICE Moments Attend(HalfVec (&rows)[2]) const {
    const Rows x = LoadSlice(Shape::kX, warp_);
    float x1[4][4];
    MultiplyByMatrix(x1, x);
    AddWide(x1, x, lane_);
    return Complete(x1, rows);
  }

  // X M' of this warp's slice.
  MSTPP_DEVICE void MultiplyByMatrix(float (&product)[4][4], const Rows& x) const {
    uint32_t a[2][4];
    MSTPP_UNROLL
    for (int s = 0; s < 2; ++s) {
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) a[s][i] = x.a[s][i].bits;
    }
    float d[4][4];  // by way of which ptxas orders all else with fewer stalls (lab/cuda/stalls.py)
    MultiplyRows<C, true>(d, a, shared_ + Shape::kMatrix);
    MSTPP_UNROLL
    for (int i = 0; i < 16; ++i) product[i / 4][i % 4] = d[i / 4][i % 4];
  }

  // As a warpgroup's first factor: pixels i of the lanes are its rows 16 i + 8 row and on, this
  // warp's channels half a panel, in the order of Packer::VecBricks.
  MSTPP_DEVICE void LeaveHidden(int pair, int row, const HalfPair (&hidden)[4][P]) const {
    const int pixel = lane_ & 7, chunk = warp_ % 2 * 4 + (lane_ >> 3);
    unsigned char* to = shared_ + Shape::kParts + pair * Shape::kFactorBytes +
                        warp_ / 2 * Shape::kPanelBytes + (8 * row + pixel) * 128 +
                        (chunk ^ pixel) * 16;
    MSTPP_UNROLL
    for (int i = 0; i < P; ++i) {
      StoreMatrices(to + i * 16 * 128,
                    {hidden[0][i].bits, hidden[1][i].bits, hidden[2][i].bits, hidden[3][i].bits});
    }
  }

  // The output rows y and y + 1: W2 of what all warps have left of pair `pair`, and x1.
  MSTPP_DEVICE void FinishPair(int y, int pair) {
    float sum[4][4];
    BeginRows<C, true, Shape::kHidden / 16>(sum,
                                            shared_ + Shape::kParts + pair * Shape::kFactorBytes,
                                            Shape::kPanelBytes, shared_ + Shape::kWeight2);
    HalfVec out[2];
    MSTPP_UNROLL
    for (int r = 0; r < 2; ++r) {
      out[r] = LoadVec(X1(y + r) + warp_ * kWarpVecBytes + PieceOffset(lane_));
    }
    AwaitRows<0>(sum);
    MSTPP_UNROLL
    for (int r = 0; r < 2; ++r) {
      if (!stores_ || y + r < row_begin_ || y + r >= row_end_) continue;
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        HalfPair part;
        Set(part, sum[j][2 * r], sum[j][2 * r + 1]);
        out[r].pair[j] = Add(out[r].pair[j], part);
      }
      StoreVec(static_cast<unsigned char*>(p_.out) + image_bytes_ + store_ + r * pitch_, out[r]);
    }
  }

  // kEnds: the strip is the image's first or last.
  template <bool kEnds>
  MSTPP_DEVICE void Walk() {
    Weights weights;
    Dw depthwise;
    Begin(0, weights, depthwise);
    CopyWait<0>();
    OrderCopies();  // M and W2
    __syncthreads();
    int y = row_begin_ - 1;
    HalfVec rows[2];
    Moments moments = Attend(rows);
    __syncthreads();
    Normalise(rows, moments, y, 0);
    Fetch(y + 2);
    __syncthreads();

    const auto hidden = [&](int pair, int row, bool warming) {
      HalfPair above[4][P];
      Hidden<kEnds>(pair, row, weights, depthwise, above);
      if (!warming) LeaveHidden(pair, row, above);
    };
    MSTPP_NO_UNROLL
    for (int pair = 0; y <= row_end_; y += 2, pair ^= 1) {
      const bool warming = y < row_begin_, more = y + 2 <= row_end_;
      hidden(pair, 0, warming);
      CopyWait<0>();  // x and d are this warp's alone
      __syncwarp();
      if (more) moments = Attend(rows);
      __syncwarp();
      if (more) {
        Normalise(rows, moments, y + 2, pair ^ 1);
        Fetch(y + 4);
      }
      hidden(pair, 1, warming);
      OrderCopies();
      __syncthreads();
      if (!warming) FinishPair(y - 1, pair);
      store_ += 2 * pitch_;
    }
  }
};

}  // namespace mstpp::cuda
