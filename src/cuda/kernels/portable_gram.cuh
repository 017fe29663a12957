// SPDX-License-Identifier: Apache-2.0
// S = X' X over all pixels of an image, as sums over fixed shares of them (GramReduce adds these).
#pragma once

#include "cuda/kernels/portable.cuh"

namespace mstpp::cuda::portable {

// One kTile x kTile tile of S over a share of the pixels, on or above the diagonal: kTile / 8
// warps, 16 by kTile / 2 entries each.
template <int kTile>
struct GramSumShape {
  static constexpr int kThreads = kTile * 4;
  static constexpr int kPixels = 32;  // at a time
  static constexpr int kRow = kTile + 8;
  static constexpr int kSharedBytes = 2 * kPixels * kRow * 4;
  MSTPP_HOST_DEVICE static constexpr int Tiles(int stride) {
    const int side = (stride + kTile - 1) / kTile;
    return side * (side + 1) / 2;
  }
};

template <int kTerms, int kTile, class T>
MSTPP_DEVICE void GramSumBody(const Map<const T>& x, float* partials, int blocks) {
  using Shape = GramSumShape<kTile>;
  constexpr int kQuads = kTile / 4, kLoads = Shape::kPixels * kQuads / Shape::kThreads;
  constexpr int kColumns = kTile / 16;  // of eight entries, of a warp
  const int pixels = x.height * x.width, tiles = Shape::Tiles(x.stride);
  int j_tile = 0, i_tile = static_cast<int>(blockIdx.x) % tiles;
  while (i_tile > j_tile) i_tile -= ++j_tile;
  const int block = static_cast<int>(blockIdx.x) / tiles % blocks;
  const int image = static_cast<int>(blockIdx.x) / tiles / blocks;
  const int i0 = i_tile * kTile, j0 = j_tile * kTile;
  const int share = (pixels + blocks - 1) / blocks;
  const int begin = block * share, end = min(begin + share, pixels);
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, t = lane & 3;
  auto* a = reinterpret_cast<float*>(SharedMemory());
  float* b = i0 == j0 ? a : a + Shape::kPixels * Shape::kRow;
  const T* from = x.At(image, 0, 0);

  Four next_a[kLoads], next_b[kLoads];
  const auto fetch = [&](int first) {
    MSTPP_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int e = tid + i * Shape::kThreads, pixel = first + e / kQuads, c = e % kQuads * 4;
      const T* at = from + static_cast<size_t>(min(pixel, pixels - 1)) * x.stride;
      next_a[i] = pixel < end && i0 + c < x.stride ? LoadFour(at + i0 + c) : Four{};
      next_b[i] = i0 != j0 && pixel < end && j0 + c < x.stride ? LoadFour(at + j0 + c) : Four{};
    }
  };
  float sum[kColumns][4] = {};
  const int row = warp / 2 * 16 + g, column = warp % 2 * (kTile / 2) + g;
  fetch(begin);
  MSTPP_NO_UNROLL
  for (int first = begin; first < end; first += Shape::kPixels) {
    MSTPP_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int e = tid + i * Shape::kThreads, at = e / kQuads * Shape::kRow + e % kQuads * 4;
      StoreFour(a + at, next_a[i]);
      if (i0 != j0) StoreFour(b + at, next_b[i]);
    }
    __syncthreads();
    fetch(first + Shape::kPixels);
    MSTPP_UNROLL
    for (int k = 0; k < Shape::kPixels; k += 16) {
      SplitFactor<kTerms, 4> x16[2];
      SplitFactor<kTerms, 2> y[kColumns][2];
      MSTPP_UNROLL
      for (int s = 0; s < 2; ++s) {
        const int at = (k + 8 * s + t) * Shape::kRow;
        const float *low = a + at, *high = low + 4 * Shape::kRow;
        x16[s].Set(0, low[row]);
        x16[s].Set(1, low[row + 8]);
        x16[s].Set(2, high[row]);
        x16[s].Set(3, high[row + 8]);
        low = b + at, high = low + 4 * Shape::kRow;
        MSTPP_UNROLL
        for (int n = 0; n < kColumns; ++n) {
          y[n][s].Set(0, low[column + 8 * n]);
          y[n][s].Set(1, high[column + 8 * n]);
        }
      }
      Multiply<kTerms, kColumns>([&](int) { return x16; }, [&](int n) { return y[n]; },
                                 [&](int n) { return sum[n]; });
    }
    __syncthreads();
  }
  float* out = partials + (static_cast<size_t>(image) * blocks + block) * x.stride * x.stride;
  MSTPP_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    MSTPP_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int i = i0 + row + 8 * (e / 2), j = j0 + column - g + 8 * n + 2 * t + e % 2;
      if (i >= x.stride || j >= x.stride) continue;
      out[static_cast<size_t>(i) * x.stride + j] = sum[n][e];
      if (i0 != j0) out[static_cast<size_t>(j) * x.stride + i] = sum[n][e];
    }
  }
}

}  // namespace mstpp::cuda::portable
