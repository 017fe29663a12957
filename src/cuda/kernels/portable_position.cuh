// SPDX-License-Identifier: Apache-2.0
// The positional branch, d = dw2(GELU(dw1(v))): a block takes 16 channels of 16 x 8 pixels, with
// two pixels around of v and one of what is between in shared memory.
#pragma once

#include "cuda/kernels/portable.cuh"

namespace mstpp::cuda::portable {

template <class T>
struct PositionParams {
  Map<const T> v;
  const float *weights1, *weights2;  // [9][stride]
  T* d;                              // same layout as v
};

struct PositionShape : Tile {
  static constexpr int kWide = kColumns + 2, kHigh = kRows + 2;  // between
  static constexpr int kBetween = (kWide + 2) * (kHigh + 2) * kSlab;
  static constexpr int kSharedBytes = 4 * (kBetween + kWide * kHigh * kSlab);
};

// The sum over the 3 x 3 pixels from `at` on, `wide` in a row.
MSTPP_DEVICE Four DepthwiseSum(const float* at, int wide, const Four (&weight)[9]) {
  Four sum = {};
  MSTPP_UNROLL
  for (int tap = 0; tap < 9; ++tap) {
    AddProduct(sum, LoadFour(at + (tap / 3 * wide + tap % 3) * kSlab), weight[tap]);
  }
  return sum;
}

template <class T>
MSTPP_DEVICE void PositionBody(const PositionParams<T>& p) {
  using Shape = PositionShape;
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  float* between = shared + Shape::kBetween;
  const Map<const T>& v = p.v;
  const int thread = threadIdx.x, quad = 4 * (thread & 3), slabs = v.stride / kSlab;
  const int channel = static_cast<int>(blockIdx.x) % slabs * kSlab + quad;
  const Tile tile(static_cast<int>(blockIdx.x) / slabs, v.height, v.width);
  const int image = tile.image, row = tile.row, column = tile.column;
  MSTPP_UNROLL_4
  for (int i = thread / 4; i < (Shape::kWide + 2) * (Shape::kHigh + 2); i += Shape::kThreads / 4) {
    const int y = row - 2 + i / (Shape::kWide + 2), x = column - 2 + i % (Shape::kWide + 2);
    StoreFour(shared + i * kSlab + quad,
              v.Inside(y, x) ? LoadFour(v.At(image, y, x) + channel) : Four{});
  }
  Four weight[9];
  MSTPP_UNROLL
  for (int tap = 0; tap < 9; ++tap) weight[tap] = LoadFour(p.weights1 + tap * v.stride + channel);
  __syncthreads();
  for (int i = thread / 4; i < Shape::kWide * Shape::kHigh; i += Shape::kThreads / 4) {
    const int y = i / Shape::kWide, x = i % Shape::kWide;
    const float* at = shared + (y * (Shape::kWide + 2) + x) * kSlab + quad;
    StoreFour(between + i * kSlab + quad, v.Inside(row - 1 + y, column - 1 + x)
                                              ? GeluOf(DepthwiseSum(at, Shape::kWide + 2, weight))
                                              : Four{});
  }
  MSTPP_UNROLL
  for (int tap = 0; tap < 9; ++tap) weight[tap] = LoadFour(p.weights2 + tap * v.stride + channel);
  __syncthreads();
  MSTPP_UNROLL
  for (int i = thread / 4; i < Shape::kColumns * Shape::kRows; i += Shape::kThreads / 4) {
    const int y = i / Shape::kColumns, x = i % Shape::kColumns;
    if (!v.Inside(row + y, column + x)) continue;
    const T* at = v.At(image, row + y, column + x) + channel;
    StoreFour(p.d + (at - v.data),
              DepthwiseSum(between + (y * Shape::kWide + x) * kSlab + quad, Shape::kWide, weight));
  }
}

}  // namespace mstpp::cuda::portable
