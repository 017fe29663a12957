// SPDX-License-Identifier: Apache-2.0
// S = X' X over all pixels of an image, the one global quantity of spectral attention.
//
// Every block leaves its sum over a fixed share of the pixels; GramReduce adds these in a fixed
// order. The shares depend on the image's size only, so neither a batch nor the GPU changes a bit.
//
// Gram16 (FP16): both operands of the product are X transposed, eight channels by eight pixels at a
// time. A warp's load has pixels in rows; movmatrix turns it. S is symmetric: of the 8-column tiles
// in each 16-row band only those from the diagonal on are computed. Up to 64 channels every warp
// sums the whole S over pixels of its own; with 128, four warps share the pixels and the bands.
//
// GramSum (any storage): plain FP32 sums, one entry of S for one share of the pixels a thread.
#pragma once

#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda {

struct GramParams {
  const void* x;    // images x pixels x C
  float* partials;  // images x blocks x C x C
  int pixels, blocks, images;
};

template <int C>
struct Gram16Shape {
  static constexpr int kWarps = C <= 64 ? 8 : 4;
  static constexpr int kSharers = C <= 64 ? 1 : 4;  // warps that share the same pixels
  static constexpr int kBands = C / 16 / kSharers;  // of a warp
  static constexpr int kTiles = C <= 64 ? (C == 32 ? 6 : 20) : 18;  // of a warp
  static constexpr int kSharedBytes = C <= 64 ? kWarps / 2 * kTiles * 512 : 16;
};

template <int C>
class Gram16 {
  using Shape = Gram16Shape<C>;
  static constexpr int kBlocks8 = C / 8;

 public:
  MSTPP_DEVICE explicit Gram16(const GramParams& p)
      : p_(p), lane_(threadIdx.x & 31), warp_(threadIdx.x >> 5) {}

  MSTPP_DEVICE void Run() {
    // Registers have no run-time index, so each sharer's case is compiled by itself.
    if constexpr (Shape::kSharers == 1) {
      RunAs<0>();
    } else {
      switch (warp_) {
        case 0:
          return RunAs<0>();
        case 1:
          return RunAs<1>();
        case 2:
          return RunAs<2>();
        default:
          return RunAs<3>();
      }
    }
  }

 private:
  // The bands of a warp: all, or its own and that from the other end, which is as short as this is
  // long.
  MSTPP_DEVICE static constexpr int BandOf(int sharer, int i) {
    return Shape::kSharers == 1 ? i : i == 0 ? sharer : C / 16 - 1 - sharer;
  }

  template <int kSharer>
  MSTPP_DEVICE void RunAs() {
    const int image = blockIdx.x / p_.blocks, block = blockIdx.x % p_.blocks;
    // Sixteen pixels a step; the steps of the block's contiguous share go to the warps in turn.
    const int steps = (p_.pixels + 15) / 16;
    const int share = (steps + p_.blocks - 1) / p_.blocks;
    const int begin = block * share, end = min(begin + share, steps);
    const auto* x = static_cast<const unsigned char*>(p_.x) +
                    static_cast<size_t>(image) * p_.pixels * C * 2 + 16 * (lane_ & 3);
    float sum[Shape::kTiles][4];
    MSTPP_UNROLL
    for (int i = 0; i < Shape::kTiles; ++i) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0.f;

    MSTPP_NO_UNROLL
    for (int step = begin + warp_ / Shape::kSharers; step < end;
         step += Shape::kWarps / Shape::kSharers) {
      uint32_t turned[kBlocks8][2];  // [8 channels][8 pixels]
      MSTPP_UNROLL
      for (int k = 0; k < C / 32; ++k) {
        MSTPP_UNROLL
        for (int side = 0; side < 2; ++side) {
          const int pixel = step * 16 + side * 8 + (lane_ >> 2);
          HalfVec vec = Zero<HalfPair>();
          if (pixel < p_.pixels) {
            vec = LoadVec<HalfVec>(x + (static_cast<size_t>(pixel) * C + 32 * k) * 2);
          }
          MSTPP_UNROLL
          for (int j = 0; j < 4; ++j) turned[4 * k + j][side] = TransposeHalf(vec.pair[j].bits);
        }
      }
      int tile = 0;
      MSTPP_UNROLL
      for (int i = 0; i < Shape::kBands; ++i) {
        const auto& top = turned[2 * BandOf(kSharer, i)];
        const auto& bottom = turned[2 * BandOf(kSharer, i) + 1];
        MSTPP_UNROLL
        for (int n = 2 * BandOf(kSharer, i); n < kBlocks8; ++n, ++tile) {
          float(&d)[4] = sum[tile];
          MmaHalf(d, top[0], bottom[0], top[1], bottom[1], turned[n][0], turned[n][1], d[0], d[1],
                  d[2], d[3]);
        }
      }
    }
    if constexpr (Shape::kSharers == 1) Combine(sum);
    if (Shape::kSharers == 1 && warp_ != 0) return;
    Write<kSharer>(sum, p_.partials + (static_cast<size_t>(image) * p_.blocks + block) * C * C);
  }

  // Adds the warps' sums, halving their number step by step.
  MSTPP_DEVICE void Combine(float (&sum)[Shape::kTiles][4]) const {
    auto* shared = reinterpret_cast<float4*>(SharedMemory());
    MSTPP_UNROLL
    for (int half = Shape::kWarps / 2; half >= 1; half /= 2) {
      if (warp_ >= half && warp_ < 2 * half) {
        MSTPP_UNROLL
        for (int i = 0; i < Shape::kTiles; ++i) {
          shared[((warp_ - half) * Shape::kTiles + i) * 32 + lane_] =
              make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
        }
      }
      __syncthreads();
      if (warp_ < half) {
        MSTPP_UNROLL
        for (int i = 0; i < Shape::kTiles; ++i) {
          const float4 other = shared[(warp_ * Shape::kTiles + i) * 32 + lane_];
          sum[i][0] += other.x;
          sum[i][1] += other.y;
          sum[i][2] += other.z;
          sum[i][3] += other.w;
        }
      }
      __syncthreads();
    }
  }

  // Channel `index` of block 4 k + j of eight: see TransposeHalf's rows above.
  MSTPP_DEVICE static int Channel(int block, int index) {
    return block / 4 * 32 + 8 * (index >> 1) + 2 * (block % 4) + (index & 1);
  }

  template <int kSharer>
  MSTPP_DEVICE void Write(const float (&sum)[Shape::kTiles][4], float* out) const {
    const int g = lane_ >> 2, t = lane_ & 3;
    int tile = 0;
    MSTPP_UNROLL
    for (int i = 0; i < Shape::kBands; ++i) {
      const int band = BandOf(kSharer, i);
      MSTPP_UNROLL
      for (int n = 2 * band; n < kBlocks8; ++n, ++tile) {
        MSTPP_UNROLL
        for (int c = 0; c < 4; ++c) {
          const int row = Channel(2 * band + (c >> 1), g), column = Channel(n, 2 * t + (c & 1));
          out[row * C + column] = sum[tile][c];
          if (n >= 2 * band + 2) out[column * C + row] = sum[tile][c];
        }
      }
    }
  }

  const GramParams& p_;
  int lane_, warp_;
};

struct GramReduceParams {
  const float* partials;  // images x blocks x size
  float* sum;             // images x size
  int blocks, size, images;
};

// 32 entries a block of 8 warps, each of which adds every eighth part.
MSTPP_DEVICE void GramReduceBody(const GramReduceParams& p) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int groups = p.size / 32;
  const int image = blockIdx.x / groups, entry = blockIdx.x % groups * 32 + lane;
  const float* from = p.partials + static_cast<size_t>(image) * p.blocks * p.size + entry;
  float sum = 0.0f;
#ifndef MSTPP_EMULATE_CUDA
#pragma unroll 8
#endif
  for (int i = warp; i < p.blocks; i += 8) sum += from[static_cast<size_t>(i) * p.size];
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0) return;
  for (int i = 1; i < 8; ++i) sum += shared[i * 32 + lane];
  p.sum[static_cast<size_t>(image) * p.size + entry] = sum;
}

}  // namespace mstpp::cuda
