// SPDX-License-Identifier: Apache-2.0
// 4 x 4 convolution with stride 2, zero padding 1, no bias, C to 2 C channels (FP16, sums in FP32):
//
//   y[r, q] = sum over ky, kx of W[ky, kx] x[2 r - 1 + ky, 2 q - 1 + kx]
//
// Work: a block takes a strip of 32 output columns, `rows` output rows and 64 output channels; each
// of its warps sixteen of these and 32 input channels, whose weights for all sixteen taps fill half
// of its registers. With 64 input channels two warps so share outputs: each keeps half the columns,
// gives its sums of the others to its partner through shared memory and adds what it is given.
//
// The input comes through a queue in shared memory two rows at a time: the lower two taps of one
// output row and the upper two of the next, whose sums are under way together. A row lies there as
// its even and its odd columns, so that the pixels of one tap are neighbours.
//
// With kGram, from 32 to 64 channels, the blocks also leave parts of S (written_gram.cuh). A warp
// has one band; all leave a row's pixels in shared memory and add them a row later. Of a block's
// rows each `part_rows` give a part.
#pragma once

#include "cuda/kernels/hopper.cuh"
#include "cuda/kernels/written_gram.cuh"

namespace mstpp::cuda {

struct DownsampleParams {
  const void* x;  // images x height x width x C
  void* y;        // images x height/2 x width/2 x 2 C
  // Rows [2 C / 16][16 taps][C / 16] (Packer::Rows, kQuads, kVecs; for a warpgroup kQuads, kPlain).
  const void* weight;
  int height, width;  // of the input; even
  int rows, strips, segments, images;
  float* partials = nullptr;  // with kGram: images x parts of S, strip by strip
  int part_rows = 0;          // of the output; `rows` is a multiple
};

template <int C, Products kProducts = Products::kWarps>
struct DownsampleShape {
  static constexpr bool kWarpgroup = kProducts == Products::kWarpgroup;
  static constexpr int kGroups = C / 32;  // of input channels
  static constexpr int kWarps = 4 * kGroups;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kParts = 2 * C / 64;    // blocks that share a strip
  static constexpr int kColumns = 32;          // of output
  static constexpr int kTiles = kColumns / 8;  // of pixels
  static constexpr int kKept = kTiles / kGroups;
  static constexpr int kPartner = kWarpgroup ? 4 : 1;  // how far the warp with the same outputs is
  // A row of the queue: for every group of channels, or for a warpgroup every eight of them, the
  // even columns, then the odd. Some bytes more keep what is copied at a time in different banks.
  static constexpr int kPixelBytes = kWarpgroup ? 16 : 64;
  static constexpr int kParityBytes = (kColumns + 1) * kPixelBytes + (kWarpgroup ? 48 : 0);
  static constexpr int kChunkBytes = 2 * kParityBytes + 16;  // for a warpgroup
  static constexpr int kPlaneBytes = kWarpgroup ? 4 * kChunkBytes : 2 * kParityBytes + 64;
  static constexpr int kPairBytes = 2 * kGroups * kPlaneBytes;
  static constexpr int kQueue = 4;  // pairs of rows, a power of two
  // Sums that are given away, of the last row and the one before.
  static constexpr int kGivenBytes = (kTiles - kKept) * 512;  // of a warp
  static constexpr int kSharedBytes = kQueue * kPairBytes + 2 * kWarps * kGivenBytes;
  // Pixels for S, of the same two rows: sixteen after sixteen, of these four bands.
  static constexpr int kStagedBytes = C == 32 ? kTiles / 2 * 4 * kWeightRowsBytes : 0;
  static constexpr int kGramSharedBytes = kSharedBytes + 2 * kStagedBytes;
};

// What either form has: where a block is, its queue of rows, and what becomes of the sums.
template <int C, Maps kMaps, bool kGram, Products kProducts>
class DownsampleRows {
 protected:
  using Shape = DownsampleShape<C, kProducts>;
  static constexpr bool kWarpgroup = Shape::kWarpgroup;
  static_assert(!kGram || C == 32, "a block must have all channels");
  static constexpr int kGroups = Shape::kGroups;
  static constexpr int kTiles = Shape::kTiles, kKept = Shape::kKept;
  static constexpr int kChunks = C / 8;  // of 16 bytes in an input pixel
  static constexpr int kRowBytes = Shape::kPairBytes / 2;

  MSTPP_DEVICE explicit DownsampleRows(const DownsampleParams& p)
      : p_(p),
        lane_(threadIdx.x & 31),
        warp_(kWarpgroup ? OfWarp(threadIdx.x >> 5) : threadIdx.x >> 5),
        group_(kWarpgroup ? warp_ / 4 : warp_ % kGroups) {
    const int item = static_cast<int>(blockIdx.x) / Shape::kParts;
    sixteen_ = static_cast<int>(blockIdx.x) % Shape::kParts * 4 +
               (kWarpgroup ? warp_ % 4 : warp_ / kGroups);
    const int column = item % p.strips * Shape::kColumns;
    const int segment = item / p.strips, image = segment / p.segments;
    row_begin_ = segment % p.segments * p.rows;
    row_end_ = min(row_begin_ + p.rows, p.height / 2);

    const int width = p.width / 2, thread = threadIdx.x;
    const int first = column + group_ * kKept * 8 + (lane_ >> 2);
    row_bytes_ = static_cast<int64_t>(p.width) * (2 * C);
    store_ = (static_cast<int64_t>(image) * (p.height / 2) + row_begin_ - 1) * row_bytes_ +
             first * (4 * C) + sixteen_ * 32 + (lane_ & 3) * 8;
    columns_ = 0;
    for (int n = 0; n < kKept; ++n) {
      if (first + 8 * n < width) columns_ |= kStoreBit << n;
      if (kGram && column + 2 * (lane_ & 3) + 8 * n < width) columns_ |= kPairBit << n;
    }
    if constexpr (kGram) {
      const int parts = (p.height / 2 + p.part_rows - 1) / p.part_rows;
      part_ = (image * parts + row_begin_ / p.part_rows) * p.strips + item % p.strips;
      part_end_ = min(row_begin_ + p.part_rows, row_end_);
    }

    // The block copies 32 of a row's 66 pixels at a time; some threads one of the last two.
    const int pixel = thread / kChunks, chunk = thread % kChunks;
    const int x = 2 * column - 1 + pixel;
    const int rest = 64 + (pixel & 1), rest_row = pixel >> 1 & 1;
    fetch_ = (static_cast<int64_t>(image) * p.height + 2 * row_begin_ - 1) * row_bytes_ +
             x * (2 * C) + chunk * 16;
    to_ = InRow(pixel, chunk);
    rest_ = (rest_row * p.width + rest - pixel) * (2 * C);
    rest_to_ = rest_row * kRowBytes + InRow(rest, chunk);
    if (x >= 0 && x < p.width) columns_ |= kInputBit;
    if (x + 32 < p.width) columns_ |= kInputBit << 1;
    if (x - pixel + rest < p.width) columns_ |= kInputBit << (2 + rest_row);
  }

  // Up to the first barrier, behind which the first pair is there.
  MSTPP_DEVICE void Begin() {
    MSTPP_UNROLL
    for (int i = 0; i < 32; ++i) {
      weight_[i / 2][i % 2] =
          LoadWeightRows(p_.weight, (sixteen_ * 16 + i / 2) * (C / 16) + 2 * group_ + i % 2, lane_);
    }
    for (int r = row_begin_ - 1; r < row_begin_ + 2; ++r) {
      FetchUpper(r);
      FetchLower(r);
    }
    if constexpr (kGram) {
      MSTPP_UNROLL
      for (int n = 0; n < kTiles; n += 2) StoreRows(Staged(row_begin_ - 2, n, warp_), lane_, {});
    }
    CopyWait<2>();
  }
  // Behind that barrier: step<kHere, kBelow>(r) of all pairs, and what is left to do.
  template <class F>
  MSTPP_DEVICE void Walk(const F& step) {
    step.template operator()<false, true>(row_begin_ - 1);
    MSTPP_NO_UNROLL
    for (int r = row_begin_; r < row_end_ - 1; ++r) step.template operator()<true, true>(r);
    step.template operator()<true, false>(row_end_ - 1);
    if constexpr (kGroups > 1 || kGram) __syncthreads();
    AddRow(row_end_ - 2);
    Finish(row_end_ - 1);
    if constexpr (kGram) {
      __syncthreads();
      AddRow(row_end_ - 1);
      LeavePartBefore(row_end_);
    }
  }

  // The bits of columns_: input, of a row's pixels, and of the first or second row's last.
  static constexpr unsigned kStoreBit = 1, kInputBit = 16,
                            kPairBit = 256;  // even widths: both of a pair of pixels
  static constexpr int kGramTiles = kGram ? WrittenGramShape<2 * C>::kTiles : 1;

  MSTPP_DEVICE static int InRow(int pixel, int chunk) {
    const int place = (pixel & 1) * Shape::kParityBytes + (pixel >> 1) * Shape::kPixelBytes;
    if (kWarpgroup) return chunk * Shape::kChunkBytes + place;
    return chunk / 4 * Shape::kPlaneBytes + chunk % 4 * 16 + place;
  }

  MSTPP_DEVICE static unsigned char* Pair(int r) {
    return SharedMemory() + (r & (Shape::kQueue - 1)) * Shape::kPairBytes;
  }

  // The first row of pair r, the input rows 2 r + 1 and 2 r + 2, after the pair before.
  MSTPP_DEVICE void FetchUpper(int r) {
    const unsigned columns = r >= 0 && r < row_end_ ? columns_ : 0u;
    const auto* from = static_cast<const unsigned char*>(p_.x) + fetch_;
    unsigned char* to = Pair(r) + to_;
    CopyAsync(to, from, columns & kInputBit);
    CopyAsync(to + 16 * Shape::kPixelBytes, from + 64 * C, columns & kInputBit << 1);
  }

  // The second row, and both rows' last pixels.
  MSTPP_DEVICE void FetchLower(int r) {
    const unsigned columns = r < row_end_ && 2 * r + 2 < p_.height ? columns_ : 0u;
    const auto* from = static_cast<const unsigned char*>(p_.x) + fetch_ + row_bytes_;
    unsigned char* to = Pair(r) + to_ + kRowBytes;
    CopyAsync(to, from, columns & kInputBit);
    CopyAsync(to + 16 * Shape::kPixelBytes, from + 64 * C, columns & kInputBit << 1);
    const unsigned rest =
        (columns & kInputBit << 3) | (r >= 0 && r < row_end_ ? columns_ & kInputBit << 2 : 0u);
    CopyAsyncIf(static_cast<int>(threadIdx.x) < 4 * kChunks, Pair(r) + rest_to_,
                static_cast<const unsigned char*>(p_.x) + fetch_ + rest_, rest);
    fetch_ += 2 * row_bytes_;
    CopyCommit();
  }

  // What a warp is given of row r, after the barrier that follows.
  MSTPP_DEVICE float4* Given(int r, int warp) const {
    unsigned char* given = SharedMemory() + Shape::kQueue * Shape::kPairBytes;
    given += ((r & 1) * Shape::kWarps + warp) * Shape::kGivenBytes;
    return reinterpret_cast<float4*>(given) + lane_;
  }

  // Row r's sums, until it is finished; of half the columns to the partner.
  MSTPP_DEVICE void Keep(int r, const float (&sum)[kTiles][4]) {
    MSTPP_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      if (n < kKept) {
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) kept_[n][i] = sum[n][i];
      } else {
        Given(r, warp_ ^ Shape::kPartner)[(n - kKept) * 32] =
            make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
      }
    }
  }

  // Writes row r, four channels of a pixel a lane; nothing if it is the one before the first.
  MSTPP_DEVICE void Finish(int r) {
    const unsigned columns = r >= row_begin_ ? columns_ : 0u;
    auto* to = static_cast<unsigned char*>(p_.y) + store_;
    if constexpr (kGram) Stage(r);
    MSTPP_UNROLL
    for (int n = 0; n < kKept; ++n) {
      float(&sum)[4] = kept_[n];
      if constexpr (kGroups > 1) {
        const float4 given = Given(r, warp_)[n * 32];
        sum[0] += given.x;
        sum[1] += given.y;
        sum[2] += given.z;
        sum[3] += given.w;
      }
      StorePixel(to + n * 8 * 4 * C, sum, (columns & kStoreBit << n) != 0);
      if constexpr (kMaps == Maps::kSplit) {
        StorePixelRests(to + p_.images * (p_.height / 2 * row_bytes_) + n * 8 * 4 * C, sum,
                        (columns & kStoreBit << n) != 0);
      }
    }
    store_ += row_bytes_;
  }

  // Where a warp leaves the pixels of row r's tiles n and n + 1, after the barrier that follows.
  MSTPP_DEVICE static unsigned char* Staged(int r, int n, int warp) {
    return SharedMemory() + Shape::kSharedBytes + (r & 1) * Shape::kStagedBytes +
           (n / 2 * 4 + warp) * kWeightRowsBytes;
  }
  MSTPP_DEVICE void Stage(int r) const {
    MSTPP_UNROLL
    for (int n = 0; n < kTiles; n += 2) {
      StoreRows(Staged(r, n, warp_), lane_,
                GramRows(kept_[n], kept_[n + 1], (columns_ & kPairBit << n) != 0,
                         (columns_ & kPairBit << (n + 1)) != 0));
    }
  }
  // Adds row r to S; nothing without kGram.
  MSTPP_DEVICE void AddRow(int r) {
    if constexpr (kGram) {
      LeavePartBefore(r);
      MSTPP_UNROLL
      for (int n = 0; n < kTiles; n += 2) AddBand(gram_, Staged(r, n, 0), warp_, lane_);
    }
  }
  // The part that ends before row r is added; the next begins.
  MSTPP_DEVICE void LeavePartBefore(int r) {
    if (r != part_end_) return;
    LeavePart<2 * C>(gram_, p_.partials, part_, warp_ * kGramTiles, lane_);
    part_ += p_.strips;
    part_end_ = min(part_end_ + p_.part_rows, row_end_);
  }

  const DownsampleParams& p_;
  WeightRows weight_[16][2];
  float below_[kTiles][4] = {};  // the next row's sums
  float kept_[kKept][4] = {};
  float gram_[kGramTiles][4] = {};
  int part_ = 0, part_end_ = 0;  // of S; the row it ends before
  int lane_, warp_, group_, sixteen_, row_begin_, row_end_;
  int64_t row_bytes_;      // of the input, and of the output: as many
  int64_t fetch_, store_;  // the thread's next
  int rest_;               // from fetch_
  int to_, rest_to_;       // in a pair of the queue
  unsigned columns_;       // which of the thread's columns are inside
};

template <int C, Maps kMaps, bool kGram = false>
class Downsample : DownsampleRows<C, kMaps, kGram, Products::kWarps> {
  using Base = DownsampleRows<C, kMaps, kGram, Products::kWarps>;
  using Shape = typename Base::Shape;
  using Base::kTiles, Base::kKept, Base::kRowBytes;
  using Base::lane_, Base::group_, Base::row_begin_, Base::weight_, Base::below_;
  using Base::Pair, Base::FetchUpper, Base::FetchLower, Base::Keep, Base::Finish, Base::AddRow;

 public:
  MSTPP_DEVICE explicit Downsample(const DownsampleParams& p) : Base(p) {}

  MSTPP_DEVICE void Run() {
    this->Begin();
    __syncthreads();
    Load(row_begin_ - 1, 0);
    this->Walk([&]<bool kHere, bool kBelow>(int r) { Step<kHere, kBelow>(r); });
  }

 private:
  // The pixels of taps i, of pair r; first the tiles that the warp keeps.
  MSTPP_DEVICE void Load(int r, int i) {
    const int row = i / 4, kx = i % 4;
    const unsigned char* from = Pair(r) + group_ * Shape::kPlaneBytes + lane_ * 16 +
                                (row * kRowBytes + (kx & 1) * Shape::kParityBytes + (kx >> 1) * 64);
    const int kept = group_ * kKept * 512, given = kKept * 512 - kept;
    MSTPP_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      ahead_[n] = LoadVec(n < kKept ? from + kept + n * 512 : from + given + (n - kKept) * 512);
    }
  }

  // Adds pair r to the sums. kHere: output row r is wanted, and complete then. kBelow: the next is.
  // All but the one barrier is straight code, so that it is done between products; the pixels are
  // loaded one pair of taps ahead.
  template <bool kHere, bool kBelow>
  MSTPP_DEVICE void Step(int r) {
    float sum[kTiles][4], zero[4] = {};
    MSTPP_UNROLL
    for (int i = 0; i < 8; ++i) {
      HalfVec x[kTiles];
      MSTPP_UNROLL
      for (int n = 0; n < kTiles; ++n) x[n] = ahead_[n];
      if (i < 7 || kBelow) Load(i < 7 ? r : r + 1, (i + 1) % 8);
      MSTPP_UNROLL
      for (int s = 0; s < 2; ++s) {
        const bool begins = i == 0 && s == 0;
        MSTPP_UNROLL
        for (int n = 0; n < kTiles; ++n) {
          const HalfPair x0 = x[n].pair[2 * s], x1 = x[n].pair[2 * s + 1];
          float(&here)[4] = sum[n];
          float(&below)[4] = below_[n];
          if (kHere) Multiply(here, weight_[8 + i][s], x0, x1, begins ? below : here);
          if (kBelow) Multiply(below, weight_[i][s], x0, x1, begins ? zero : below);
        }
      }
      if (i == 3) {
        // Pair r + 1 is there, pair r - 1 no longer read, and what is given of row r - 1 is there.
        CopyWait<Shape::kQueue - 3>();
        __syncthreads();
        if constexpr (kHere) AddRow(r - 2);
      }
      if (i == 4) FetchUpper(r + Shape::kQueue - 1);
      if (i == 5) FetchLower(r + Shape::kQueue - 1);
      if (i == 6 && kHere) Finish(r - 1);
    }
    if constexpr (kHere) Keep(r, sum);
  }

  HalfVec ahead_[kTiles];
};

}  // namespace mstpp::cuda
