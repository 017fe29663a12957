// SPDX-License-Identifier: Apache-2.0
// The rest of a spectral attention block, once its matrix M is known:
//
//   x1  = x + d + X M' + b_proj                      the attention's output; d from position.cuh
//   out = x1 + W2 GELU(dw3(GELU(W1' LN(x1) + b1)))   LN without gain, offset and mean: see Pack
//
// Work: a block of kWarps warps walks down a strip of 8 P columns, two rows at a time; where strips
// meet, their first and last column feed the 3 x 3 only. A warp owns 32 hidden channels: their part
// of W1 and W2 stays in its registers, and so do the hidden rows, from the first product through
// the depthwise convolution to the second. Only the ends of the chain are shared, through shared
// memory: LN(x1) comes in, and each warp's part of W2's sums goes out to the warp that finishes
// that slice of the outputs. A slice is one Vec a lane: pixel i of the lane's P, channels 32q..; it
// is the same slice of x1 that this warp has computed two rows ahead, so x1 for the residual waits
// where no other warp looks.
//
// x1 of split maps is split for the residual, and LN takes it rounded. What the warps' parts add to
// it is exact to the rests' digits (AddToSplit).
//
// If 32 kWarps < 4 C the block goes down its rows several times, hidden channels after hidden
// channels, adding to `out`.
#pragma once

#include <type_traits>

#include "cuda/kernels/depthwise.cuh"
#include "cuda/kernels/hopper.cuh"

namespace mstpp::cuda {

struct FeedForwardParams {
  const void* x;              // images x height x width x C
  const void* d;              // the same
  void* out;                  // the same
  const void* matrix;         // images of M, b_proj in its last column: tiles [C / 32][C / 32][4];
                              // for a warpgroup bricks (Packer::Bricks)
  const void* weight1;        // tiles [4 C / 32][C / 32][4], b1 in the last column
  const void* depthwise;      // [4 C / 32] of Dw::kWeightBytes
  const void* weight2;        // tiles [C / 32][4 C / 32][4]; for a warpgroup Packer::VecBricks
  float reciprocal_channels;  // of the network's, which are less than C
  int height, width, rows, strips, segments, images;  // rows: even
  size_t rests;                                       // of split maps, from a map in bytes
};

// Whether the 3 x 3 is BandedDepthwise, which needs four pixels a lane and more registers than
// split maps leave.
MSTPP_HOST_DEVICE constexpr bool BandsFeedForward(int C, Maps maps) {
  return C < 128 && maps == Maps::kHalf;
}
constexpr Sides kFeedForwardSides = Sides::kTensorCores;  // else

template <int C, int P, Maps kMaps, Products kProducts = Products::kWarps>
struct FeedForwardShape {
  static constexpr bool kSplit = kMaps == Maps::kSplit;
  static constexpr bool kWarpgroup = kProducts == Products::kWarpgroup;
  static constexpr int kGroups = C / 32;      // of 32 channels
  static constexpr int kWarps = kGroups * P;  // also the number of slices
  static constexpr int kHidden = 32 * kWarps;
  static constexpr int kPasses = 4 * C / kHidden;
  static constexpr int kUseful = 8 * P - 2;
  static_assert(4 * C % kHidden == 0, "the hidden channels must divide among the warps");
  static_assert(!kWarpgroup || (C == 32 && P == 4 && !kSplit),
                "a warpgroup's warps must be the block's four and have all channels, in halves");
  // Shared memory.
  static constexpr int kRow = kWarps * kWarpVecBytes;  // a row of x, d or LN(x1)
  static constexpr int kX = 0;                         // two rows
  static constexpr int kD = kX + 2 * kRow;             // two rows
  static constexpr int kNormed = kD + 2 * kRow;        // two pairs of rows
  // Two rows of W2's sums, in parts from kWarps warps. Or, for a warpgroup, two pairs of rows of
  // hidden channels as its first factor (hopper.cuh): of every pixel of the lanes' P eight of
  // either row. While a product reads one pair, warps that are done with it leave the next.
  static constexpr int kParts = kNormed + 4 * kRow;
  static constexpr int kFactorRows = 16 * P;
  static constexpr int kPanelBytes = kFactorRows * 128;  // of 64 channels
  static constexpr int kFactorBytes = kHidden / 64 * kPanelBytes;
  static_assert(!kWarpgroup || kParts % 1024 == 0, "panels begin at a multiple of 1024 bytes");
  // x1, for the residual. From parts the output row y - 1 is finished before the rows y + 2 and
  // y + 3 come: four rows wait. A warpgroup finishes y - 1 and y behind them: five wait, in a ring
  // of eight.
  static constexpr int kBase = kParts + (kWarpgroup ? 2 * kFactorBytes : 2 * kWarps * kRow);
  static constexpr int kBaseRows = kWarpgroup ? 8 : 4;
  static constexpr int kXRests = kBase + kBaseRows * kRow;  // as kX, if maps are split
  static constexpr int kBaseRests = kXRests + (kSplit ? 2 * kRow : 0);
  static constexpr int kMatrix = kBaseRests + (kSplit ? kBaseRows * kRow : 0);
  static constexpr int kWeight2 = kMatrix + kGroups * kGroups * 4 * kWarpVecBytes;
  // Groups of W2's outputs with their weights in registers; the others' are in shared memory,
  // where registers are short.
  static constexpr int kOwnWeight2 = C == 64 ? kGroups : kSplit && C == 128 ? 1 : 0;
  static constexpr int kSharedWeight2 = kGroups - kOwnWeight2;
  using Dw = std::conditional_t<BandsFeedForward(C, kMaps), BandedDepthwise,
                                Depthwise<P, kFeedForwardSides>>;
  static constexpr int kMoments = kWeight2 + kWarps * kSharedWeight2 * 4 * kWarpVecBytes;
  static constexpr int kSharedBytes = kMoments + (kGroups > 1 ? kWarps * 8 * 16 : 0);
};

// What either form has: where a block is, x1 and LN(x1) of its rows, and their hidden channels up
// to the second product.
template <int C, int P, Maps kMaps, Products kProducts>
class FeedForwardRows {
 protected:
  using Shape = FeedForwardShape<C, P, kMaps, kProducts>;
  using Dw = typename Shape::Dw;
  static constexpr int kGroups = Shape::kGroups;
  static constexpr int kWarps = Shape::kWarps;
  static constexpr int kElement = 2;

  MSTPP_DEVICE explicit FeedForwardRows(const FeedForwardParams& p)
      : p_(p),
        shared_(SharedMemory()),
        lane_(threadIdx.x & 31),
        warp_(threadIdx.x >> 5),
        pixel_(warp_ % P),
        group_(warp_ / P) {
    const int strip = blockIdx.x % p.strips;
    const int segment = blockIdx.x / p.strips % p.segments;
    image_ = blockIdx.x / p.strips / p.segments;
    row_begin_ = segment * p.rows;
    row_end_ = min(row_begin_ + p.rows, p.height);
    const int local = P * (lane_ >> 2) + pixel_;
    column_ = strip * Shape::kUseful + local;
    ends_ = {strip == 0, strip == p.strips - 1};
    in_columns_ = static_cast<unsigned>(column_) < static_cast<unsigned>(p.width);
    stores_ = in_columns_ && (local > 0 || ends_.first) && (local < 8 * P - 1 || ends_.last);
    pitch_ = p.width * C * kElement;
    image_bytes_ = static_cast<size_t>(image_) * p.height * pitch_;
    fetch_end_ = in_columns_ ? p.height : 0;
  }

  // Starts the copy of M.
  MSTPP_DEVICE void LoadMatrix() const {
    const auto* matrix = static_cast<const unsigned char*>(p_.matrix) +
                         static_cast<size_t>(image_) * kGroups * kGroups * 4 * kWarpVecBytes;
    for (int i = threadIdx.x * 16; i < kGroups * kGroups * 4 * kWarpVecBytes; i += kWarps * 512) {
      CopyAsync(shared_ + Shape::kMatrix + i, matrix + i, true);
    }
  }

  // x1 of row y.
  MSTPP_DEVICE unsigned char* X1(int y) const {
    return shared_ + Shape::kBase + ((y + 1) & (Shape::kBaseRows - 1)) * Shape::kRow;
  }
  MSTPP_DEVICE unsigned char* X1Rests(int y) const {
    return X1(y) + (Shape::kBaseRests - Shape::kBase);
  }

  // Starts the copy of this warp's slice of x and d in the next two rows, y and y + 1.
  MSTPP_DEVICE void Fetch(int y) {
    const auto* x = static_cast<const char*>(p_.x) + image_bytes_;
    const auto* d = static_cast<const char*>(p_.d) + image_bytes_;
    unsigned char* to = shared_ + warp_ * kWarpVecBytes + PieceOffset(lane_);
    MSTPP_UNROLL
    for (int r = 0; r < 2; ++r) {
      const bool inside = static_cast<unsigned>(y + r) < static_cast<unsigned>(fetch_end_);
      CopyAsync(to + Shape::kX + r * Shape::kRow, x + fetch_, inside);
      CopyAsync(to + Shape::kD + r * Shape::kRow, d + fetch_, inside);
      if constexpr (Shape::kSplit) {
        CopyAsync(to + Shape::kXRests + r * Shape::kRow, x + p_.rests + fetch_, inside);
      }
      fetch_ += pitch_;
    }
    CopyCommit();
  }

  // The sum and the sum of squares of this warp's 32 channels, of both of the lane's pixels: the
  // products of the rows with ones, and the diagonals of those with themselves. What the variance
  // loses in E x^2 - (E x)^2, in FP32, is less than what x loses in FP16.
  struct Moments {
    float sum[2], squares[2];
  };
  MSTPP_DEVICE Moments Sum(const HalfVec (&rows)[2]) const {
    constexpr uint32_t kOnes = 0x3c003c00u;
    float sum[4], low[4], high[4];
    MSTPP_UNROLL
    for (int i = 0; i < 4; ++i) sum[i] = low[i] = high[i] = 0.0f;
    MSTPP_UNROLL
    for (int s = 0; s < 2; ++s) {
      const uint32_t a0 = rows[0].pair[2 * s].bits, a1 = rows[1].pair[2 * s].bits;
      const uint32_t a2 = rows[0].pair[2 * s + 1].bits, a3 = rows[1].pair[2 * s + 1].bits;
      MmaHalf(sum, a0, a1, a2, a3, kOnes, kOnes, sum[0], sum[1], sum[2], sum[3]);
      MmaHalf(low, a0, a1, a2, a3, a0, a2, low[0], low[1], low[2], low[3]);
      MmaHalf(high, a0, a1, a2, a3, a1, a3, high[0], high[1], high[2], high[3]);
    }
    const bool odd = (lane_ & 4) != 0;
    const int diagonal = (lane_ & 28) + (lane_ >> 3);
    return {{sum[0], sum[2]},
            {Shuffle(odd ? low[1] : low[0], diagonal), Shuffle(odd ? high[3] : high[2], diagonal)}};
  }

  // Leaves them for the warps that have the pixels' other channels.
  MSTPP_DEVICE void Share(const Moments& moments) const {
    if (kGroups == 1 || (lane_ & 3) != 0) return;
    auto* shared = reinterpret_cast<float4*>(shared_ + Shape::kMoments);
    shared[warp_ * 8 + (lane_ >> 2)] =
        make_float4(moments.sum[0], moments.squares[0], moments.sum[1], moments.squares[1]);
  }
  MSTPP_DEVICE void Collect(Moments& moments) const {
    if (kGroups == 1) return;
    const auto* shared = reinterpret_cast<const float4*>(shared_ + Shape::kMoments);
    moments = {};
    MSTPP_UNROLL
    for (int k = 0; k < kGroups; ++k) {
      const float4 part = shared[(k * P + pixel_) * 8 + (lane_ >> 2)];
      moments.sum[0] += part.x;
      moments.squares[0] += part.y;
      moments.sum[1] += part.z;
      moments.squares[1] += part.w;
    }
  }

  // A slice of the two rows fetched last, of x, d or x's rests.
  MSTPP_DEVICE Rows LoadSlice(int source, int slice) const {
    return RowsLoader(lane_, Shape::kRow).Load(shared_ + source + slice * kWarpVecBytes);
  }

  // Adds what is missing of x1 of this warp's slice, which is X M' + x so far; gives x1 in halves,
  // and its moments. x1's rests take the place of x's, which nobody else reads.
  MSTPP_DEVICE Moments Complete(float (&x1)[4][4], HalfVec (&rows)[2]) const {
    if constexpr (Shape::kSplit) AddWide(x1, LoadSlice(Shape::kXRests, warp_), lane_);
    AddWide(x1, LoadSlice(Shape::kD, warp_), lane_);
    Narrow(x1, rows[0], rows[1]);
    if constexpr (Shape::kSplit) {
      SubtractWide(x1, rows[0], rows[1], lane_);
      HalfVec rests[2];
      Narrow(x1, rests[0], rests[1]);
      unsigned char* to = shared_ + Shape::kXRests + warp_ * kWarpVecBytes;
      MSTPP_UNROLL
      for (int r = 0; r < 2; ++r) StoreBlocks(to + r * Shape::kRow, lane_, rests[r]);
    }
    const Moments moments = Sum(rows);
    Share(moments);
    return moments;
  }

  // x1 over its standard deviation, of this warp's slice in the rows y and y + 1, for all warps;
  // that the mean is taken off is in W1'. The last channel, which says whether the pixel is inside,
  // stays as it is. Also keeps x1 itself.
  MSTPP_DEVICE void Normalise(const HalfVec (&rows)[2], Moments moments, int y, int pair) {
    Collect(moments);
    const bool has_last = group_ == kGroups - 1 && (lane_ & 3) == 3;
    MSTPP_UNROLL
    for (int r = 0; r < 2; ++r) {
      StoreBlocks(X1(y + r) + warp_ * kWarpVecBytes, lane_, rows[r]);
      if constexpr (Shape::kSplit) {
        const int slice = warp_ * kWarpVecBytes + PieceOffset(lane_);
        StoreVec(X1Rests(y + r) + slice,
                 LoadVec(shared_ + Shape::kXRests + r * Shape::kRow + slice));
      }
      const float scale = NormScale(moments.sum[r], moments.squares[r], p_.reciprocal_channels);
      HalfPair factor, last;
      Set(factor, scale, scale);
      last = factor;
      if (has_last) SetHigh(last, 1.0f);
      HalfVec normed;
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) normed.pair[j] = Mul(rows[r].pair[j], j < 3 ? factor : last);
      StoreBlocks(shared_ + Shape::kNormed + (pair * 2 + r) * Shape::kRow + warp_ * kWarpVecBytes,
                  lane_, normed);
    }
  }

  struct Weights {
    HalfVec first[kGroups][4];  // W1: this warp's 32 hidden channels from all C
    // W2: all C outputs from this warp's 32 hidden channels
    HalfVec second[Shape::kOwnWeight2 > 0 ? Shape::kOwnWeight2 : 1][4];
  };

  // A warpgroup's bricks of W2, of 32 outputs, are copied as they lie: so are one group's tiles.
  MSTPP_DEVICE void LoadWeights(int pass, Weights& w) const {
    const int hidden = pass * kWarps + warp_;
    const auto* first = static_cast<const unsigned char*>(p_.weight1);
    const auto* second = static_cast<const unsigned char*>(p_.weight2);
    MSTPP_UNROLL
    for (int k = 0; k < kGroups; ++k) {
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        w.first[k][j] = LoadWarpVec(first, (hidden * kGroups + k) * 4 + j, lane_);
        const int tile = (k * C / 8 + hidden) * 4 + j;
        if (k < Shape::kOwnWeight2) {
          w.second[k][j] = LoadWarpVec(second, tile, lane_);
        } else {
          CopyAsync(shared_ + Shape::kWeight2 + Weight2Tile(k, j) * kWarpVecBytes + lane_ * 16,
                    second + tile * kWarpVecBytes + lane_ * 16, true);
        }
      }
    }
  }
  MSTPP_DEVICE int Weight2Tile(int k, int j) const {
    return (warp_ * Shape::kSharedWeight2 + k - Shape::kOwnWeight2) * 4 + j;
  }

  // Takes row `row` of pair `pair` of LN(x1) through the hidden layers; gives this warp's hidden
  // channels of the row above.
  template <bool kEnds>
  MSTPP_DEVICE void Hidden(int pair, int row, const Weights& w, Dw& depthwise,
                           HalfPair (&above)[4][P]) const {
    const unsigned char* normed = shared_ + Shape::kNormed + (pair * 2 + row) * Shape::kRow;
    const RowsLoader loader(lane_, kPixelStep<P> * kWarpVecBytes);
    HalfPair hidden[4][P];
    MSTPP_UNROLL
    for (int k = 0; k < kGroups; ++k) {
      Rows x[kPixelStep<P>];
      MSTPP_UNROLL
      for (int i = 0; i < kPixelStep<P>; ++i) {
        x[i] = loader.Load(normed + (k * P + i) * kWarpVecBytes);
      }
      if (k == 0) {
        Multiply<true>(hidden, x, w.first[k]);
      } else {
        Multiply<false>(hidden, x, w.first[k]);
      }
    }
    // Pairs one after the other, a step apart: while GELU has one the tensor cores have the next.
    const StripEnds ends = kEnds ? ends_ : StripEnds{};
    MSTPP_UNROLL
    for (int j = 0; j < 6; ++j) {
      if (j < 4) Gelu(hidden[j]);
      if (j >= 1 && j < 5) depthwise.Add(j - 1, hidden[j - 1], lane_, ends, above[j - 1]);
      if (j < 2) continue;
      Gelu(above[j - 2]);
      Dw::ToPixels(above[j - 2]);
    }
  }

  // Loads a pass's weights and begins to fetch its first rows.
  MSTPP_DEVICE void Begin(int pass, Weights& weights, Dw& depthwise) {
    const int y = row_begin_ - 1;
    // Of this lane's pixel, in bytes: in row y, which is fetched next, and in the row above.
    fetch_ = ((y * p_.width + column_) * C + 32 * group_ + 8 * (lane_ & 3)) * kElement;
    store_ = fetch_ - pitch_;
    LoadWeights(pass, weights);
    depthwise.Load(p_.depthwise, pass * kWarps + warp_, lane_);
    if (pass == 0) {
      WaitForPrevious();
      LoadMatrix();
    }
    Fetch(y);
  }

  const FeedForwardParams& p_;
  unsigned char* shared_;
  int lane_, warp_, pixel_, group_, image_, row_begin_, row_end_, column_;
  StripEnds ends_;
  bool in_columns_, stores_;
  int fetch_end_;              // the rows above it, if not negative, are inside
  int pitch_, fetch_, store_;  // of an image, which has less than 2^31 bytes
  size_t image_bytes_;         // before it
};

template <int C, int P, Maps kMaps>
class FeedForward : FeedForwardRows<C, P, kMaps, Products::kWarps> {
  using Base = FeedForwardRows<C, P, kMaps, Products::kWarps>;
  using Base::ends_, Base::image_bytes_, Base::X1, Base::X1Rests, Base::LoadSlice;
  using Base::kGroups, Base::kWarps;
  using Base::p_, Base::shared_, Base::lane_, Base::warp_, Base::pixel_, Base::group_;
  using Base::row_begin_, Base::row_end_, Base::stores_, Base::store_, Base::pitch_;
  using typename Base::Dw, typename Base::Moments, typename Base::Shape, typename Base::Weights;

 public:
  MSTPP_DEVICE explicit FeedForward(const FeedForwardParams& p) : Base(p) {}

  MSTPP_DEVICE void Run() {
    MSTPP_NO_UNROLL
    for (int pass = 0; pass < Shape::kPasses; ++pass) {
      if (ends_.first || ends_.last) {
        Pass<true>(pass);
      } else {
        Pass<false>(pass);
      }
      __syncthreads();
    }
  }

 private:
  // x1 of this warp's slice in the two rows fetched last, and its moments.
  MSTPP_DEVICE Moments Attend(HalfVec (&rows)[2]) const {
    float x1[4][4];
    MSTPP_UNROLL
    for (int k = 0; k < kGroups; ++k) {
      const Rows x = LoadSlice(Shape::kX, k * P + pixel_);
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        const HalfVec m =
            LoadWarpVec(shared_ + Shape::kMatrix, (group_ * kGroups + k) * 4 + j, lane_);
        if (k == 0) {
          MultiplyWide<true>(x1[j], x, m);
        } else {
          MultiplyWide<false>(x1[j], x, m);
        }
      }
    }
    AddWide(x1, LoadSlice(Shape::kX, warp_), lane_);
    return this->Complete(x1, rows);
  }

  // This warp's part of W2's sums.
  MSTPP_DEVICE void LeavePart(int row, const HalfPair (&hidden)[4][P], const Weights& w) const {
    Rows x[kPixelStep<P>];
    MSTPP_UNROLL
    for (int i = 0; i < kPixelStep<P>; ++i) {
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        x[i].a[j >> 1][2 * (j & 1)] = hidden[j][i];
        x[i].a[j >> 1][2 * (j & 1) + 1] = hidden[j][i + kPixelStep<P>];
      }
    }
    unsigned char* parts = shared_ + Shape::kParts + row * kWarps * Shape::kRow;
    const ProductStorer<P> storer(lane_, kPixelStep<P> * kWarps * kWarpVecBytes);
    MSTPP_UNROLL
    for (int k = 0; k < kGroups; ++k) {
      HalfVec second[4];
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (k < Shape::kOwnWeight2) {
          second[j] = w.second[k][j];
        } else {
          second[j] = LoadWarpVec(shared_ + Shape::kWeight2, this->Weight2Tile(k, j), lane_);
        }
      }
      HalfPair part[4][P];
      Multiply<true>(part, x, second);
      MSTPP_UNROLL
      for (int i = 0; i < kPixelStep<P>; ++i) {
        storer.Store(parts + ((k * P + i) * kWarps + warp_) * kWarpVecBytes, part, i);
      }
    }
  }

  // Sums the warps' parts of this warp's slice of output row y, in the order of the warps.
  MSTPP_DEVICE void Finish(int y, int row, int pass) {
    if (!stores_ || y < row_begin_ || y >= row_end_) return;
    const unsigned char* parts = shared_ + Shape::kParts + row * kWarps * Shape::kRow +
                                 warp_ * kWarps * kWarpVecBytes + PieceOffset(lane_);
    HalfVec part[kWarps];
    MSTPP_UNROLL
    for (int i = 0; i < kWarps; ++i) part[i] = LoadVec(parts + i * kWarpVecBytes);
    MSTPP_UNROLL
    for (int step = 1; step < kWarps; step *= 2) {
      MSTPP_UNROLL
      for (int i = 0; i < kWarps; i += 2 * step) {
        MSTPP_UNROLL
        for (int j = 0; j < 4; ++j) {
          part[i].pair[j] = Add(part[i].pair[j], part[i + step].pair[j]);
        }
      }
    }
    unsigned char* out = static_cast<unsigned char*>(p_.out) + image_bytes_ + store_ + row * pitch_;
    HalfVec sum = LoadVec(pass == 0 ? X1(y) + warp_ * kWarpVecBytes + PieceOffset(lane_) : out);
    if constexpr (Shape::kSplit) {
      HalfVec rest = LoadVec(pass == 0 ? X1Rests(y) + warp_ * kWarpVecBytes + PieceOffset(lane_)
                                       : out + p_.rests);
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) AddToSplit(sum.pair[j], rest.pair[j], part[0].pair[j]);
      StoreVec(out + p_.rests, rest);
    } else {
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) sum.pair[j] = Add(sum.pair[j], part[0].pair[j]);
    }
    StoreVec(out, sum);
  }

  // kEnds: the strip is the image's first or last.
  template <bool kEnds>
  MSTPP_DEVICE void Pass(int pass) {
    Weights weights;
    Dw depthwise;
    this->Begin(pass, weights, depthwise);
    CopyWait<0>();
    __syncthreads();
    int y = row_begin_ - 1;
    HalfVec rows[2];
    Moments moments = Attend(rows);
    __syncthreads();
    this->Normalise(rows, moments, y, 0);
    this->Fetch(y + 2);
    __syncthreads();

    const auto hidden = [&](int pair, int row, bool warming) {
      HalfPair above[4][P];
      this->template Hidden<kEnds>(pair, row, weights, depthwise, above);
      if (!warming) LeavePart(row, above, weights);
    };
    MSTPP_NO_UNROLL
    for (int pair = 0; y <= row_end_; y += 2, pair ^= 1) {
      const bool warming = y < row_begin_, more = y + 2 <= row_end_;
      hidden(pair, 0, warming);
      if (warming) {  // the first time: see the loop's end
        CopyWait<0>();
        __syncthreads();
      }
      if (more) moments = Attend(rows);
      __syncthreads();
      Finish(y - 1, 0, pass);
      if (more) {
        this->Normalise(rows, moments, y + 2, pair ^ 1);
        this->Fetch(y + 4);
      }
      hidden(pair, 1, warming);
      CopyWait<0>();
      __syncthreads();
      Finish(y, 1, pass);
      store_ += 2 * pitch_;
    }
  }
};

}  // namespace mstpp::cuda
