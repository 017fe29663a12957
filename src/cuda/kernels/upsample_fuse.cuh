// SPDX-License-Identifier: Apache-2.0
// 2 x 2 transposed convolution with stride 2 and the 1 x 1 convolution over its concatenation with
// the skip, folded into one product a pixel (FP16, sums in FP32):
//
//   y[2 r + a, 2 q + b] = F1 Wup[a, b]' x[r, q] + F2 skip[2 r + a, 2 q + b] + F1 b_up
//
// x has 2 C channels, skip and y have C. The bias is in the column of the skip's last channel.
//
// Work: a block takes a strip of 16 columns and `rows` rows of x; each of its warps one of the two
// output rows that a row of x gives and 32 output channels, with their weights in registers. The
// rows come through a queue in shared memory: that of x and its two of the skip, each as planes of
// 16 pixels by 32 channels, and of the skip first those of even columns, then of odd.
//
// With kGram the blocks also leave parts of S (written_gram.cuh). With 32 channels a warp has all
// of its pixels: the two add theirs in the end, a part a block. With 64 every warp has one band,
// and all leave their pixels in shared memory for the next row's step; of a block's rows each
// `part_rows` give a part.
#pragma once

#include "cuda/kernels/hopper.cuh"
#include "cuda/kernels/written_gram.cuh"

namespace mstpp::cuda {

struct UpsampleFuseParams {
  const void* x;     // images x height x width x 2 C
  const void* skip;  // images x 2 height x 2 width x C
  void* y;           // the same
  // Rows [4 (a, b)][C / 16][2 C / 16] (Packer::Rows, kVecs; for warpgroups kQuads, kPlain).
  const void* weight;
  const void* skip_weight;  // rows [C / 16][C / 16]
  int height, width;        // of x
  int rows, strips, segments, images;
  float* partials = nullptr;  // with kGram: images x parts of S, strip by strip
  int part_rows = 0;          // of x; `rows` is a multiple, or with 32 channels the same
};

template <int C, Products kProducts = Products::kWarps>
struct UpsampleFuseShape {
  static constexpr bool kWarpgroup = kProducts == Products::kWarpgroup;
  static constexpr int kGroups = C / 32;  // of output channels
  static constexpr int kWarps = kWarpgroup ? 4 * kGroups : 2 * kGroups;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kColumns = kWarpgroup ? 32 : 16;  // of x
  static constexpr int kTiles = kColumns / 8;
  static constexpr int kPixelBytes = kWarpgroup ? 16 : 64;  // in a plane
  static constexpr int kPlanes = 2 * C * 2 / kPixelBytes;   // of a row of x, or of the skip
  // 64 or 16 bytes more keep what is copied at a time in different banks.
  static constexpr int kPlaneBytes = (kColumns + 1) * kPixelBytes;
  static constexpr int kInputBytes = kPlanes * kPlaneBytes;  // of x
  static constexpr int kSkipRowBytes = kPlanes * kPlaneBytes;
  static constexpr int kRowBytes = kInputBytes + 2 * kSkipRowBytes;
  static constexpr int kQueue = 4;  // rows, a power of two
  static constexpr int kSharedBytes = kQueue * kRowBytes;
  // Pixels for S: of a row of x the sixteen of each tile of either output row, all bands.
  static constexpr int kStagedBytes =
      kWarpgroup || C == 64 ? 2 * kTiles * C / 16 * kWeightRowsBytes : 0;
  static constexpr int kGramSharedBytes = kSharedBytes + 2 * kStagedBytes;
};

// What either form has: where a block is, and its queue of rows.
template <int C, Products kProducts>
class UpsampleRows {
 protected:
  using Shape = UpsampleFuseShape<C, kProducts>;
  static constexpr int kTiles = Shape::kTiles;
  static constexpr int kSteps = C / 16;  // of a sum over C channels
  // The bits of columns_.
  static constexpr unsigned kStoreBit = 1, kInputBit = 1 << kTiles, kSkipBit = 4 << kTiles;

  MSTPP_DEVICE explicit UpsampleRows(const UpsampleFuseParams& p)
      : p_(p), lane_(threadIdx.x & 31), strip_(static_cast<int>(blockIdx.x) % p.strips) {
    const int column = strip_ * Shape::kColumns;
    const int segment = static_cast<int>(blockIdx.x) / p.strips;
    image_ = segment / p.segments;
    row_begin_ = segment % p.segments * p.rows;
    row_end_ = min(row_begin_ + p.rows, p.height);

    row_bytes_ = static_cast<int64_t>(p.width) * (4 * C);
    const int64_t row = static_cast<int64_t>(image_) * p.height + row_begin_;
    const int first = column + (lane_ >> 2);
    store_ = 2 * row * row_bytes_ + first * (4 * C);
    columns_ = 0;
    for (int n = 0; n < kTiles; ++n) {
      if (first + 8 * n < p.width) columns_ |= kStoreBit << n;
    }

    // The block copies half the strip of a row at a time.
    constexpr int kGroups = Shape::kGroups;
    const int thread = threadIdx.x;
    int pixel = thread / (8 * kGroups), chunk = thread % (8 * kGroups);
    fetch_x_ = row * row_bytes_ + (column + pixel) * (4 * C) + chunk * 16;
    x_to_ = InPlane(chunk, pixel);
    for (int i = 0; i < 2; ++i) {
      if (column + pixel + Shape::kColumns / 2 * i < p.width) columns_ |= kInputBit << i;
    }
    pixel = thread / (4 * kGroups), chunk = thread % (4 * kGroups);
    fetch_skip_ = 2 * row * row_bytes_ + (2 * column + pixel) * (2 * C) + chunk * 16;
    skip_to_ =
        Shape::kInputBytes + (pixel & 1) * (Shape::kSkipRowBytes / 2) + InPlane(chunk, pixel >> 1);
    for (int i = 0; i < 2; ++i) {
      if (2 * column + pixel + Shape::kColumns * i < 2 * p.width) columns_ |= kSkipBit << i;
    }
  }

  MSTPP_DEVICE static int InPlane(int chunk, int pixel) {
    if (Shape::kWarpgroup) return chunk * Shape::kPlaneBytes + pixel * 16;
    return chunk / 4 * Shape::kPlaneBytes + pixel * 64 + chunk % 4 * 16;
  }
  MSTPP_DEVICE static unsigned char* Row(int r) {
    return SharedMemory() + (r & (Shape::kQueue - 1)) * Shape::kRowBytes;
  }

  // Row r of x and what belongs to it, after the row above.
  MSTPP_DEVICE void Fetch(int r) {
    constexpr int kHalf = Shape::kColumns / 2, kHalfBytes = kHalf * Shape::kPixelBytes;
    if (r < row_end_) {
      const auto* from = static_cast<const unsigned char*>(p_.x) + fetch_x_;
      unsigned char* to = Row(r) + x_to_;
      CopyAsync(to, from, columns_ & kInputBit);
      CopyAsync(to + kHalfBytes, from + kHalf * 4 * C, columns_ & kInputBit << 1);
      from = static_cast<const unsigned char*>(p_.skip) + fetch_skip_;
      to = Row(r) + skip_to_;
      MSTPP_UNROLL
      for (int a = 0; a < 2; ++a) {
        CopyAsync(to, from, columns_ & kSkipBit);
        CopyAsync(to + kHalfBytes, from + kHalf * 4 * C, columns_ & kSkipBit << 1);
        from += row_bytes_;
        to += Shape::kSkipRowBytes;
      }
    }
    fetch_x_ += row_bytes_;
    fetch_skip_ += 2 * row_bytes_;
    CopyCommit();
  }

  // Of S: the part of a strip that the block's first rows are in.
  MSTPP_DEVICE int FirstPart() const {
    const int parts = (p_.height + p_.part_rows - 1) / p_.part_rows;
    return (image_ * parts + row_begin_ / p_.part_rows) * p_.strips + strip_;
  }
  // Where bands of row r are left for S.
  MSTPP_DEVICE static unsigned char* Staged(int r) {
    return SharedMemory() + Shape::kSharedBytes + (r & 1) * Shape::kStagedBytes;
  }

  const UpsampleFuseParams& p_;
  int lane_, strip_, image_, row_begin_, row_end_;
  int64_t row_bytes_;                     // of x, of the skip and of y: as many
  int64_t fetch_x_, fetch_skip_, store_;  // the thread's next
  int x_to_, skip_to_;                    // in a row of the queue
  unsigned columns_;                      // which of the thread's columns are inside
};

template <int C, Maps kMaps, bool kGram = false>
class UpsampleFuse : UpsampleRows<C, Products::kWarps> {
  using Base = UpsampleRows<C, Products::kWarps>;
  using Shape = typename Base::Shape;
  using Base::kTiles, Base::kSteps, Base::kStoreBit;
  using Base::p_, Base::lane_, Base::row_begin_, Base::row_end_, Base::row_bytes_, Base::store_,
      Base::columns_;
  using Base::Row, Base::Fetch, Base::Staged;
  static constexpr int kGroups = Shape::kGroups;

 public:
  MSTPP_DEVICE explicit UpsampleFuse(const UpsampleFuseParams& p)
      : Base(p), a_(threadIdx.x >> 5 & 1), group_(threadIdx.x >> 6) {
    store_ += a_ * row_bytes_ + group_ * 64 + (lane_ & 3) * 16;
    if constexpr (kStages) {
      part_ = this->FirstPart();
      part_end_ = min(row_begin_ + p.part_rows, row_end_);
    }
  }

  MSTPP_DEVICE void Run() {
    MSTPP_UNROLL
    for (int m = 0; m < 2; ++m) {
      MSTPP_UNROLL
      for (int k = 0; k < kSteps; ++k) {
        skip_weight_[m][k] = LoadWeightRows(p_.skip_weight, (2 * group_ + m) * kSteps + k, lane_);
      }
      MSTPP_UNROLL
      for (int i = 0; i < 4 * kSteps; ++i) {
        const int b = i / (2 * kSteps), k = i % (2 * kSteps);
        weight_[b][m][k] = LoadWeightRows(
            p_.weight, ((2 * a_ + b) * kSteps + 2 * group_ + m) * (2 * kSteps) + k, lane_);
      }
    }
    for (int r = row_begin_; r < row_begin_ + Shape::kQueue - 1; ++r) Fetch(r);
    if constexpr (kStages) {
      MSTPP_UNROLL
      for (int i = 0; i < 2 * kTiles; ++i) StoreRows(Own(row_begin_ - 1, i / 2, i % 2), lane_, {});
    }
    MSTPP_NO_UNROLL
    for (int r = row_begin_; r < row_end_; ++r) Step(r);
    if constexpr (kGram) {
      __syncthreads();
      if constexpr (kStages) {
        LeavePartBefore(row_end_ - 1);
        AddStaged(row_end_ - 1);
        LeavePartBefore(row_end_);
      } else {
        LeaveBoth();
      }
    }
  }

 private:
  // Whether warps have only some channels each, so that S needs what others have.
  static constexpr bool kStages = kGram && C == 64;
  static constexpr int kGramTiles = WrittenGramShape<C>::kTiles * (kStages ? 1 : C / 16);

  MSTPP_DEVICE void Step(int r) {
    CopyWait<Shape::kQueue - 2>();
    __syncthreads();
    Fetch(r + Shape::kQueue - 1);
    if constexpr (kStages) {
      LeavePartBefore(r - 1);
      AddStaged(r - 1);
    }
    const unsigned char* x_row = Row(r) + lane_ * 16;
    const unsigned char* skip_row = x_row + Shape::kInputBytes + a_ * Shape::kSkipRowBytes;
    MSTPP_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      float sum[2][2][4] = {};  // [b][m]: four sums in turn hide each other's latency
      MSTPP_UNROLL
      for (int k = 0; k < kGroups; ++k) {
        HalfVec skip[2];
        MSTPP_UNROLL
        for (int b = 0; b < 2; ++b) {
          skip[b] = LoadVec(skip_row + (b * kGroups + k) * Shape::kPlaneBytes + n * 512);
        }
        MSTPP_UNROLL
        for (int i = 0; i < 8; ++i) {
          const int s = i / 4, b = i / 2 % 2, m = i % 2;
          Multiply(sum[b][m], skip_weight_[m][2 * k + s], skip[b].pair[2 * s],
                   skip[b].pair[2 * s + 1], sum[b][m]);
        }
      }
      MSTPP_UNROLL
      for (int k = 0; k < 2 * kGroups; ++k) {
        const HalfVec x = LoadVec(x_row + k * Shape::kPlaneBytes + n * 512);
        MSTPP_UNROLL
        for (int i = 0; i < 8; ++i) {
          const int s = i / 4, b = i / 2 % 2, m = i % 2;
          Multiply(sum[b][m], weight_[b][m][2 * k + s], x.pair[2 * s], x.pair[2 * s + 1],
                   sum[b][m]);
        }
      }
      if constexpr (kGram) AddOrStage(r, n, sum);
      Store(n, sum);
    }
    store_ += 2 * row_bytes_;
  }

  // Tile n of the next row: eight channels of two neighbours a lane.
  MSTPP_DEVICE void Store(int n, const float (&sum)[2][2][4]) const {
    auto* to = static_cast<unsigned char*>(p_.y) + store_ + n * 32 * C;
    MSTPP_UNROLL
    for (int b = 0; b < 2; ++b) {
      HalfVec vec;
      TurnToPixels(sum[b][0], vec.pair[0], vec.pair[1]);
      TurnToPixels(sum[b][1], vec.pair[2], vec.pair[3]);
      if (columns_ & kStoreBit << n) StoreVec(to + b * 2 * C, vec);
      if constexpr (kMaps == Maps::kSplit) {
        TurnRestsToPixels(sum[b][0], vec.pair[0], vec.pair[1]);
        TurnRestsToPixels(sum[b][1], vec.pair[2], vec.pair[3]);
        if (columns_ & kStoreBit << n) {
          StoreVec(to + p_.images * (2 * p_.height * row_bytes_) + b * 2 * C, vec);
        }
      }
    }
  }

  // Tile n of row r for S. Pixels outside are zeros already: they have no neighbours inside.
  MSTPP_DEVICE void AddOrStage(int r, int n, const float (&sum)[2][2][4]) {
    WeightRows rows[2];
    MSTPP_UNROLL
    for (int m = 0; m < 2; ++m) rows[m] = GramRows(sum[0][m], sum[1][m]);
    if constexpr (kStages) {
      MSTPP_UNROLL
      for (int m = 0; m < 2; ++m) StoreRows(Own(r, n, m), lane_, rows[m]);
    } else {
      MSTPP_UNROLL
      for (int i = 0; i < kGramTiles; ++i) {
        const GramTile tile = WrittenGramTile<C>(i);
        const WeightRows &x = rows[tile.band], &y = rows[tile.column8 / 2];
        if constexpr (kMaps == Maps::kSplit) {  // spills otherwise
          AddToGramByEights(gram_[i], x, y, tile.column8 % 2 != 0);
        } else {
          AddToGram(gram_[i], x, y, tile.column8 % 2 != 0);
        }
      }
    }
  }

  // Where the warp leaves the pixels of tile n, its sixteen m, of row r.
  MSTPP_DEVICE unsigned char* Own(int r, int n, int m) const {
    return Staged(r) + ((2 * n + a_) * 4 + 2 * group_ + m) * kWeightRowsBytes;
  }
  MSTPP_DEVICE void AddStaged(int r) {
    MSTPP_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      AddBand(gram_, Staged(r) + i * 4 * kWeightRowsBytes, 2 * group_ + a_, lane_);
    }
  }

  // The part that ends before row r is added; the next begins.
  MSTPP_DEVICE void LeavePartBefore(int r) {
    if (r != part_end_) return;
    LeavePart<C>(gram_, p_.partials, part_, (2 * group_ + a_) * kGramTiles, lane_);
    part_ += p_.strips;
    part_end_ = min(part_end_ + p_.part_rows, row_end_);
  }

  // The part of two warps, each of which adds half of the tiles.
  MSTPP_DEVICE void LeaveBoth() {
    constexpr int kHalf = kGramTiles / 2;
    auto* given = reinterpret_cast<float4*>(SharedMemory());
    MSTPP_UNROLL
    for (int i = 0; i < kGramTiles; ++i) {
      const auto& sum = gram_[i];
      if (i / kHalf != a_) given[i * 32 + lane_] = make_float4(sum[0], sum[1], sum[2], sum[3]);
    }
    __syncthreads();
    float both[kHalf][4];
    MSTPP_UNROLL
    for (int i = 0; i < kHalf; ++i) {
      const float4 other = given[(i + a_ * kHalf) * 32 + lane_];
      const float others[4] = {other.x, other.y, other.z, other.w};
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        both[i][j] = (a_ == 0 ? gram_[i][j] : gram_[i + kHalf][j]) + others[j];
      }
    }
    StorePart<C>(p_.partials, blockIdx.x, a_ * kHalf, lane_, both);
  }

  WeightRows weight_[2][2][2 * kSteps], skip_weight_[2][kSteps];
  float gram_[kGramTiles][4] = {};
  int a_, group_;
  int part_ = 0, part_end_ = 0;  // of S; the row it ends before
};

}  // namespace mstpp::cuda
