// SPDX-License-Identifier: Apache-2.0
// Dense 3 x 3 convolutions at full resolution, 32 to 32 channels, zero padding, no bias:
//
//   y = conv(x) [+ residual]
//
// ImageConv reads the picture itself (any strides, padded by reflection or zeros as it goes);
// CubeConv writes the cube itself (any strides, cropped).
//
// Work: a warp takes a strip of 16 columns and `rows` rows and needs no other warp. Every input row
// is loaded once and added to the three output rows it touches; the nine taps' weights stay in
// registers (FP16) or shared memory. ImageConv sums over the 27 neighbours of a pixel at once: a
// lane gathers eight of them for each of its pixels.
#pragma once

#include "cuda/kernels/io.cuh"
#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda {

struct ConvParams {
  const void* x;         // images x height x width x 32
  const void* residual;  // the same, or null
  void* y;               // the same (unless the cube is written)
  const void* weight;    // tiles [9 taps][4]
  const NetworkIo* io;   // CubeConv only
  int channels;          // of the network
  int height, width, rows, strips, segments, images;
};

// A warp's queue of input rows: 18 pixels, even ones first, so that eight lanes' pixels are
// neighbours.
template <class Policy>
struct ConvShape {
  using V = Vec<typename Policy::Pair>;
  using Stored = typename Policy::Stored;
  static constexpr bool kWeightsInRegisters = sizeof(V) == 16;
  static constexpr int kColumns = 18;
  static constexpr int kPlane = kColumns * 64;  // a 16-byte word of every Vec of a row
  static constexpr int kRowBytes = kPlane * kWords<Stored>;
  static constexpr int kQueue = 4;  // rows, a power of two
  static constexpr int kWeightBytes = kWeightsInRegisters ? 0 : 36 * kWarpVecBytes<V>;
  static constexpr int SharedBytes(int warps) { return kWeightBytes + warps * kQueue * kRowBytes; }
};

template <class Policy, bool kCube, int kWarps>
class Conv3x3 {
  using Shape = ConvShape<Policy>;
  using Pair = typename Policy::Pair;
  using V = typename Shape::V;
  using Stored = typename Shape::Stored;
  static constexpr int kElement = sizeof(Stored) / 8;

 public:
  MSTPP_DEVICE explicit Conv3x3(const ConvParams& p)
      : p_(p), lane_(threadIdx.x & 31), g_(lane_ >> 2), t_(lane_ & 3) {
    unsigned char* shared = SharedMemory();
    weights_ = shared;
    const int warp = threadIdx.x >> 5;
    queue_ = shared + Shape::kWeightBytes + warp * Shape::kQueue * Shape::kRowBytes;
    for (int i = threadIdx.x; i < Shape::kWeightBytes / 16; i += kWarps * 32) {
      reinterpret_cast<uint4*>(shared)[i] = static_cast<const uint4*>(p.weight)[i];
    }
    const int item = blockIdx.x * kWarps + warp;
    strip_ = item % p.strips;
    row_begin_ = item / p.strips % p.segments * p.rows;
    row_end_ = min(row_begin_ + p.rows, p.height);
    image_ = item / p.strips / p.segments;
    image_offset_ = static_cast<size_t>(image_) * p.height * p.width * 32;
  }

  MSTPP_DEVICE void Run() {
    if constexpr (!Shape::kWeightsInRegisters) __syncthreads();
    if (image_ >= p_.images) return;
    V held[Shape::kWeightsInRegisters ? 36 : 1];
    if constexpr (Shape::kWeightsInRegisters) {
      MSTPP_UNROLL
      for (int i = 0; i < 36; ++i) {
        held[i] = LoadWarpVec<V>(static_cast<const unsigned char*>(p_.weight), i, lane_);
      }
    }
    const auto weight = [&](int i) {
      if constexpr (Shape::kWeightsInRegisters) {
        return held[i];
      } else {
        return LoadWarpVec<V>(weights_, i, lane_);
      }
    };

    float middle[4][4] = {}, below[4][4] = {};
    for (int y = row_begin_ - 1; y < row_begin_ + 2; ++y) Fetch(y);
    MSTPP_NO_UNROLL
    for (int y = row_begin_ - 1; y <= row_end_; ++y) {
      __syncwarp();
      Fetch(y + 3);
      CopyWait<3>();
      __syncwarp();
      V x[4];
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) {
        x[i] = Policy::Unpack(
            LoadVec<Stored>(Row(y) + ((i & 1) * 9 + g_ + (i >> 1)) * 64 + t_ * 16, Shape::kPlane));
      }
      float above[4][4];
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        MSTPP_UNROLL
        for (int c = 0; c < 4; ++c) {
          above[j][c] = middle[j][c];
          middle[j][c] = below[j][c];
        }
      }
      MSTPP_UNROLL
      for (int dx = 0; dx < 3; ++dx) {
        const Rows<Pair> rows = MakeRows(x[dx], x[dx + 1]);
        MSTPP_UNROLL
        for (int j = 0; j < 4; ++j) {
          Policy::template MultiplyWide<false>(above[j], rows, weight((6 + dx) * 4 + j));
          Policy::template MultiplyWide<false>(middle[j], rows, weight((3 + dx) * 4 + j));
          if (dx == 0) {
            Policy::template MultiplyWide<true>(below[j], rows, weight(dx * 4 + j));
          } else {
            Policy::template MultiplyWide<false>(below[j], rows, weight(dx * 4 + j));
          }
        }
      }
      if (y > row_begin_) Finish(y - 1, above);
    }
  }

 private:
  MSTPP_DEVICE unsigned char* Row(int y) const {
    return queue_ + (y & (Shape::kQueue - 1)) * Shape::kRowBytes;
  }

  MSTPP_DEVICE void Fetch(int y) {
    const char* x = static_cast<const char*>(p_.x) + image_offset_ * kElement;
    unsigned char* row = Row(y);
    const bool row_inside = static_cast<unsigned>(y) < static_cast<unsigned>(p_.height);
    MSTPP_UNROLL
    for (int first = 0; first < Shape::kColumns * 4; first += 32) {
      const int i = first + lane_;
      if (i < Shape::kColumns * 4) {
        const int pixel = i >> 2, part = i & 3;
        const int column = strip_ * 16 - 1 + pixel;
        const bool inside =
            row_inside && static_cast<unsigned>(column) < static_cast<unsigned>(p_.width);
        const size_t offset =
            inside ? (static_cast<size_t>(y) * p_.width + column) * 32 + 8 * part : 0;
        unsigned char* to = row + ((pixel & 1) * 9 + (pixel >> 1)) * 64 + part * 16;
        MSTPP_UNROLL
        for (int w = 0; w < kWords<Stored>; ++w) {
          CopyAsync(to + w * Shape::kPlane, x + offset * kElement + w * 16, inside);
        }
      }
    }
    CopyCommit();
  }

  MSTPP_DEVICE void Finish(int y, float (&sum)[4][4]) const {
    const int column = strip_ * 16 + 2 * g_;
    const bool in_lo = column < p_.width, in_hi = column + 1 < p_.width;
    const size_t offset =
        (image_offset_ + (static_cast<size_t>(y) * p_.width + column) * 32 + 8 * t_) * kElement;
    if (p_.residual != nullptr) {
      const char* residual = static_cast<const char*>(p_.residual) + offset;
      V lo = Zero<Pair>(), hi = Zero<Pair>();
      if (in_lo) lo = Policy::Unpack(LoadVec<Stored>(residual));
      if (in_hi) hi = Policy::Unpack(LoadVec<Stored>(residual + 32 * kElement));
      Policy::AddWide(sum, MakeRows(lo, hi), lane_);
    }
    if constexpr (kCube) {
      WriteCube(y, column, sum);
    } else {
      V lo, hi;
      Narrow(sum, lo, hi);
      char* out = static_cast<char*>(p_.y) + offset;
      if (in_lo) StoreVec(out, Policy::PackStored(lo));
      if (in_hi) StoreVec(out + 32 * kElement, Policy::PackStored(hi));
    }
  }

  MSTPP_DEVICE void WriteCube(int y, int column, const float (&sum)[4][4]) const {
    const NetworkIo& io = *p_.io;
    if (y >= io.cube_height) return;
    float* out =
        io.cube + image_ * io.cube_stride[0] + y * io.cube_stride[2] + column * io.cube_stride[3];
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      MSTPP_UNROLL
      for (int c = 0; c < 4; ++c) {
        const int channel = 8 * t_ + 2 * j + (c & 1), side = c >> 1;
        if (channel < p_.channels && column + side < io.cube_width) {
          out[channel * io.cube_stride[1] + side * io.cube_stride[3]] = sum[j][c];
        }
      }
    }
  }

  const ConvParams& p_;
  unsigned char *weights_, *queue_;
  int lane_, g_, t_, strip_, image_, row_begin_, row_end_;
  size_t image_offset_;
};

struct ImageConvParams {
  const NetworkIo* io;
  void* y;             // images x height x width x 32
  const void* weight;  // tiles [4]: inputs are (tap, channel), channel fastest, then 1
  int in_channels;     // 9 in_channels < 32
  int height, width, rows, strips, segments, images;
};

template <class Policy, int kWarps>
MSTPP_DEVICE void ImageConvBody(const ImageConvParams& p) {
  using Pair = typename Policy::Pair;
  using V = Vec<Pair>;
  using Stored = typename Policy::Stored;
  constexpr int kElement = sizeof(Stored) / 8;
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int item = blockIdx.x * kWarps + (threadIdx.x >> 5);
  const int strip = item % p.strips;
  const int row_begin = item / p.strips % p.segments * p.rows;
  const int row_end = min(row_begin + p.rows, p.height);
  const int image = item / p.strips / p.segments;
  if (image >= p.images) return;

  V weight[4];
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) {
    weight[j] = LoadWarpVec<V>(static_cast<const unsigned char*>(p.weight), j, lane);
  }
  const NetworkIo io = *p.io;
  const float* in = io.image + image * io.image_stride[0];
  const int inputs = 9 * p.in_channels;
  const int column = strip * 16 + 2 * g;

  MSTPP_NO_UNROLL
  for (int y = row_begin; y < row_end; ++y) {
    float value[2][8];
    MSTPP_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int k = 8 * t + i;
      const int tap = k / p.in_channels, channel = k - tap * p.in_channels;
      const int dy = tap / 3 - 1, dx = tap % 3 - 1;
      MSTPP_UNROLL
      for (int side = 0; side < 2; ++side) {
        value[side][i] = k == inputs ? 1.0f : 0.0f;
        if (k < inputs) {
          value[side][i] =
              ReadImage(io, in, channel, y + dy, column + side + dx, p.height, p.width);
        }
      }
    }
    V lo, hi;
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      Set(lo.pair[j], value[0][2 * j], value[0][2 * j + 1]);
      Set(hi.pair[j], value[1][2 * j], value[1][2 * j + 1]);
    }
    const Rows<Pair> rows = MakeRows(lo, hi);
    float sum[4][4];
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) Policy::template MultiplyWide<true>(sum[j], rows, weight[j]);
    Narrow(sum, lo, hi);
    char* out = static_cast<char*>(p.y) +
                ((static_cast<size_t>(image) * p.height + y) * p.width + column) * 32 * kElement +
                8 * t * kElement;
    if (column < p.width) StoreVec(out, Policy::PackStored(lo));
    if (column + 1 < p.width) StoreVec(out + 32 * kElement, Policy::PackStored(hi));
  }
}

}  // namespace mstpp::cuda
