// SPDX-License-Identifier: Apache-2.0
// The same as conv3x3.cuh with half maps, for GPUs with products of warpgroups (hopper.cuh).
//
// Work: a block of one warpgroup takes a strip of 32 columns, two output rows at a time: of the 64
// rows of its products the first 32 are the output channels of the upper row, the others of the
// lower; each warp has sixteen. Of the four input rows that both touch, the outer two belong to one
// of them only: the weights of the other are zeros. Weights are in registers, the pixels come
// through a queue in shared memory, two rows at a time, as bricks of eight pixels by eight
// channels. While the tensor cores have two rows, those before are written.
//
// S, with kGram, is that of conv3x3.cuh: what warps with other channels of the same row share is
// added a step later, from where the residual would be; in the end the two rows' sums are added.
#pragma once

#include "cuda/kernels/conv3x3.cuh"
#include "cuda/kernels/hopper.cuh"

namespace mstpp::cuda {

struct WarpgroupConvShape : ConvStrip {
  static constexpr int kThreads = 128;
  static constexpr int kChunkBytes = kPixels * 16;     // of an input row's eight channels
  static constexpr int kInputBytes = 4 * kChunkBytes;  // of a row
  static constexpr int kResidualBytes = 2 * kHalfBytes;
  static constexpr int kQueue = 8;      // pairs of input rows, a power of two
  static constexpr int kResiduals = 4;  // pairs of the residual's rows, a power of two
  static constexpr int kResidual = kQueue * 2 * kInputBytes;
  static constexpr int kSharedBytes = kResidual + kResiduals * 2 * kResidualBytes;
};

template <bool kCube, class Writer = CubeWriter, bool kGram = false>
class WarpgroupConv3x3 {
  using Shape = WarpgroupConvShape;
  static constexpr int kTiles = Shape::kTiles;
  static constexpr int kPixelBytes = 64;

 public:
  MSTPP_DEVICE explicit WarpgroupConv3x3(const ConvParams& p)
      : p_(p),
        place_(p),
        lane_(threadIdx.x & 31),
        half_(threadIdx.x >> 5 & 1),
        lower_(threadIdx.x >> 6) {
    const int thread = threadIdx.x;
    fetch_ = place_.start - place_.row_bytes + thread * 16;
    store_ = place_.start + lower_ * place_.row_bytes + (lane_ >> 2) * kPixelBytes + half_ * 32 +
             (lane_ & 3) * 8;
    columns_ = 0;
    for (int i = 0; i < kTiles; ++i) {
      if (place_.column + (lane_ >> 2) + 8 * i < p.width) columns_ |= kStoreBit << i;
      if (kGram && place_.column + 2 * (lane_ & 3) + 8 * i < p.width) columns_ |= kPairBit << i;
    }
    const int column = place_.column + (thread >> 2);
    if (column > 0 && column <= p.width) columns_ |= kInputBit;
    if (column < p.width) columns_ |= kResidualBit;
    if (thread < 16 && place_.column + 31 + (thread >> 2 & 1) < p.width) columns_ |= kRestBit;
  }

  MSTPP_DEVICE void Run() {
    for (int y = place_.row_begin - 2; y < place_.row_begin + 6; y += 2) Fetch(y);
    if constexpr (kCube) {
      cube_ = Writer(*p_.io, p_.channels, place_.image, place_.row_begin + lower_, place_.column,
                     half_, lane_);
    }
    MSTPP_UNROLL
    for (int i = 0; i < 24; ++i) {
      const int ky = i / 6 - lower_;
      const bool wanted = ky >= 0 && ky < 3;
      weight_[i] =
          wanted ? LoadWeightRows(p_.weight, half_ * 18 + 6 * ky + i % 6, lane_) : WeightRows{};
    }
    CopyWait<2>();
    OrderCopies();
    __syncthreads();
    int y = place_.row_begin;
    Step<true>(y);
    MSTPP_NO_UNROLL
    for (y += 2; y < place_.row_end; y += 2) Step<false>(y);
    Complete(y - 2);
    Write(y - 2);
    if constexpr (kGram) {
      __syncthreads();
      AddStaged(y - 2);
      LeaveBoth();
    }
  }

 private:
  // The bits of columns_.
  static constexpr unsigned kStoreBit = 1, kInputBit = 16, kRestBit = 32, kResidualBit = 64,
                            kPairBit = 256;  // even widths: both of a pair of pixels

  // The input rows y + 1 and y + 2.
  MSTPP_DEVICE static unsigned char* Inputs(int y) {
    return SharedMemory() + (y >> 1 & (Shape::kQueue - 1)) * (2 * Shape::kInputBytes);
  }
  // The residual's rows y and y + 1.
  MSTPP_DEVICE static unsigned char* Residuals(int y) {
    return SharedMemory() + Shape::kResidual +
           (y >> 1 & (Shape::kResiduals - 1)) * (2 * Shape::kResidualBytes);
  }

  // What the step of output rows y and y + 1 reads besides what that before has read.
  MSTPP_DEVICE void Fetch(int y) {
    const int thread = threadIdx.x;
    if (y < place_.row_end) {
      const auto* from = static_cast<const unsigned char*>(p_.x) + fetch_;
      unsigned char* to = Inputs(y) + thread % 4 * Shape::kChunkBytes + thread / 4 * 16;
      MSTPP_UNROLL
      for (int i = 0; i < 2; ++i) {
        const bool inside = static_cast<unsigned>(y + 1 + i) < static_cast<unsigned>(p_.height);
        CopyAsync(to + i * Shape::kInputBytes, from + i * place_.row_bytes - kPixelBytes,
                  inside && (columns_ & kInputBit) != 0);
      }
      // A row's last two pixels.
      const int row = thread >> 3 & 1, pixel = 32 + (thread >> 2 & 1);
      const bool inside = static_cast<unsigned>(y + 1 + row) < static_cast<unsigned>(p_.height);
      CopyAsyncIf(
          thread < 16,
          Inputs(y) + row * Shape::kInputBytes + thread % 4 * Shape::kChunkBytes + pixel * 16,
          from + row * place_.row_bytes + (pixel - 1 - thread / 4) * kPixelBytes,
          inside && (columns_ & kRestBit) != 0);
      if (!kGram && p_.residual != nullptr && y >= place_.row_begin) {
        from = static_cast<const unsigned char*>(p_.residual) + fetch_ - place_.row_bytes;
        to = Residuals(y) + (thread >> 1 & 1) * Shape::kHalfBytes + (thread >> 2) * 32 +
             (thread & 1) * 16;
        MSTPP_UNROLL
        for (int i = 0; i < 2; ++i) {
          CopyAsync(to + i * Shape::kResidualBytes, from + i * place_.row_bytes,
                    y + i < place_.row_end && (columns_ & kResidualBit) != 0);
        }
      }
    }
    fetch_ += 2 * place_.row_bytes;
    CopyCommit();
  }

  // Rows y and y + 1. kFirst: nothing is kept yet.
  template <bool kFirst>
  MSTPP_DEVICE void Step(int y) {
    if constexpr (!kFirst) Complete(y - 2);
    float sum[kTiles][4];
    KeepOrder(sum);
    KeepOrder(weight_);
    BeginProducts();
    MSTPP_UNROLL
    for (int i = 0; i < 24; ++i) {
      const int row = i / 6, dx = i % 6 / 2, s = i % 2;
      const unsigned char* from = row < 2 ? Inputs(y - 2) : Inputs(y);
      const int offset = row % 2 * Shape::kInputBytes + dx * 16 + 2 * s * Shape::kChunkBytes;
      if (i == 0) {
        AddProduct<true, Shape::kChunkBytes>(sum, weight_[i].a, from, offset);
      } else {
        AddProduct<false, Shape::kChunkBytes>(sum, weight_[i].a, from, offset);
      }
    }
    EndProducts();
    // What the next step reads is there, and nobody reads any more what the step before has read.
    CopyWait<1>();
    OrderCopies();
    __syncthreads();
    Fetch(y + 6);
    if constexpr (!kFirst) Write(y - 2);
    AwaitProducts();
    KeepOrder(sum);
    KeepOrder(weight_);
    MSTPP_UNROLL
    for (int i = 0; i < 4 * kTiles; ++i) kept_[i / 4][i % 4] = sum[i / 4][i % 4];
  }

  // The products of mma.sync with what step y has kept: before the next step's of the warpgroup,
  // for which they would wait.
  MSTPP_DEVICE void Complete(int y) {
    if constexpr (kGram) {
      if (y > place_.row_begin) AddStaged(y - 2);
      const unsigned columns = y + lower_ < place_.row_end ? columns_ : 0u;
      gram_.AddRow(kept_, columns / kPairBit, Staged(y, half_), lane_);
    } else if (p_.residual != nullptr) {
      AddResidual<false>(kept_, Staged(y, half_), lane_);
    }
  }

  // Where the residual of a warp's row is; or where step y leaves its pixels, sixteen after
  // sixteen, for the next.
  MSTPP_DEVICE unsigned char* Staged(int y, int half) const {
    return Residuals(y) + lower_ * Shape::kResidualBytes + half * Shape::kHalfBytes;
  }
  // Adds what step y has left to S, a step later.
  MSTPP_DEVICE void AddStaged(int y) {
    gram_.AddBoth(Staged(y, 0), Staged(y, 1), half_ != 0, lane_);
  }
  // Leaves the block's part: of all upper rows, then of the lower.
  MSTPP_DEVICE void LeaveBoth() {
    auto* given = reinterpret_cast<float4*>(SharedMemory()) + half_ * ConvGram::kTiles * 32 + lane_;
    __syncthreads();
    MSTPP_UNROLL
    for (int i = 0; i < ConvGram::kTiles; ++i) {
      const auto& sum = gram_.sum[i];
      if (lower_ != 0) given[i * 32] = make_float4(sum[0], sum[1], sum[2], sum[3]);
    }
    __syncthreads();
    if (lower_ != 0) return;
    MSTPP_UNROLL
    for (int i = 0; i < ConvGram::kTiles; ++i) {
      const float4 other = given[i * 32];
      gram_.sum[i][0] += other.x;
      gram_.sum[i][1] += other.y;
      gram_.sum[i][2] += other.z;
      gram_.sum[i][3] += other.w;
    }
    StorePart<32>(p_.partials, blockIdx.x, half_ * ConvGram::kTiles, lane_, gram_.sum);
  }

  // The warp's row of those that step y has kept.
  MSTPP_DEVICE void Write(int y) {
    const bool inside = y + lower_ < place_.row_end;
    if constexpr (kCube) {
      if (inside) cube_.template Write<2>(kept_);
    } else {
      auto* to = static_cast<unsigned char*>(p_.y) + store_;
      MSTPP_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        StorePixel(to + n * 8 * kPixelBytes, kept_[n], inside && (columns_ & kStoreBit << n) != 0);
      }
      store_ += 2 * place_.row_bytes;
    }
  }

  const ConvParams& p_;
  Writer cube_;
  WeightRows weight_[24];  // [4 input rows][3 dx][2 halves of the inputs]
  float kept_[kTiles][4];
  ConvGram gram_;
  ConvPlace place_;
  int lane_, half_, lower_;
  int64_t fetch_, store_;  // of the thread's next
  unsigned columns_;       // which of the thread's columns are inside
};

}  // namespace mstpp::cuda
