// SPDX-License-Identifier: Apache-2.0
// Where the last convolution's sums go: the cube, of floats with any strides or of halves.
#pragma once

#include "cuda/kernels/io.cuh"

namespace mstpp::cuda {

// Writes a warp's sums to the cube as they come: of each of two channels, two neighbouring pixels a
// tile, which four lanes complete to 32 bytes.
class CubeWriter {
  static constexpr int kTiles = 4;  // of eight pixels, of a strip

 public:
  CubeWriter() = default;
  MSTPP_DEVICE CubeWriter(const NetworkIo& io, int channels, int image, int row, int column,
                          int half, int lane)
      : io_(&io), rows_left_(io.cube_height - row) {
    const int g = lane >> 2;
    column_ = column + 2 * (lane & 3);
    const int channel = 16 * half + 4 * (g >> 1) + (g & 1);
    out_ = Global(static_cast<float*>(io.cube)) + image * io.cube_stride[0] +
           channel * io.cube_stride[1] + row * io.cube_stride[2] + column_ * io.cube_stride[3];
    row_stride_ = io.cube_stride[2];
    second_ = 2 * io.cube_stride[1];
    channels_ = (channel < channels) + (channel + 2 < channels);
    const int64_t odd = io.cube_stride[0] | io.cube_stride[1] | io.cube_stride[2];
    if (io.cube_stride[3] != 1 || odd % 2 != 0 || reinterpret_cast<uintptr_t>(io.cube) % 8 != 0 ||
        column + 8 * kTiles > io.cube_width) {
      channels_ = -channels_;
    }
  }

  // Row after row, or every kRows-th.
  template <int kRows = 1>
  MSTPP_DEVICE void Write(const float (&sum)[kTiles][4]) {
    if (rows_left_ > 0) {
      MSTPP_UNROLL
      for (int i = 0; i < 2; ++i) {
        float* out = out_ + i * second_;
        if (channels_ > i) {
          MSTPP_UNROLL
          for (int n = 0; n < kTiles; ++n) {
            *reinterpret_cast<float2*>(out + n * 8) = make_float2(sum[n][2 * i], sum[n][2 * i + 1]);
          }
        } else if (-channels_ > i) {
          const int64_t stride = io_->cube_stride[3];
          const int left = io_->cube_width - column_;
          MSTPP_UNROLL
          for (int n = 0; n < kTiles; ++n, out += 8 * stride) {
            if (left > n * 8) out[0] = sum[n][2 * i];
            if (left > n * 8 + 1) out[stride] = sum[n][2 * i + 1];
          }
        }
      }
    }
    rows_left_ -= kRows;
    out_ += kRows * row_stride_;
  }

 private:
  const NetworkIo* io_;
  float* out_;
  int64_t row_stride_, second_;  // to the second channel
  int rows_left_, column_;
  int channels_;  // how many of the two to write; negative if not in pairs
};

// The same for a cube of halves. The four lanes exchange tiles, so that each has eight neighbouring
// pixels, 16 bytes; all four write 64.
class HalfCubeWriter {
  static constexpr int kTiles = 4;  // of eight pixels, of a strip

 public:
  HalfCubeWriter() = default;
  MSTPP_DEVICE HalfCubeWriter(const NetworkIo& io, int channels, int image, int row, int column,
                              int half, int lane)
      : rows_left_(io.cube_height - row) {
    const int g = lane >> 2;
    const int channel = 16 * half + 4 * (g >> 1) + (g & 1);
    column += 8 * (lane & 3);
    out_ = Global(static_cast<uint16_t*>(io.cube)) + image * io.cube_stride[0] +
           channel * io.cube_stride[1] + row * io.cube_stride[2] + column;
    row_stride_ = io.cube_stride[2];
    second_ = 2 * io.cube_stride[1];
    channels_ = column < io.cube_width ? (channel < channels) + (channel + 2 < channels) : 0;
  }

  // Row after row, or every kRows-th.
  template <int kRows = 1>
  MSTPP_DEVICE void Write(const float (&sum)[kTiles][4]) {
    static_assert(kTiles == 4, "a tile for each of the four lanes");
    if (rows_left_ > 0) {
      MSTPP_UNROLL
      for (int i = 0; i < 2; ++i) {
        uint32_t pair[4];
        MSTPP_UNROLL
        for (int n = 0; n < 4; ++n) pair[n] = HalfPack(sum[n][2 * i], sum[n][2 * i + 1]);
        Exchange<1>(pair);
        Exchange<2>(pair);
        if (channels_ > i) {
          *reinterpret_cast<uint4*>(out_ + i * second_) =
              make_uint4(pair[0], pair[1], pair[2], pair[3]);
        }
      }
    }
    rows_left_ -= kRows;
    out_ += kRows * row_stride_;
  }

 private:
  // With distances 1 and 2, pair[n] of the four's lane t becomes what pair[t] of lane n was.
  template <int kDistance>
  MSTPP_DEVICE static void Exchange(uint32_t (&pair)[4]) {
    const bool upper = (threadIdx.x & kDistance) != 0;
    MSTPP_UNROLL
    for (int n = 0; n < 4; ++n) {
      if ((n & kDistance) != 0) continue;
      uint32_t &low = pair[n], &high = pair[n + kDistance];
      const uint32_t got = ShuffleXor(upper ? low : high, kDistance);
      (upper ? low : high) = got;
    }
  }

  uint16_t* out_;
  int64_t row_stride_, second_;  // to the second channel
  int rows_left_;
  int channels_;  // how many of the two to write
};

}  // namespace mstpp::cuda
