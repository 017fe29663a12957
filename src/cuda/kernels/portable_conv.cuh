// SPDX-License-Identifier: Apache-2.0
// Convolutions kSize x kSize with stride kStride, padding 1: 16 x 8 pixels by kN outputs a
// block of eight warps, a row of the tile each. In shared memory are what the taps need of 16
// channels, in a row with stride 2 first the even columns; and the weights of some of the taps,
// already split.
// weights: [taps][inputs / 16][outputs][16].
#pragma once

#include "cuda/kernels/portable.cuh"

namespace mstpp::cuda::portable {

template <int kTerms, int kN, int kSize, int kStride>
struct ConvShape : Tile {
  static constexpr int kWide = kStride * (kColumns - 1) + kSize;
  static constexpr int kHigh = kStride * (kRows - 1) + kSize;
  static constexpr int kTaps = kSize * kSize, kTapsTogether = kTaps > 9 ? 4 : kTaps;
  // In floats: where the weights begin and how many they are, without their small parts.
  static constexpr int kWeights = kWide * kHigh * kSlab, kCount = kTapsTogether * kN * kSlab;
  static constexpr int kLoading = kWeights + (kTerms == 3 ? 2 : 1) * kCount;
  static constexpr int kStoring = kColumns * kRows * kSumsRow<kN>;
  static constexpr int kSharedBytes = 4 * (kLoading > kStoring ? kLoading : kStoring);
  MSTPP_HOST_DEVICE static constexpr int Place(int column) {
    return kStride == 1 ? column : column % 2 * (kWide / 2) + column / 2;
  }
};

template <int kTerms, int kN, int kSize, int kStride, class T, class Writer>
MSTPP_DEVICE void TileConv(const ProductSize& size, const Map<const T>& x, const float* weights,
                           const Writer& writer) {
  using Shape = ConvShape<kTerms, kN, kSize, kStride>;
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int column_blocks = (size.outputs + kN - 1) / kN;
  const int n0 = static_cast<int>(blockIdx.x) % column_blocks * kN;
  const Tile tile(static_cast<int>(blockIdx.x) / column_blocks, size.height, size.width);
  const int image = tile.image, row = tile.row, column = tile.column;
  float sum[kN / 8][4] = {};
  const int swizzled = 4 * (t ^ g >> 1);
  for (int channel = 0; channel < x.stride; channel += kSlab) {
    MSTPP_NO_UNROLL
    for (int first = 0; first < Shape::kTaps; first += Shape::kTapsTogether) {
      __syncthreads();
      MSTPP_UNROLL_4
      for (int e = threadIdx.x; e < Shape::kTapsTogether * kN * 4; e += Shape::kThreads) {
        const int n = n0 + e / 4 % kN, tap = first + e / 4 / kN;
        const float* from = weights + static_cast<size_t>(tap * x.stride + channel) * size.outputs;
        const Four v = n < size.outputs ? LoadFour(from + n * kSlab + e % 4 * 4) : Four{};
        SplitFactor<kTerms, 4> split;
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) split.Set(i, v.v[i]);
        float* to = QuadAt(shared + Shape::kWeights, e / 4, e % 4);
        StoreFour(to, AsFour(split.big));
        if constexpr (kTerms == 3) StoreFour(to + Shape::kCount, AsFour(split.small));
      }
      if (first == 0) {
        MSTPP_UNROLL_4
        for (int e = threadIdx.x; e < Shape::kWide * Shape::kHigh * 4; e += Shape::kThreads) {
          const int y = e / 4 / Shape::kWide, q = e / 4 % Shape::kWide;
          const int in_y = kStride * row - 1 + y, in_x = kStride * column - 1 + q;
          const Four v = x.Inside(in_y, in_x)
                             ? LoadFour(x.At(image, in_y, in_x) + channel + e % 4 * 4)
                             : Four{};
          StoreFour(QuadAt(shared, y * Shape::kWide + Shape::Place(q), e % 4), v);
        }
      }
      __syncthreads();
      MSTPP_UNROLL_2
      for (int i = 0; i < Shape::kTapsTogether; ++i) {
        const int tap = first + i, y = tap / kSize, q = tap % kSize;
        const int pixel = (kStride * warp + y) * Shape::kWide + Shape::Place(q) + g;
        const float* at = QuadAt(shared, pixel, t);  // eight pixels further on, the same quad
        SplitFactor<kTerms, 4> pixels[2];
        SetRows(pixels, LoadFour(at), LoadFour(at + 8 * kSlab));
        const float* slab = shared + Shape::kWeights + (i * kN + g) * kSlab + swizzled;
        MSTPP_UNROLL
        for (int n = 0; n < kN / 8; n += kTogether) {
          SplitFactor<kTerms, 2> w[kTogether][2];
          MSTPP_UNROLL
          for (int i = 0; i < kTogether; ++i) {
            LoadColumn(w[i], slab + 8 * (n + i) * kSlab, Shape::kCount);
          }
          Multiply<kTerms, kTogether>([&](int) { return pixels; }, [&](int i) { return w[i]; },
                                      [&](int i) { return sum[n + i]; });
        }
      }
    }
  }
  __syncthreads();
  StageSums<kN>(shared, 16 * warp, sum);
  __syncthreads();
  ForStagedSums<kN, Shape::kThreads, Writer::kPixelsFirst>(
      shared, [&](int pixel, int n, const Four& sums) {
        const int y = row + pixel / Shape::kColumns, q = column + pixel % Shape::kColumns;
        if (y < size.height && q < size.width && n0 + n < size.outputs) {
          writer.Write(Pixel{image, y, q}, n0 + n, sums);
        }
      });
}

}  // namespace mstpp::cuda::portable
