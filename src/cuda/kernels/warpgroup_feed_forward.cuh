// SPDX-License-Identifier: Apache-2.0
// The same as feed_forward.cuh, for GPUs with products of warpgroups (wgmma.cuh):
//
//   x1  = x + d + X M' + b_proj
//   out = x1 + W2 GELU(dw3(GELU(W1' LN(x1) + b1)))   LN without gain, offset and mean
//
// Work: a block of three warpgroups takes a tile of 16 columns by 8 rows and the pixels around it,
// 18 x 10, row after row: the rows of the products, of which each warp has sixteen. LN(x1) stays in
// its registers. The hidden channels come 128 at a time: their first product, to shared memory for
// the 3 x 3, whose results are again shared memory's, as the second product's first factor; that
// sums over all of them in two of the warpgroups' registers, sixteen pixels of a row a warp. All
// weights come through a queue in shared memory, long before they are needed.
#pragma once

#include "cuda/kernels/lanes.cuh"
#include "cuda/kernels/wgmma.cuh"

namespace mstpp::cuda {

struct WarpgroupFeedForwardParams {
  const void* x;          // images x height x width x C
  const void* d;          // the same
  void* out;              // the same
  const void* matrix;     // images of M, b_proj in its last column: bricks (Packer::Bricks)
  const void* weights;    // of every 128 hidden channels bricks of W1, b1 in the last column, and
                          // of W2
  const void* depthwise;  // [4 C / 128][9 taps][128]
  float reciprocal_channels;  // of the network's, which are less than C
  int height, width, strips, segments, images;
};

template <int C>
struct WarpgroupFeedForwardShape {
  static constexpr int kThreads = 384;
  static constexpr int kRows = 8, kColumns = 16;  // of a tile
  static constexpr int kPitch = kColumns + 2;     // pixels of a row with those around
  static constexpr int kPixels = kPitch * (kRows + 2);
  static constexpr int kProductRows = 192;  // kPixels and some that do not matter
  static constexpr int kHidden = 128;       // channels at a time
  static constexpr int kTimes = 4 * C / kHidden;
  static constexpr int kPixelBytes = 2 * C, kHiddenBytes = 2 * kHidden;
  // Shared memory.
  static constexpr int kX = 0;                                        // x, then x1
  static constexpr int kMap = kX + kProductRows * kPixelBytes;        // d, then hidden channels
  static constexpr int kFactor = kMap + kProductRows * kHiddenBytes;  // M, then GELU(dw3)
  static constexpr int kWeights = kFactor + kRows * kColumns * kHiddenBytes;
  static constexpr int kWeightBytes = kHidden * kPixelBytes;  // of W1 or W2
  // Of the queue: what is in use, and of what comes next as much as there is room for.
  static constexpr int kPlaces = C == 64 ? 4 : 3;
  static constexpr bool kStays = kPlaces == 2 * kTimes;
  static constexpr int kSharedBytes = kWeights + kPlaces * kWeightBytes;
  static_assert(kPixels <= kProductRows && C * kPixelBytes <= kWeights - kFactor);
};

template <int C>
class WarpgroupFeedForward {
  using Shape = WarpgroupFeedForwardShape<C>;
  static constexpr int kSteps = C / 16;  // of a sum over C channels
  static constexpr int kTimes = Shape::kTimes, kHidden = Shape::kHidden;

 public:
  MSTPP_DEVICE explicit WarpgroupFeedForward(const WarpgroupFeedForwardParams& p)
      : p_(p),
        shared_(SharedMemory()),
        lane_(threadIdx.x & 31),
        warp_(threadIdx.x >> 5),
        tiles_(p.strips * p.segments * p.images) {}

  MSTPP_DEVICE void Run() {
    for (int i = 0; i < Shape::kPlaces; ++i) FetchWeights(i);
    WaitForPrevious();
    int time = 0;  // of all tiles'
    MSTPP_NO_UNROLL
    for (int tile = blockIdx.x; tile < tiles_; tile += gridDim.x, time += kTimes) {
      const int segment = tile / p_.strips;
      column_ = tile % p_.strips * Shape::kColumns;
      row_ = segment % p_.segments * Shape::kRows;
      image_ = segment / p_.segments;
      Tile(time);
      __syncthreads();
    }
  }

 private:
  // Where 16 bytes, or `chunk`, of a row of either map lie: so that neither eight rows' nor a row's
  // meet in a bank. `turn`: the row, or whatever differs in neighbours.
  MSTPP_DEVICE static int Chunk(int chunk, int turn) { return (chunk ^ (turn & 7)) * 16; }

  // Starts the copy of the i-th weights from the beginning on: W1's and W2's in turn.
  MSTPP_DEVICE void FetchWeights(int i) const {
    const auto* from =
        static_cast<const unsigned char*>(p_.weights) + i % (2 * kTimes) * Shape::kWeightBytes;
    unsigned char* to = Weights(i);
    MSTPP_UNROLL
    for (int at = threadIdx.x * 16; at < Shape::kWeightBytes; at += Shape::kThreads * 16) {
      CopyAsync(to + at, from + at, true);
    }
    CopyCommit();
  }
  MSTPP_DEVICE unsigned char* Weights(int i) const {
    return shared_ + Shape::kWeights + i % Shape::kPlaces * Shape::kWeightBytes;
  }

  // Starts the copy of the tile's x and d, and of its image's M.
  MSTPP_DEVICE void Fetch() const {
    constexpr int kChunks = C / 8, kTogether = Shape::kThreads / kChunks;
    const int chunk = threadIdx.x % kChunks;
    const size_t image = static_cast<size_t>(image_) * p_.height * p_.width;
    MSTPP_UNROLL
    for (int pixel = threadIdx.x / kChunks; pixel < Shape::kProductRows; pixel += kTogether) {
      const int row = row_ - 1 + pixel / Shape::kPitch,
                column = column_ - 1 + pixel % Shape::kPitch;
      const bool inside =
          pixel < Shape::kPixels && row >= 0 && row < p_.height && column >= 0 && column < p_.width;
      const size_t at = ((image + row * p_.width + column) * C + chunk * 8) * 2;
      CopyAsync(shared_ + Shape::kX + pixel * Shape::kPixelBytes + Chunk(chunk, pixel),
                static_cast<const unsigned char*>(p_.x) + at, inside);
      CopyAsync(shared_ + Shape::kMap + pixel * Shape::kHiddenBytes + Chunk(chunk, pixel),
                static_cast<const unsigned char*>(p_.d) + at, inside);
    }
    const auto* matrix = static_cast<const unsigned char*>(p_.matrix) +
                         static_cast<size_t>(image_) * C * Shape::kPixelBytes;
    MSTPP_UNROLL
    for (int at = threadIdx.x * 16; at < C * Shape::kPixelBytes; at += Shape::kThreads * 16) {
      CopyAsync(shared_ + Shape::kFactor + at, matrix + at, true);
    }
    CopyCommit();
  }

  MSTPP_DEVICE void Tile(int time) {
    Fetch();
    CopyWait<0>();
    ShareWithProducts();
    __syncthreads();
    uint32_t normed[kSteps][4];
    Attend(normed);
    float sum[C / 2];
    MSTPP_UNROLL
    for (int i = 0; i < C / 2; ++i) sum[i] = 0.0f;
    // All times in one: else ptxas 13.0 takes the registers of `normed` for others meanwhile.
    if constexpr (kTimes == 2) {
      Layers(time, normed, sum);
      Layers(time + 1, normed, sum);
    } else {
      MSTPP_NO_UNROLL
      for (int i = time; i < time + kTimes; ++i) Layers(i, normed, sum);
    }
    if (warp_ < Shape::kRows) Finish(sum);
  }

  // Takes the hidden channels of a time through all layers.
  MSTPP_DEVICE void Layers(int i, uint32_t (&normed)[kSteps][4], float (&sum)[C / 2]) const {
    Expand(normed, Weights(2 * i));
    HalfPair taps[9][2];
    LoadTaps(i % kTimes, taps);
    __syncthreads();
    // What was in their places has been used: W2 of the time before, W1 of this.
    if (!Shape::kStays) {
      if (i > 0) FetchWeights(2 * i + 2);
      FetchWeights(2 * i + 3);
    }
    if (warp_ < 8) {
      ConvolveRows<3>(taps);
    } else {
      ConvolveRows<2>(taps);
    }
    CopyWait<1>();
    ShareWithProducts();
    __syncthreads();
    if (warp_ < Shape::kRows) Contract(sum, Weights(2 * i + 1));
  }

  // Sixteen pixels' rows as a product's first factor, of the inputs 16 s and on: row lane % 16 from
  // `row`, which is turned by `turn`.
  MSTPP_DEVICE void LoadFactor(uint32_t (&a)[4], const unsigned char* row, int turn, int s) const {
    LoadMatrices(a, row + Chunk(2 * s + (lane_ >> 4), turn));
  }
  MSTPP_DEVICE void StoreFactor(unsigned char* row, int turn, int s, const uint32_t (&a)[4]) const {
    StoreMatrices(row + Chunk(2 * s + (lane_ >> 4), turn), a);
  }
  // sum += the rows themselves: channels 16 s and on.
  MSTPP_DEVICE void AddRows(float (&sum)[C / 2], const uint32_t (&a)[4], int s) const {
    const int g = lane_ >> 2, t = lane_ & 3;
    const uint32_t one = t == (g >> 1) ? ((g & 1) ? 0x3c000000u : 0x00003c00u) : 0u;
    MSTPP_UNROLL
    for (int j = 0; j < 2; ++j) {
      float* at = sum + 8 * s + 4 * j;
      float d[4];
      MmaHalf(d, a[2 * j], a[2 * j + 1], one, at[0], at[1], at[2], at[3]);
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) at[i] = d[i];
    }
  }

  // x1 of the warp's sixteen pixels, in x's place, and LN(x1).
  MSTPP_DEVICE void Attend(uint32_t (&normed)[kSteps][4]) const {
    const int pixel = 16 * warp_ + (lane_ & 15);
    unsigned char* x_row = shared_ + Shape::kX + pixel * Shape::kPixelBytes;
    const unsigned char* d_row = shared_ + Shape::kMap + pixel * Shape::kHiddenBytes;
    MSTPP_UNROLL
    for (int s = 0; s < kSteps; ++s) LoadFactor(normed[s], x_row, pixel, s);
    float x1[C / 2];
    const uint64_t matrix = Bricks<C>(shared_ + Shape::kFactor);
    ProductsBegin(x1, normed);
    MSTPP_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      if (s == 0) {
        MultiplyBricks<true>(x1, normed[s], matrix);
      } else {
        MultiplyBricks<false>(x1, normed[s], BricksAt<C>(matrix, s));
      }
    }
    ProductsEnd(x1, normed);
    MSTPP_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      AddRows(x1, normed[s], s);
      uint32_t d[4];
      LoadFactor(d, d_row, pixel, s);
      AddRows(x1, d, s);
    }
    float total[2] = {}, squares[2] = {};
    MSTPP_UNROLL
    for (int i = 0; i < C / 2; ++i) {
      total[i >> 1 & 1] += x1[i];
      squares[i >> 1 & 1] = fmaf(x1[i], x1[i], squares[i >> 1 & 1]);
    }
    MSTPP_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) {
        normed[s][i] = HalfPack(x1[8 * s + 2 * i], x1[8 * s + 2 * i + 1]);
      }
      StoreFactor(x_row, pixel, s, normed[s]);
    }
    MSTPP_UNROLL
    for (int r = 0; r < 2; ++r) {
      for (int mask = 1; mask <= 2; mask *= 2) {
        total[r] += ShuffleXor(total[r], mask);
        squares[r] += ShuffleXor(squares[r], mask);
      }
      // Without the last channel's 1.
      const float mean = (total[r] - 1.0f) * p_.reciprocal_channels;
      const float square = (squares[r] - 1.0f) * p_.reciprocal_channels;
      const float variance = fmaxf(fmaf(-mean, mean, square), 0.0f);
      const float scale = ReciprocalSqrt(variance + 1e-5f);
      HalfPair factor, last;
      Set(factor, scale, scale);
      last = factor;
      if ((lane_ & 3) == 3) SetHigh(last, 1.0f);
      MSTPP_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        normed[s][r] = HalfMul(normed[s][r], factor.bits);
        normed[s][r + 2] = HalfMul(normed[s][r + 2], s < kSteps - 1 ? factor.bits : last.bits);
      }
    }
  }

  // GELU(W1' LN(x1)) of the warp's pixels, to shared memory.
  MSTPP_DEVICE void Expand(uint32_t (&normed)[kSteps][4], const unsigned char* weights) const {
    uint32_t hidden[kHidden / 4];
    const uint64_t bricks = Bricks<kHidden>(weights);
    ProductsBegin(hidden, normed);
    MSTPP_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      if (s == 0) {
        MultiplyBricks<true>(hidden, normed[s], bricks);
      } else {
        MultiplyBricks<false>(hidden, normed[s], BricksAt<kHidden>(bricks, s));
      }
    }
    ProductsEnd(hidden, normed);
    const int pixel = 16 * warp_ + (lane_ & 15), turn = pixel % Shape::kPitch;
    unsigned char* row = shared_ + Shape::kMap + pixel * Shape::kHiddenBytes;
    MSTPP_UNROLL
    for (int s = 0; s < kHidden / 16; s += 2) {
      HalfPair z[8];
      MSTPP_UNROLL
      for (int i = 0; i < 8; ++i) z[i].bits = hidden[4 * s + i];
      Gelu(z);
      StoreFactor(row, turn, s, {z[0].bits, z[1].bits, z[2].bits, z[3].bits});
      StoreFactor(row, turn, s + 1, {z[4].bits, z[5].bits, z[6].bits, z[7].bits});
    }
  }

  // For the 3 x 3 a lane has channels 4 lane .. 4 lane + 3 of four columns, in some rows.
  MSTPP_DEVICE void LoadTaps(int time, HalfPair (&taps)[9][2]) const {
    const auto* from = static_cast<const uint2*>(p_.depthwise) + time * 9 * 32 + lane_;
    MSTPP_UNROLL
    for (int tap = 0; tap < 9; ++tap) {
      const uint2 word = from[tap * 32];
      taps[tap][0].bits = word.x;
      taps[tap][1].bits = word.y;
    }
  }
  // Three rows, or the last two.
  template <int kRows>
  MSTPP_DEVICE void ConvolveRows(const HalfPair (&taps)[9][2]) const {
    const int row = (warp_ >> 2) * 3, column = (warp_ & 3) * 4;
    const unsigned char* from =
        shared_ + Shape::kMap + (row * Shape::kPitch + column) * Shape::kHiddenBytes;
    unsigned char* to =
        shared_ + Shape::kFactor + (row * Shape::kColumns + column) * Shape::kHiddenBytes;
    int offset[6];
    MSTPP_UNROLL
    for (int i = 0; i < 6; ++i) {
      offset[i] = Chunk(lane_ >> 1, column + i) + 8 * (lane_ & 1);
    }
    HalfPair sum[kRows][8];
    MSTPP_UNROLL
    for (int r = 0; r < kRows + 2; ++r) {
      HalfPair in[6][2];
      MSTPP_UNROLL
      for (int i = 0; i < 6; ++i) {
        const uint2 word = *reinterpret_cast<const uint2*>(
            from + (r * Shape::kPitch + i) * Shape::kHiddenBytes + offset[i]);
        in[i][0].bits = word.x;
        in[i][1].bits = word.y;
      }
      MSTPP_UNROLL
      for (int y = r < 2 ? 0 : r - 2; y < kRows && y <= r; ++y) {
        const int ky = r - y;
        MSTPP_UNROLL
        for (int kx = 0; kx < 3; ++kx) {
          MSTPP_UNROLL
          for (int i = 0; i < 8; ++i) {
            const HalfPair x = in[i / 2 + kx][i % 2], w = taps[3 * ky + kx][i % 2];
            sum[y][i] = ky == 0 && kx == 0 ? Mul(x, w) : Fma(x, w, sum[y][i]);
          }
        }
      }
      if (r < 2) continue;
      Gelu(sum[r - 2]);
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) {
        *reinterpret_cast<uint2*>(to + ((r - 2) * Shape::kColumns + i) * Shape::kHiddenBytes +
                                  offset[i]) =
            make_uint2(sum[r - 2][2 * i].bits, sum[r - 2][2 * i + 1].bits);
      }
    }
  }

  // sum += W2 of what ConvolveRows left, of row `warp_` of the tile.
  MSTPP_DEVICE void Contract(float (&sum)[C / 2], const unsigned char* weights) const {
    const int turn = lane_ & 15;
    const unsigned char* row = shared_ + Shape::kFactor + (16 * warp_ + turn) * Shape::kHiddenBytes;
    uint32_t a[kHidden / 16][4];
    MSTPP_UNROLL
    for (int s = 0; s < kHidden / 16; ++s) LoadFactor(a[s], row, turn, s);
    const uint64_t bricks = Bricks<C>(weights);
    ProductsBegin(sum, a);
    MSTPP_UNROLL
    for (int s = 0; s < kHidden / 16; ++s) {
      MultiplyBricks<false>(sum, a[s], BricksAt<C>(bricks, s));
    }
    ProductsEnd(sum, a);
  }

  // The outputs of row `warp_` of the tile: x1 becomes them in its place, then they leave.
  MSTPP_DEVICE void Finish(float (&sum)[C / 2]) const {
    const int first = (warp_ + 1) * Shape::kPitch + 1, pixel = first + (lane_ & 15);
    unsigned char* row = shared_ + Shape::kX + pixel * Shape::kPixelBytes;
    MSTPP_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      uint32_t a[4];
      LoadFactor(a, row, pixel, s);
      AddRows(sum, a, s);
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) a[i] = HalfPack(sum[8 * s + 2 * i], sum[8 * s + 2 * i + 1]);
      StoreFactor(row, pixel, s, a);
    }
    __syncwarp();
    if (row_ + warp_ >= p_.height) return;
    constexpr int kChunks = C / 8;
    const int chunk = lane_ % kChunks;
    auto* to = static_cast<unsigned char*>(p_.out) +
               ((static_cast<size_t>(image_) * p_.height + row_ + warp_) * p_.width + column_) *
                   Shape::kPixelBytes +
               chunk * 16;
    MSTPP_UNROLL
    for (int i = lane_ / kChunks; i < Shape::kColumns; i += 32 / kChunks) {
      if (column_ + i >= p_.width) continue;
      StoreVec(to + i * Shape::kPixelBytes,
               LoadVec(shared_ + Shape::kX + (first + i) * Shape::kPixelBytes +
                       Chunk(chunk, first + i)));
    }
  }

  const WarpgroupFeedForwardParams& p_;
  unsigned char* shared_;
  int lane_, warp_, tiles_;
  int column_, row_, image_;  // of the tile
};

}  // namespace mstpp::cuda
