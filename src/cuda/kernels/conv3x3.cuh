// SPDX-License-Identifier: Apache-2.0
// Dense 3 x 3 convolutions at full resolution, 32 to 32 channels, zero padding, no bias (FP16, sums
// in FP32):
//
//   y = conv(x) [+ residual]
//
// To a feature map or, cropped, to the cube: of floats with any strides, or of halves.
//
// Work: a block of two warps takes a strip of 32 columns and `rows` rows; each warp computes
// sixteen of the output channels, with their weights in registers. The input rows, and the
// residual's, come through a queue in shared memory. Every row is read once for the three output
// rows it touches, whose sums are under way together: it finishes that above, goes on with its own
// and begins that below. The residual is one more product, with the identity, and so are its rests
// if maps are split.
//
// With kGram, to a feature map and without a residual, each block also leaves its part of S
// (written_gram.cuh). A warp has one band; what it shares with the other it adds a row later, from
// where the residual would be in the queue: there both leave their pixels.
#pragma once

#include "cuda/kernels/cube_writer.cuh"
#include "cuda/kernels/written_gram.cuh"

namespace mstpp::cuda {

struct ConvParams {
  const void* x;         // images x height x width x 32
  const void* residual;  // the same, or null
  void* y;               // the same (unless the cube is written)
  const void* weight;    // rows [2 halves of the outputs][9 taps][2] (Packer::Rows, kQuads, kVecs)
  float* partials;       // with kGram: a part of S a block
  const NetworkIo* io;   // of the cube
  int channels;          // of the network
  int height, width, rows, strips, segments, images;
};

// Of either form of the kernel.
struct ConvStrip {
  static constexpr int kColumns = 32;
  static constexpr int kTiles = kColumns / 8;
  static constexpr int kPixels = kColumns + 2;      // of an input row
  static constexpr int kHalfBytes = kColumns * 32;  // of an output row's sixteen channels
};

template <Maps kMaps>
struct ConvShape : ConvStrip {
  static constexpr bool kSplit = kMaps == Maps::kSplit;
  static constexpr int kThreads = 64;
  static constexpr int kQueue = 4;  // rows, a power of two
  // A row of the queue: the pixels of x, then both halves of the residual's for the row above, then
  // their rests.
  static constexpr int kInputBytes = kPixels * 64;
  static constexpr int kRowBytes = kInputBytes + (kSplit ? 4 : 2) * kHalfBytes;
  static constexpr int kSharedBytes = kQueue * kRowBytes;
};

// A warp's share of S, summed row by row: of its sixteen channels two tiles, and one of what they
// have with the other sixteen.
struct ConvGram {
  static constexpr int kTiles = WrittenGramShape<32>::kTiles;
  float sum[kTiles][4] = {};

  // Adds a row to the warp's own, and leaves its pixels, sixteen after sixteen, at `to`. Pixels in
  // pairs, of which bit n of `inside` has both tile n's.
  MSTPP_DEVICE void AddRow(const float (&row)[4][4], unsigned inside, unsigned char* to, int lane) {
    MSTPP_UNROLL
    for (int n = 0; n < 4; n += 2) {
      const WeightRows rows =
          GramRows(row[n], row[n + 1], (inside & 1u << n) != 0, (inside & 1u << (n + 1)) != 0);
      StoreRows(to + n * 256, lane, rows);
      AddToGram(sum[0], rows, rows, false);
      AddToGram(sum[1], rows, rows, true);
    }
  }
  // Adds what both warps have left, after a barrier; half of the tiles are `upper`'s.
  MSTPP_DEVICE void AddBoth(const unsigned char* first, const unsigned char* second, bool upper,
                            int lane) {
    MSTPP_UNROLL
    for (int n = 0; n < 2; ++n) {
      AddToGram(sum[2], LoadWeightRows(first, n, lane), LoadWeightRows(second, n, lane), upper);
    }
  }
};

// Which strip and rows of which image a block has.
struct ConvPlace {
  int image, column, row_begin, row_end;
  int64_t row_bytes, start;  // of a map of halves; the block's first output in it

  MSTPP_DEVICE explicit ConvPlace(const ConvParams& p) {
    const int item = static_cast<int>(blockIdx.x) / p.strips;
    column = static_cast<int>(blockIdx.x) % p.strips * ConvStrip::kColumns;
    image = item / p.segments;
    row_begin = item % p.segments * p.rows;
    row_end = min(row_begin + p.rows, p.height);
    row_bytes = static_cast<int64_t>(p.width) * 64;
    start = (static_cast<int64_t>(image) * p.height + row_begin) * row_bytes + column * 64;
  }
};

// Adds the residual, sixteen channels of a row at `from`; behind both halves are their rests.
template <bool kSplit>
MSTPP_DEVICE void AddResidual(float (&sum)[ConvStrip::kTiles][4], const unsigned char* from,
                              int lane) {
  const WeightRows identity = IdentityRows(lane);
  from += lane * 8;
  MSTPP_UNROLL
  for (int n = 0; n < ConvStrip::kTiles; ++n) {
    const uint2 x = *reinterpret_cast<const uint2*>(from + n * 256);
    Multiply(sum[n], identity, HalfPair{x.x}, HalfPair{x.y}, sum[n]);
    if constexpr (kSplit) {
      const uint2 rest =
          *reinterpret_cast<const uint2*>(from + n * 256 + 2 * ConvStrip::kHalfBytes);
      Multiply(sum[n], identity, HalfPair{rest.x}, HalfPair{rest.y}, sum[n]);
    }
  }
}

template <bool kCube, Maps kMaps, class Writer = CubeWriter, bool kGram = false>
class Conv3x3 {
  using Shape = ConvShape<kMaps>;
  static constexpr int kTiles = Shape::kTiles;
  static constexpr int kPixelBytes = 64;

 public:
  MSTPP_DEVICE explicit Conv3x3(const ConvParams& p)
      : p_(p), place_(p), lane_(threadIdx.x & 31), half_(threadIdx.x >> 5) {
    const int thread = threadIdx.x;
    fetch_ = place_.start - place_.row_bytes - kPixelBytes + thread * 16;
    store_ = place_.start + (lane_ >> 2) * kPixelBytes + half_ * 32 + (lane_ & 3) * 8;
    columns_ = 0;
    for (int i = 0; i < kTiles; ++i) {
      if (place_.column + (lane_ >> 2) + 8 * i < p.width) columns_ |= kStoreBit << i;
      if (kGram && place_.column + 2 * (lane_ & 3) + 8 * i < p.width) columns_ |= kPairBit << i;
    }
    for (int i = 0; i < 3; ++i) {
      const int pixel = (thread >> 2) + i * kRound, column = place_.column + pixel;
      if (pixel < Shape::kPixels && column > 0 && column <= p.width) columns_ |= kInputBit << i;
      if (pixel < Shape::kColumns && column < p.width) columns_ |= kResidualBit << i;
    }
  }

  MSTPP_DEVICE void Run() {
    for (int y = place_.row_begin - 1; y < place_.row_begin + 2; ++y) Fetch(y);
    if constexpr (kCube)
      cube_ =
          Writer(*p_.io, p_.channels, place_.image, place_.row_begin, place_.column, half_, lane_);
    MSTPP_UNROLL
    for (int i = 0; i < 18; ++i) {
      weight_[i / 2][i % 2] = LoadWeightRows(p_.weight, half_ * 18 + i, lane_);
    }
    Step<false, false>(place_.row_begin - 1);
    Step<false, true>(place_.row_begin);
    MSTPP_NO_UNROLL
    for (int y = place_.row_begin + 1; y < place_.row_end; ++y) Step<true, true>(y);
    Step<true, false>(place_.row_end);
    if constexpr (kGram) {
      __syncthreads();
      AddStaged(place_.row_end);
      StorePart<32>(p_.partials, blockIdx.x, half_ * ConvGram::kTiles, lane_, gram_.sum);
    }
  }

 private:
  // Pixels of a row that the block copies at a time, and the bits of columns_.
  static constexpr int kRound = Shape::kThreads / 4;
  static constexpr unsigned kStoreBit = 1, kInputBit = 16, kResidualBit = 256,
                            kPairBit = 4096;  // even widths: both of a pair of pixels
  MSTPP_DEVICE static unsigned char* Row(int y) {
    return SharedMemory() + (y & (Shape::kQueue - 1)) * Shape::kRowBytes;
  }

  // From a map's numbers to their rests.
  MSTPP_DEVICE int64_t Rests() const { return p_.images * (p_.height * place_.row_bytes); }

  // Row y of x, after the row above it; and the residual's row above.
  MSTPP_DEVICE void Fetch(int y) {
    if (y <= place_.row_end) {
      const int thread = threadIdx.x;
      const bool inside = static_cast<unsigned>(y) < static_cast<unsigned>(p_.height);
      const unsigned bits = inside ? columns_ : 0u;
      const auto* from = static_cast<const unsigned char*>(p_.x) + fetch_;
      unsigned char* to = Row(y) + thread * 16;
      CopyAsync(to, from, bits & kInputBit);
      CopyAsync(to + kRound * 64, from + kRound * 64, bits & kInputBit << 1);
      if (thread < Shape::kPixels * 4 - 2 * Shape::kThreads) {
        CopyAsync(to + 2 * kRound * 64, from + 2 * kRound * 64, bits & kInputBit << 2);
      }
      if (!kGram && p_.residual != nullptr && y > place_.row_begin) {
        from = static_cast<const unsigned char*>(p_.residual) + fetch_ + kPixelBytes -
               place_.row_bytes;
        to = Row(y) + Shape::kInputBytes + (thread >> 1 & 1) * Shape::kHalfBytes +
             (thread >> 2) * 32 + (thread & 1) * 16;
        CopyAsync(to, from, columns_ & kResidualBit);
        CopyAsync(to + kRound * 32, from + kRound * 64, columns_ & kResidualBit << 1);
        if constexpr (Shape::kSplit) {
          from += Rests();
          to += 2 * Shape::kHalfBytes;
          CopyAsync(to, from, columns_ & kResidualBit);
          CopyAsync(to + kRound * 32, from + kRound * 64, columns_ & kResidualBit << 1);
        }
      }
    }
    fetch_ += place_.row_bytes;
    CopyCommit();
  }

  // Adds row y to the sums. kAbove: the row above is wanted; it is finished and written. kHere: row
  // y itself is wanted, and so may be the row below.
  template <bool kAbove, bool kHere>
  MSTPP_DEVICE void Step(int y) {
    constexpr bool kBelow = kHere || !kAbove;
    CopyWait<2>();
    __syncthreads();
    Fetch(y + 3);
    const unsigned char* row = Row(y) + lane_ * 16;
    if constexpr (kGram && kAbove) AddStaged(y - 1);
    float above[kTiles][4], zero[4] = {};
    // Two tiles at a time: six sums in turn hide each other's latency.
    MSTPP_UNROLL
    for (int pair = 0; pair < kTiles; pair += 2) {
      MSTPP_UNROLL
      for (int dx = 0; dx < 3; ++dx) {
        HalfVec x[2];
        MSTPP_UNROLL
        for (int i = 0; i < 2; ++i) x[i] = LoadVec(row + (pair + i) * 512 + dx * 64);
        MSTPP_UNROLL
        for (int s = 0; s < 2; ++s) {
          const bool first = dx == 0 && s == 0;
          MSTPP_UNROLL
          for (int i = 0; i < 2; ++i) {
            float(&a)[4] = above[pair + i];
            float(&h)[4] = here_[pair + i];
            float(&b)[4] = below_[pair + i];
            const HalfPair x0 = x[i].pair[2 * s], x1 = x[i].pair[2 * s + 1];
            if (kAbove) Multiply(a, weight_[6 + dx][s], x0, x1, first ? h : a);
            if (kHere) Multiply(h, weight_[3 + dx][s], x0, x1, first ? b : h);
            if (kBelow) Multiply(b, weight_[dx][s], x0, x1, first ? zero : b);
          }
        }
      }
    }
    if constexpr (kGram) {
      if constexpr (kAbove) gram_.AddRow(above, columns_ / kPairBit, Staged(y, half_), lane_);
      if constexpr (kHere && !kAbove) ClearStaged(y);
    }
    if constexpr (kAbove) {
      if (!kGram && p_.residual != nullptr) {
        AddResidual<Shape::kSplit>(above, Staged(y, half_), lane_);
      }
      if constexpr (kCube) {
        cube_.Write(above);
      } else {
        Store(above);
      }
    }
  }

  // Where the residual for step y is; or where it leaves a warp's pixels, sixteen after sixteen,
  // for the next.
  MSTPP_DEVICE static unsigned char* Staged(int y, int half) {
    return Row(y) + Shape::kInputBytes + half * Shape::kHalfBytes;
  }
  MSTPP_DEVICE void ClearStaged(int y) const {
    MSTPP_UNROLL
    for (int n = 0; n < kTiles; n += 2) StoreRows(Staged(y, half_) + n * 256, lane_, {});
  }

  // Adds what step y has left to S, a step later.
  MSTPP_DEVICE void AddStaged(int y) {
    gram_.AddBoth(Staged(y, 0), Staged(y, 1), half_ != 0, lane_);
  }

  // Row after row.
  MSTPP_DEVICE void Store(const float (&sum)[kTiles][4]) {
    auto* to = static_cast<unsigned char*>(p_.y) + store_;
    MSTPP_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      StorePixel(to + n * 8 * kPixelBytes, sum[n], (columns_ & kStoreBit << n) != 0);
      if constexpr (Shape::kSplit) {
        StorePixelRests(to + Rests() + n * 8 * kPixelBytes, sum[n],
                        (columns_ & kStoreBit << n) != 0);
      }
    }
    store_ += place_.row_bytes;
  }

  const ConvParams& p_;
  Writer cube_;
  WeightRows weight_[9][2];
  float here_[kTiles][4], below_[kTiles][4];
  ConvGram gram_;
  ConvPlace place_;
  int lane_, half_;
  int64_t fetch_, store_;  // of the thread's next
  unsigned columns_;       // which of the thread's columns are inside
};

}  // namespace mstpp::cuda
