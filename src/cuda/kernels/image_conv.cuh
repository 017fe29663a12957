// SPDX-License-Identifier: Apache-2.0
// The first 3 x 3 convolution, from the picture itself (any strides, padded by reflection or zeros
// as it goes) to 32 channels (FP16, sums in FP32). To a split map its factors too are split: no
// other rounding is seen so much in the cube, and the products of rests cost little here.
//
// Work: a block takes a tile of 64 columns by 8 rows and stages the picture's pixels there and one
// around in shared memory, as four halves each: the channels, zeros, then 1. So the four inputs
// that mma.sync wants of a lane are one pixel, three lanes hold the taps of one row and a step is a
// row of taps. The fourth lane has weights of zero, and looks at the middle tap rather than at a
// pixel that is none of the output's neighbours.
#pragma once

#include "cuda/kernels/io.cuh"
#include "cuda/kernels/weight_rows.cuh"

namespace mstpp::cuda {

struct ImageConvParams {
  const NetworkIo* io;
  void* y;             // images x height x width x 32
  const void* weight;  // rows [2 halves of the outputs][3 rows of taps] (Packer::Rows: kVecs of
                       // outputs; inputs 4 dx + channel, the fourth channel 1); for a split map
                       // then the rests
  int in_channels;     // at most 3
  int height, width, strips, segments, images;
};

template <Maps kMaps>
struct ImageConvShape {
  static constexpr bool kSplit = kMaps == Maps::kSplit;
  static constexpr int kWarps = 4;
  static constexpr int kColumns = 64, kRows = 8;  // of a tile
  static constexpr int kPixels = kColumns + 2;    // staged of a row
  static constexpr int kRowBytes = kPixels * 8;
  static constexpr int kPlaneBytes = (kRows + 2) * kRowBytes;  // the pixels; then their rests
  static constexpr int kSharedBytes = (kSplit ? 2 : 1) * kPlaneBytes;
};

// The tile whose first output is (row, column), and the pixels around.
template <Maps kMaps>
class StagedPicture {
  using Shape = ImageConvShape<kMaps>;

 public:
  MSTPP_DEVICE StagedPicture(const ImageConvParams& p, int image, int row, int column)
      : p_(p), io_(*p.io), row_(row - 1), column_(column - 1) {
    in_ = Global(io_.image) + image * io_.image_stride[0];
    // A channel that there is not has weights of zero: any will do.
    second_ = p.in_channels > 1 ? io_.image_stride[1] : 0;
    third_ = p.in_channels > 2 ? 2 * io_.image_stride[1] : second_;
  }

  // First loads everything, then stores it: the loads' latencies overlap. A warp takes 64 pixels of
  // every fourth row, some threads one of the two that are left of each row.
  MSTPP_DEVICE void Stage(int lane, int warp) {
    constexpr int kTurns = (Shape::kRows + 2 + Shape::kWarps - 1) / Shape::kWarps;
    constexpr int kRest = Shape::kPixels - 64;
    Colors colors[kTurns][2], rest = {};
    MSTPP_UNROLL
    for (int i = 0; i < kTurns; ++i) {
      MSTPP_UNROLL
      for (int side = 0; side < 2; ++side) {
        colors[i][side] = Load(min(warp + i * Shape::kWarps, Shape::kRows + 1), 32 * side + lane);
      }
    }
    const int thread = threadIdx.x;
    const bool has_rest = thread < kRest * (Shape::kRows + 2);
    if (has_rest) rest = Load(thread / kRest, 64 + thread % kRest);
    MSTPP_UNROLL
    for (int i = 0; i < kTurns; ++i) {
      if (warp + i * Shape::kWarps < Shape::kRows + 2) {
        MSTPP_UNROLL
        for (int side = 0; side < 2; ++side) {
          Store(warp + i * Shape::kWarps, 32 * side + lane, colors[i][side]);
        }
      }
    }
    if (has_rest) Store(thread / kRest, 64 + thread % kRest, rest);
  }

  MSTPP_DEVICE static uint2* Pixel(int row, int column) {
    return reinterpret_cast<uint2*>(SharedMemory() + row * Shape::kRowBytes) + column;
  }

 private:
  struct Colors {
    float value[3];
  };

  MSTPP_DEVICE Colors Load(int row, int column) const {
    const int y = SourceIndex(row_ + row, io_.height, p_.height, io_.reflect);
    const int x = SourceIndex(column_ + column, io_.width, p_.width, io_.reflect);
    Colors colors = {};
    if (y >= 0 && x >= 0) {
      const float* in = in_ + (y * io_.image_stride[2] + x * io_.image_stride[3]);
      colors = {{in[0], in[second_], in[third_]}};
    }
    return colors;
  }

  MSTPP_DEVICE static void Store(int row, int column, const Colors& colors) {
    const auto& value = colors.value;
    *Pixel(row, column) = make_uint2(HalfPack(value[0], value[1]), HalfPack(value[2], 1.0f));
    if constexpr (Shape::kSplit) {
      float rest[4] = {value[0], value[1], value[2], 0.0f};
      LeaveRest(rest[0], rest[1]);
      LeaveRest(rest[2], rest[3]);
      Pixel(row, column)[Shape::kPlaneBytes / 8] =
          make_uint2(HalfPack(rest[0], rest[1]), HalfPack(rest[2], rest[3]));
    }
  }

  const ImageConvParams& p_;
  const NetworkIo io_;
  const float* in_;
  int64_t second_, third_;  // channels
  int row_, column_;
};

template <Maps kMaps>
MSTPP_DEVICE void ImageConvBody(const ImageConvParams& p) {
  using Shape = ImageConvShape<kMaps>;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int item = static_cast<int>(blockIdx.x) / p.strips;
  const int column = static_cast<int>(blockIdx.x) % p.strips * Shape::kColumns;
  const int row = item % p.segments * Shape::kRows, image = item / p.segments;
  StagedPicture<kMaps>(p, image, row, column).Stage(lane, warp);
  WeightRows weight[2][3];
  MSTPP_UNROLL
  for (int i = 0; i < 6; ++i) weight[i / 3][i % 3] = LoadWeightRows(p.weight, i, lane);
  [[maybe_unused]] WeightRows rest[2][3];
  if constexpr (Shape::kSplit) {
    MSTPP_UNROLL
    for (int i = 0; i < 6; ++i) rest[i / 3][i % 3] = LoadWeightRows(p.weight, 6 + i, lane);
  }
  __syncthreads();

  [[maybe_unused]] const int64_t rests = static_cast<int64_t>(p.images) * p.height * p.width * 64;
  constexpr int kTiles = 4;
  MSTPP_NO_UNROLL
  for (int i = warp; i < Shape::kRows * Shape::kColumns / (8 * kTiles); i += Shape::kWarps) {
    const int r = i * (8 * kTiles) / Shape::kColumns;
    const int first = i * (8 * kTiles) % Shape::kColumns + g;
    if (row + r >= p.height) break;
    const uint2* from = StagedPicture<kMaps>::Pixel(r, first + (t == 3 ? 1 : t));
    const int64_t pixel =
        (static_cast<int64_t>(image) * p.height + row + r) * p.width + column + first;
    auto* to = static_cast<unsigned char*>(p.y) + pixel * 64 + t * 16;
    MSTPP_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      float sum[2][4] = {};
      MSTPP_UNROLL
      for (int dy = 0; dy < 3; ++dy) {
        const uint2 x = from[dy * Shape::kPixels + n * 8];
        MSTPP_UNROLL
        for (int half = 0; half < 2; ++half) {
          Multiply(sum[half], weight[half][dy], HalfPair{x.x}, HalfPair{x.y}, sum[half]);
        }
        if constexpr (Shape::kSplit) {
          const uint2 x_rest = from[dy * Shape::kPixels + n * 8 + Shape::kPlaneBytes / 8];
          MSTPP_UNROLL
          for (int half = 0; half < 2; ++half) {
            Multiply(sum[half], rest[half][dy], HalfPair{x.x}, HalfPair{x.y}, sum[half]);
            Multiply(sum[half], weight[half][dy], HalfPair{x_rest.x}, HalfPair{x_rest.y},
                     sum[half]);
          }
        }
      }
      HalfVec vec;
      TurnToPixels(sum[0], vec.pair[0], vec.pair[1]);
      TurnToPixels(sum[1], vec.pair[2], vec.pair[3]);
      const bool inside = column + first + n * 8 < p.width;
      if (inside) StoreVec(to + n * 512, vec);
      if constexpr (Shape::kSplit) {
        TurnRestsToPixels(sum[0], vec.pair[0], vec.pair[1]);
        TurnRestsToPixels(sum[1], vec.pair[2], vec.pair[3]);
        if (inside) StoreVec(to + rests + n * 512, vec);
      }
    }
  }
}

}  // namespace mstpp::cuda
