// SPDX-License-Identifier: Apache-2.0
// The same as upsample_fuse.cuh with half maps, for GPUs with products of warpgroups (hopper.cuh).
//
// Work: a block takes 32 columns of x, and a warp sixteen output channels. With 64 each of two
// warpgroups has one of the two output rows, and gives its even and its odd columns in turn. With
// 32 there is one warpgroup, half of whose rows are the channels of even columns and half those of
// odd, and gives the two output rows in turn. The skip of even and of odd columns are two products
// then, in each of which the other columns' weights are zeros. A row of the queue has planes of 32
// pixels by 8 channels. While the tensor cores have a row, that before is written.
//
// S, with kGram, is added a row later from the warp's own band in registers and others' in shared
// memory; the four or two warps that have all channels of the same pixels leave a part.
#pragma once

#include "cuda/kernels/hopper.cuh"
#include "cuda/kernels/upsample_fuse.cuh"

namespace mstpp::cuda {

template <int C, bool kGram = false>
class WarpgroupUpsampleFuse : UpsampleRows<C, Products::kWarpgroup> {
  using Base = UpsampleRows<C, Products::kWarpgroup>;
  using Shape = typename Base::Shape;
  using Base::kTiles, Base::kSteps, Base::kStoreBit;
  using Base::p_, Base::lane_, Base::row_begin_, Base::row_end_, Base::row_bytes_, Base::store_,
      Base::columns_;
  using Base::Row, Base::Fetch, Base::Staged;
  static constexpr int kSkipSteps = 4;
  static constexpr int kGramTiles = WrittenGramShape<C>::kTiles;

 public:
  MSTPP_DEVICE explicit WarpgroupUpsampleFuse(const UpsampleFuseParams& p) : Base(p) {
    const int warp = OfWarp(threadIdx.x / 32);
    half_ = warp / (C / 16);
    sixteen_ = warp % (C / 16);
    y_ = static_cast<unsigned char*>(p.y) + store_ - 2 * row_bytes_ + sixteen_ * 32 +
         (lane_ & 3) * 8 + half_ * (C == 64 ? row_bytes_ : 2 * C);
    if constexpr (kGram) {
      part_ = 2 * this->FirstPart() + half_;
      part_end_ = min(row_begin_ + p.part_rows, row_end_);
    }
  }

  MSTPP_DEVICE void Run() {
    MSTPP_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int phase = C == 64 ? 2 * half_ + i : 2 * i + half_;
      MSTPP_UNROLL
      for (int k = 0; k < 2 * kSteps; ++k) {
        weight_[i][k] =
            LoadWeightRows(p_.weight, (phase * kSteps + sixteen_) * (2 * kSteps) + k, lane_);
      }
    }
    MSTPP_UNROLL
    for (int k = 0; k < kSkipSteps; ++k) {
      if (C == 64 || k / kSteps == half_) {
        skip_weight_[k] = LoadWeightRows(p_.skip_weight, sixteen_ * kSteps + k % kSteps, lane_);
      } else {
        skip_weight_[k] = {};
      }
    }
    for (int r = row_begin_; r < row_begin_ + Shape::kQueue - 1; ++r) Fetch(r);
    if constexpr (kGram) Stage(row_begin_ - 1);
    CopyWait<Shape::kQueue - 2>();
    OrderCopies();
    __syncthreads();
    MSTPP_NO_UNROLL
    for (int r = row_begin_; r < row_end_; ++r) Step(r);
    if constexpr (kGram) {
      __syncthreads();
      LeavePartBefore(row_end_ - 1);
      AddStaged(row_end_ - 1);
      LeavePartBefore(row_end_);
    }
    StoreKept(row_end_ - 1);
  }

 private:
  // Nothing is to be done out of order with what the tensor cores read or write.
  MSTPP_DEVICE void KeepProducts() {
    KeepOrder(sum_);
    KeepOrder(weight_);
    KeepOrder(skip_weight_);
  }

  // Row r, which is there; what is left to do of the row before is done meanwhile.
  MSTPP_DEVICE void Step(int r) {
    const unsigned char* x = Row(r);
    const unsigned char* skip =
        x + Shape::kInputBytes + (C == 64 ? half_ * Shape::kSkipRowBytes : 0);
    constexpr int kPlaneBytes = Shape::kPlaneBytes;
    KeepProducts();
    BeginProducts();
    MSTPP_UNROLL
    for (int k = 0; k < 2 * kSteps; ++k) {
      MSTPP_UNROLL
      for (int i = 0; i < 2; ++i) {
        if (k == 0) {
          AddProduct<true, kPlaneBytes>(sum_[i], weight_[i][k].a, x, 0);
        } else {
          AddProduct<false, kPlaneBytes>(sum_[i], weight_[i][k].a, x, 2 * k * kPlaneBytes);
        }
      }
    }
    MSTPP_UNROLL
    for (int k = 0; k < kSkipSteps; ++k) {
      MSTPP_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int pixels = i * (C == 64 ? Shape::kSkipRowBytes / 2 : Shape::kSkipRowBytes);
        AddProduct<false, kPlaneBytes>(sum_[i], skip_weight_[k].a, skip,
                                       pixels + 2 * k * kPlaneBytes);
      }
    }
    EndProducts();
    // Row r + 1 is there, row r - 1 no longer read, and what is staged of it is there.
    CopyWait<Shape::kQueue - 3>();
    OrderCopies();
    __syncthreads();
    Fetch(r + Shape::kQueue - 1);
    if constexpr (kGram) {
      LeavePartBefore(r - 1);
      AddStaged(r - 1);
    }
    StoreKept(r - 1);
    AwaitProducts();
    KeepProducts();
    MSTPP_UNROLL
    for (int i = 0; i < 2; ++i) {
      MSTPP_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        const float(&sum)[4] = sum_[i][n];
        uint32_t* kept = kept_[i][n / 2].a + n % 2 * 2;
        kept[0] = HalfPack(sum[0], sum[1]);
        kept[1] = HalfPack(sum[2], sum[3]);
      }
    }
    if constexpr (kGram) Stage(r);
  }

  // Writes row r, four channels of a pixel a lane; nothing if it is the one before the first.
  MSTPP_DEVICE void StoreKept(int r) {
    const unsigned columns = r >= row_begin_ ? columns_ : 0u;
    unsigned char* to = y_;
    MSTPP_UNROLL
    for (int i = 0; i < 2; ++i) {
      MSTPP_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        const uint32_t* kept = kept_[i][n / 2].a + n % 2 * 2;
        const uint32_t first = TransposeHalf(kept[0]), second = TransposeHalf(kept[1]);
        if (columns & kStoreBit << n) {
          *reinterpret_cast<uint2*>(to + n * 8 * 4 * C) = make_uint2(first, second);
        }
      }
      to += C == 64 ? 2 * C : row_bytes_;
    }
    y_ += 2 * row_bytes_;
  }

  // Where the warp leaves its tiles n and n + 1 of row r, of its i; and all bands of these.
  MSTPP_DEVICE unsigned char* Kept(int r, int i, int n) const {
    return Staged(r) + (half_ * kTiles + i * (kTiles / 2) + n / 2) * (C / 16) * kWeightRowsBytes;
  }
  MSTPP_DEVICE void Stage(int r) const {
    MSTPP_UNROLL
    for (int i = 0; i < 2; ++i) {
      MSTPP_UNROLL
      for (int n = 0; n < kTiles; n += 2) {
        StoreRows(Kept(r, i, n) + sixteen_ * kWeightRowsBytes, lane_, kept_[i][n / 2]);
      }
    }
  }

  MSTPP_DEVICE void AddStaged(int r) {
    MSTPP_UNROLL
    for (int i = 0; i < 2; ++i) {
      MSTPP_UNROLL
      for (int n = 0; n < kTiles; n += 2) {
        AddOwnBand<C>(gram_, kept_[i][n / 2], Kept(r, i, n), sixteen_, lane_);
      }
    }
  }

  // The part that ends before row r is added; the next begins.
  MSTPP_DEVICE void LeavePartBefore(int r) {
    if (r != part_end_) return;
    LeavePart<C>(gram_, p_.partials, part_, sixteen_ * kGramTiles, lane_);
    part_ += 2 * p_.strips;
    part_end_ = min(part_end_ + p_.part_rows, row_end_);
  }

  WeightRows weight_[2][2 * kSteps], skip_weight_[kSkipSteps];
  float gram_[kGramTiles][4] = {};
  // Of the next row and of the one before: the even and the odd columns, or the two output rows.
  float sum_[2][4][4] = {};
  WeightRows kept_[2][kTiles / 2] = {};
  int half_, sixteen_;           // which output row or columns the warp has, and which channels
  int part_ = 0, part_end_ = 0;  // of S; the row it ends before
  unsigned char* y_;             // of the row before
};

}  // namespace mstpp::cuda
