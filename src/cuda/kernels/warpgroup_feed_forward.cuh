// SPDX-License-Identifier: Apache-2.0
// The same as feed_forward.cuh, for GPUs with products of warpgroups (hopper.cuh):
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

#include "cuda/kernels/hopper.cuh"
#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda {

struct WarpgroupFeedForwardParams {
  const void* x;          // images x height x width x C
  const void* d;          // the same
  void* out;              // the same
  const void* matrix;     // images of M, b_proj in its last column: bricks (Packer::Bricks)
  const void* weights;    // of every 128 hidden channels bricks of W1, b1 in the last column, and
                          // of W2
  const void* depthwise;  // [4 C] of Packer::Taps
  float reciprocal_channels;  // of the network's, which are less than C
  int height, width, strips, segments, images;
  BoxMap x_boxes, d_boxes;  // x and d, for boxes of a tile with what is around it
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
  // In shared memory maps are panels of 64 channels, in which a pixel's 128 bytes follow each
  // other.
  static constexpr int kPanels = C / 64;
  static constexpr int kPanelBytes = kProductRows * 128;
  static constexpr int kOutputPanelBytes = kRows * kColumns * 128;
  static constexpr int kXBytes = kPanels * kPanelBytes;
  static constexpr int kWeightBytes = 2 * kHidden * C;  // of W1 or W2
  static constexpr int kMatrixBytes = 2 * C * C;
  // With so few channels there is room for all weights and for the next tile's pixels.
  static constexpr bool kAhead = C == 64;
  static constexpr int kPlaces = kAhead ? 2 * kTimes : 3;  // of weights
  // Shared memory.
  static constexpr int kX = 0;                                  // x, then x1
  static constexpr int kMap = kX + (kAhead ? 2 : 1) * kXBytes;  // hidden channels
  static constexpr int kFactor = kMap + 2 * kPanelBytes;        // GELU(dw3)
  static constexpr int kWeights = kFactor + 2 * kOutputPanelBytes;
  static constexpr int kEnd = kWeights + kPlaces * kWeightBytes;
  // d and M, in the places of others where there is no more room.
  static constexpr int kD = kAhead ? kEnd : kMap;
  static constexpr int kMatrix = kAhead ? kD + kXBytes : kFactor;
  static constexpr int kCopies = kAhead ? kMatrix + kMatrixBytes : kEnd;
  static constexpr int kSharedBytes = kCopies + (kPlaces + 1) * 8;
  static_assert(kPixels <= kProductRows && kHidden == 128 && kXBytes <= kFactor - kMap &&
                (kAhead || kMatrixBytes <= kWeights - kFactor));
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
    if (threadIdx.x == 0) {
      for (int i = 0; i <= Shape::kPlaces; ++i) InitCopies(Copies(i));
      for (int i = 0; i < Shape::kPlaces; ++i) FetchWeights(i);
    }
    WaitForPrevious();
    if (Shape::kAhead) Fetch(blockIdx.x, 0);
    __syncthreads();
    int turn = 0;
    MSTPP_NO_UNROLL
    for (int tile = blockIdx.x; tile < tiles_; tile += gridDim.x, ++turn) {
      place_ = At(tile);
      x_ = shared_ + Shape::kX + (Shape::kAhead ? (turn & 1) * Shape::kXBytes : 0);
      if (!Shape::kAhead) Fetch(tile, 0);
      Tile(turn, tile + gridDim.x);
      if (!Shape::kAhead) {
        OrderCopies();
        __syncthreads();
      }
    }
  }

 private:
  struct Place {
    int row, column, image;  // of a tile's first output
  };
  MSTPP_DEVICE Place At(int tile) const {
    const int segment = tile / p_.strips;
    return {segment % p_.segments * Shape::kRows, tile % p_.strips * Shape::kColumns,
            segment / p_.segments};
  }

  // Of a pixel of the hidden channels' maps, for Chunk: eight neighbours differ, and every other of
  // sixteen.
  MSTPP_DEVICE static int Turn(int pixel) { return pixel >> 1 ^ (pixel & 1) << 2; }

  // Where 16 bytes of a pixel lie in its 128: so that eight pixels' do not meet in a bank. `turn`:
  // the pixel, or whatever differs in neighbours.
  MSTPP_DEVICE static int Chunk(int chunk, int turn) { return ((chunk ^ turn) & 7) * 16; }

  MSTPP_DEVICE uint64_t* Copies(int place) const {
    return reinterpret_cast<uint64_t*>(shared_ + Shape::kCopies) + place;
  }
  // Of the weights in the order of use, W1's and W2's in turn, the i-th.
  MSTPP_DEVICE unsigned char* Weights(int i) const {
    return shared_ + Shape::kWeights + i % Shape::kPlaces * Shape::kWeightBytes;
  }
  // By one thread.
  MSTPP_DEVICE void FetchWeights(int i) const {
    const auto* from =
        static_cast<const unsigned char*>(p_.weights) + i % (2 * kTimes) * Shape::kWeightBytes;
    AnnounceCopies(Copies(i % Shape::kPlaces), Shape::kWeightBytes);
    BeginCopy(Weights(i), from, Shape::kWeightBytes, Copies(i % Shape::kPlaces));
  }
  MSTPP_DEVICE void AwaitWeights(int i) const {
    AwaitCopy(Copies(i % Shape::kPlaces), i / Shape::kPlaces);
  }

  // Starts the copies of a tile's x and d and, if it is not there, of its image's M.
  MSTPP_DEVICE void Fetch(int tile, int buffer) {
    if (threadIdx.x != 0 || tile >= tiles_) return;
    const Place place = At(tile);
    const bool wants_matrix = !Shape::kAhead || place.image != fetched_image_;
    fetched_image_ = place.image;
    uint64_t* copies = Copies(Shape::kPlaces);
    AnnounceCopies(copies, 2 * Shape::kPanels * Shape::kPixels * 128 +
                               (wants_matrix ? Shape::kMatrixBytes : 0));
    MSTPP_UNROLL
    for (int i = 0; i < Shape::kPanels; ++i) {
      unsigned char* to = shared_ + i * Shape::kPanelBytes;
      BeginBoxCopy<Shape::kPitch, Shape::kRows + 2>(to + Shape::kX + buffer * Shape::kXBytes,
                                                    p_.x_boxes, 64 * i, place.column - 1,
                                                    place.row - 1, place.image, copies);
      BeginBoxCopy<Shape::kPitch, Shape::kRows + 2>(
          to + Shape::kD, p_.d_boxes, 64 * i, place.column - 1, place.row - 1, place.image, copies);
    }
    if (wants_matrix) {
      BeginCopy(shared_ + Shape::kMatrix,
                static_cast<const unsigned char*>(p_.matrix) +
                    static_cast<size_t>(place.image) * Shape::kMatrixBytes,
                Shape::kMatrixBytes, copies);
    }
  }

  // `turn`: of the block's tiles; then comes `next`.
  MSTPP_DEVICE void Tile(int turn, int next) {
    AwaitCopy(Copies(Shape::kPlaces), turn);
    uint32_t normed[kSteps][4];
    Attend(normed);
    float sum[C / 2];
    MSTPP_UNROLL
    for (int i = 0; i < C / 2; ++i) sum[i] = 0.0f;
    if constexpr (Shape::kAhead) {
      // In one: in a loop ptxas 13.0 gives the registers of `normed` to others.
      MSTPP_UNROLL
      for (int i = 0; i < kTimes; ++i) {
        Layers(i, 2 * i, normed, sum, [&] {
          if (i == 0) Fetch(next, ~turn & 1);
        });
      }
    } else {
      MSTPP_NO_UNROLL
      for (int i = 0; i < kTimes; ++i) {
        const int weights = 2 * (turn * kTimes + i);
        Layers(i, weights, normed, sum, [&] {
          // What was in their places has been used: W2 of the time before, W1 of this.
          if (threadIdx.x != 0 || (next >= tiles_ && i == kTimes - 1)) return;
          if (weights > 0) FetchWeights(weights + 2);
          FetchWeights(weights + 3);
        });
      }
    }
    if (warp_ < Shape::kRows) Finish(sum);
  }

  // Takes hidden channels through all layers, the first of the `weights`-th on. `fetch` is called
  // where everybody is done with what was before.
  template <class F>
  MSTPP_DEVICE void Layers(int time, int weights, uint32_t (&normed)[kSteps][4],
                           float (&sum)[C / 2], const F& fetch) const {
    AwaitWeights(weights);
    Expand(normed, Weights(weights));
    Taps taps;
    LoadTaps(time, taps);
    if (Shape::kAhead && time == 0) OrderCopies();
    __syncthreads();
    fetch();
    Convolve(taps);
    __syncthreads();
    if (warp_ >= Shape::kRows) return;
    AwaitWeights(weights + 1);
    Contract(sum, Weights(weights + 1));
  }

  // Of sixteen pixels as a product's first factor, inputs 16 s and on: pixel lane % 16 from `pixel`
  // on, which is turned by `turn`.
  template <int kPanelBytes>
  MSTPP_DEVICE unsigned char* Factor(unsigned char* pixel, int turn, int s) const {
    return pixel + s / 4 * kPanelBytes + Chunk(2 * s + (lane_ >> 4), turn);
  }
  MSTPP_DEVICE void LoadFactor(uint32_t (&a)[4], unsigned char* pixel, int turn, int s) const {
    LoadMatrices(a, Factor<Shape::kPanelBytes>(pixel, turn, s));
  }
  MSTPP_DEVICE void StoreFactor(unsigned char* pixel, int turn, int s,
                                const uint32_t (&a)[4]) const {
    StoreMatrices(Factor<Shape::kPanelBytes>(pixel, turn, s), a);
  }
  // sum += the rows themselves: channels 16 s and on.
  MSTPP_DEVICE void AddRows(float (&sum)[C / 2], const uint32_t (&a)[4], int s) const {
    const uint32_t one = OnDiagonal(kOneHalf, lane_);
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
    unsigned char* x_row = x_ + pixel * 128;
    unsigned char* d_row = shared_ + Shape::kD + pixel * 128;
    MSTPP_UNROLL
    for (int s = 0; s < kSteps; ++s) LoadFactor(normed[s], x_row, pixel, s);
    float x1[C / 2];
    MultiplyRows<C, true>(x1, normed, shared_ + Shape::kMatrix);
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
      const float scale = NormScale(total[r], squares[r], p_.reciprocal_channels);
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

  // GELU(W1' LN(x1)) of the warp's pixels, to shared memory: of the first half of the channels
  // while the tensor cores have the second.
  MSTPP_DEVICE void Expand(uint32_t (&normed)[kSteps][4], const unsigned char* weights) const {
    constexpr int kHalf = kHidden / 2;
    uint32_t hidden[2][kHalf / 4];
    MSTPP_UNROLL
    for (int i = 0; i < 2; ++i) {
      BeginRows<kHidden, true>(hidden[i], normed, weights + i * kHalf * 16);
    }
    AwaitRows<1>(hidden[0], normed);
    Activate(hidden[0], 0);
    AwaitRows<0>(hidden[1], normed);
    Activate(hidden[1], kHalf / 16);
  }
  // Of the factors from the `first` on.
  template <int kSize>
  MSTPP_DEVICE void Activate(const uint32_t (&hidden)[kSize], int first) const {
    const int pixel = 16 * warp_ + (lane_ & 15), turn = Turn(pixel);
    unsigned char* row = shared_ + Shape::kMap + pixel * 128;
    MSTPP_UNROLL
    for (int s = 0; s < kSize / 4; s += 2) {
      HalfPair z[8];
      MSTPP_UNROLL
      for (int i = 0; i < 8; ++i) z[i].bits = hidden[4 * s + i];
      ShortGelu(z);
      StoreFactor(row, turn, first + s, {z[0].bits, z[1].bits, z[2].bits, z[3].bits});
      StoreFactor(row, turn, first + s + 1, {z[4].bits, z[5].bits, z[6].bits, z[7].bits});
    }
  }

  // The 3 x 3: products by diagonals, as in depthwise.cuh. A warp takes eight channels of rows y
  // and y + 4 of the tile together, y = 0, 1 or 2, 3; and then eight others. Of each a lane has the
  // two channels 2 t and 2 t + 1 of columns 2 g and 2 g + 1, g = lane / 4, t = lane % 4.
  static constexpr int kWarpsOfRows = Shape::kThreads / 32 / 2;
  static constexpr int kMostEights = (kHidden / 8 + kWarpsOfRows - 1) / kWarpsOfRows;
  struct Taps {
    uint4 first[kMostEights];  // of channel g of eight; of the last tap one half
    uint32_t last[kMostEights];
  };
  // Of the channels that the warp takes i-th.
  MSTPP_DEVICE int Eight(int i) const { return warp_ % kWarpsOfRows + i * kWarpsOfRows; }
  MSTPP_DEVICE void LoadTaps(int time, Taps& taps) const {
    MSTPP_UNROLL
    for (int i = 0; i < kMostEights; ++i) {
      if (Eight(i) >= kHidden / 8) continue;
      const auto* from = static_cast<const uint4*>(p_.depthwise) +
                         ((time * (kHidden / 8) + Eight(i)) * 8 + (lane_ >> 2)) * 2;
      taps.first[i] = from[0];
      taps.last[i] = from[1].x;
    }
  }
  MSTPP_DEVICE void Diagonals(const Taps& taps, int i, uint32_t (&diagonals)[9]) const {
    const bool on = (lane_ & 3) == lane_ >> 3, high = (lane_ & 4) != 0;
    const uint32_t even = on ? (high ? 0x1044u : 0x4410u) : 0x4444u;
    const uint32_t odd = on ? (high ? 0x3244u : 0x4432u) : 0x4444u;
    const uint32_t words[5] = {taps.first[i].x, taps.first[i].y, taps.first[i].z, taps.first[i].w,
                               taps.last[i]};
    MSTPP_UNROLL
    for (int tap = 0; tap < 9; ++tap) {
      diagonals[tap] = PermuteBytes(words[tap / 2], 0u, tap % 2 == 0 ? even : odd);
    }
  }
  MSTPP_DEVICE void Convolve(const Taps& taps) const {
    constexpr int kApart = Shape::kRows / 2;
    // For LoadMatrices, of the rows y and y + 4 in turn columns 2 g - 1 and 2 g + 1 of the tile,
    // and for StoreMatrices 2 g and 2 g + 1.
    const int row = warp_ / kWarpsOfRows * 2, lower = (lane_ >> 3 & 1) * kApart;
    const int right = lane_ >> 4, eighth = lane_ & 7;
    int from[4];
    MSTPP_UNROLL
    for (int r = 0; r < 4; ++r) {
      const int pixel = (row + r + lower) * Shape::kPitch + 2 * (eighth + right);
      from[r] = Shape::kMap + pixel * 128 + Chunk(0, Turn(pixel));
    }
    const int column = 2 * eighth + right;
    const int to =
        Shape::kFactor + ((row + lower) * Shape::kColumns + column) * 128 + Chunk(0, Turn(column));
    MSTPP_UNROLL
    for (int i = 0; i < kMostEights; ++i) {
      const int eight = Eight(i), panel = eight / 8, chunk = eight % 8 * 16;
      if (eight >= kHidden / 8) continue;
      uint32_t d[9];
      Diagonals(taps, i, d);
      HalfPair sum[2][4];  // the even columns of both rows, then the odd
      MSTPP_UNROLL
      for (int r = 0; r < 4; ++r) {
        const int offset = (from[r] ^ chunk) + panel * Shape::kPanelBytes;
        uint32_t even[4], odd[4];  // columns 2 g - 1 and 2 g + 1; 2 g and 2 g + 2
        LoadMatrices(even, shared_ + offset);
        LoadMatrices(odd, shared_ + (offset ^ 64) + 128);
        MSTPP_UNROLL
        for (int y = r < 2 ? 0 : r - 2; y < 2 && y <= r; ++y) {
          const int ky = r - y;
          AddTaps(sum[y][0], sum[y][1], even, odd[0], odd[1], d + 3 * ky, ky == 0);
          AddTaps(sum[y][2], sum[y][3], odd, even[2], even[3], d + 3 * ky, ky == 0);
        }
      }
      MSTPP_UNROLL
      for (int y = 0; y < 2; ++y) {
        ShortGelu(sum[y]);
        StoreMatrices(
            shared_ + (to ^ chunk) + panel * Shape::kOutputPanelBytes + y * Shape::kColumns * 128,
            {sum[y][0].bits, sum[y][1].bits, sum[y][2].bits, sum[y][3].bits});
      }
    }
  }
  // Adds three taps: left and right as one product, and the middle.
  MSTPP_DEVICE static void AddTaps(HalfPair& lo, HalfPair& hi, const uint32_t (&sides)[4],
                                   uint32_t middle_lo, uint32_t middle_hi,
                                   const uint32_t* diagonals, bool first) {
    MmaHalf(lo.bits, hi.bits, sides[0], sides[1], sides[2], sides[3], diagonals[0], diagonals[2],
            first ? 0u : lo.bits, first ? 0u : hi.bits);
    MmaHalf(lo.bits, hi.bits, middle_lo, middle_hi, diagonals[1], lo.bits, hi.bits);
  }

  // sum += W2 of what Convolve left, of row `warp_` of the tile.
  MSTPP_DEVICE void Contract(float (&sum)[C / 2], const unsigned char* weights) const {
    const int column = lane_ & 15, turn = Turn(column);
    unsigned char* row = shared_ + Shape::kFactor + (16 * warp_ + column) * 128;
    uint32_t a[kHidden / 16][4];
    MSTPP_UNROLL
    for (int s = 0; s < kHidden / 16; ++s) {
      LoadMatrices(a[s], Factor<Shape::kOutputPanelBytes>(row, turn, s));
    }
    MultiplyRows<C, false>(sum, a, weights);
  }

  // The outputs of row `warp_` of the tile: x1 becomes them in its place, then they leave.
  MSTPP_DEVICE void Finish(float (&sum)[C / 2]) const {
    const int first = (warp_ + 1) * Shape::kPitch + 1, pixel = first + (lane_ & 15);
    unsigned char* row = x_ + pixel * 128;
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
    if (place_.row + warp_ >= p_.height) return;
    constexpr int kChunks = C / 8;
    const int chunk = lane_ % kChunks;
    auto* to = static_cast<unsigned char*>(p_.out) +
               ((static_cast<size_t>(place_.image) * p_.height + place_.row + warp_) * p_.width +
                place_.column) *
                   (2 * C) +
               chunk * 16;
    const unsigned char* from = x_ + chunk / 8 * Shape::kPanelBytes;
    MSTPP_UNROLL
    for (int i = lane_ / kChunks; i < Shape::kColumns; i += 32 / kChunks) {
      if (place_.column + i >= p_.width) continue;
      StoreVec(to + i * (2 * C), LoadVec(from + (first + i) * 128 + Chunk(chunk, first + i)));
    }
  }

  const WarpgroupFeedForwardParams& p_;
  unsigned char *shared_, *x_;  // the tile's x
  int lane_, warp_, tiles_;
  Place place_;
  int fetched_image_ = -1;  // whose M was fetched last; thread 0 knows
};

}  // namespace mstpp::cuda
