// SPDX-License-Identifier: Apache-2.0
// The positional branch of spectral attention (pos_emb), with the value projection in front:
//
//   V = X Wv',   d = dw2(GELU(dw1(V)))         both depthwise 3 x 3, zero padding, no bias
//
// It needs nothing of the attention matrix, so it runs beside the kernels that compute that; the
// feed-forward kernel adds x, d and X M'.
//
// Work: a warp takes a strip of 8 P columns, 32 channels of V and `rows` rows, and needs no other
// warp. Two columns on either side of a strip, where it meets another, and two rows above and below
// feed the 3 x 3s only. Rows of X stream into a private queue in shared memory, so the lanes of a
// warp wait for each other and for nobody else. All else stays in registers.
#pragma once

#include "cuda/kernels/depthwise.cuh"

namespace mstpp::cuda {

struct PositionParams {
  const void* x;             // images x height x width x C
  void* d;                   // the same
  const void* value_weight;  // tiles [C / 32][C / 32][4] (Packer::Tiles)
  const void* depthwise1;    // [C / 32] of Depthwise::kWeightBytes
  const void* depthwise2;
  int height, width, rows, strips, segments, images;
};

constexpr Sides kPositionSides = Sides::kHalf2;

template <int C, int P>
struct PositionShape {
  static constexpr int kSlices = C / 32;
  static constexpr int kUseful = 8 * P - 4;  // columns of output a strip
  static constexpr int kQueue = 4;           // rows, a power of two
  static constexpr int kRowBytes = kSlices * P * kWarpVecBytes;
  static constexpr int SharedBytes(int warps) { return warps * kQueue * kRowBytes; }
};

template <int C, int P, int kWarps>
MSTPP_DEVICE void PositionBody(const PositionParams& p) {
  using Shape = PositionShape<C, P>;
  using Dw = Depthwise<P, kPositionSides>;
  constexpr int kSlices = Shape::kSlices;
  constexpr int kElement = 2;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;

  LaunchDependents();
  const int item = blockIdx.x * kWarps + warp;
  const int slice = item % kSlices;
  const int strip = item / kSlices % p.strips;
  const int segment = item / kSlices / p.strips % p.segments;
  const int image = item / kSlices / p.strips / p.segments;
  if (image >= p.images) return;
  unsigned char* queue = SharedMemory() + warp * Shape::kQueue * Shape::kRowBytes;

  const int row_begin = segment * p.rows;
  const int row_end = min(row_begin + p.rows, p.height);
  const int column = strip * Shape::kUseful + P * g;  // of this lane's first pixel
  const size_t image_offset = static_cast<size_t>(image) * p.height * p.width * C;
  const char* x = static_cast<const char*>(p.x) + image_offset * kElement;

  // Rows are fetched in order, from row_begin - 2 on.
  const int piece = PieceOffset(lane);
  bool in_columns[P];
  MSTPP_UNROLL
  for (int i = 0; i < P; ++i) in_columns[i] = column + i < p.width;
  const char* source =
      x + ((static_cast<ptrdiff_t>(row_begin - 2) * p.width + column) * C + 8 * t) * kElement;
  const ptrdiff_t pitch = static_cast<ptrdiff_t>(p.width) * C * kElement;
  const auto fetch = [&](int y) {
    unsigned char* row = queue + (y & (Shape::kQueue - 1)) * Shape::kRowBytes + piece;
    const bool in_rows = static_cast<unsigned>(y) < static_cast<unsigned>(p.height);
    MSTPP_UNROLL
    for (int k = 0; k < kSlices; ++k) {
      MSTPP_UNROLL
      for (int i = 0; i < P; ++i) {
        CopyAsync(row + (k * P + i) * kWarpVecBytes, source + (i * C + 32 * k) * kElement,
                  in_rows && in_columns[i]);
      }
    }
    source += pitch;
    CopyCommit();
  };

  HalfVec weight[kSlices][4];
  MSTPP_UNROLL
  for (int k = 0; k < kSlices; ++k) {
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      weight[k][j] = LoadWarpVec(static_cast<const unsigned char*>(p.value_weight),
                                 (slice * kSlices + k) * 4 + j, lane);
    }
  }

  const RowsLoader loader(lane, kPixelStep<P> * kWarpVecBytes);
  Dw first, second;
  first.Load(p.depthwise1, slice, lane);
  second.Load(p.depthwise2, slice, lane);
  fetch(row_begin - 2);
  fetch(row_begin - 1);
  fetch(row_begin);
  // dw1's rows outside the image are sums of inside pixels, but dw2 must see zeros there.
  const StripEnds ends = {strip == 0, strip == p.strips - 1};

  MSTPP_NO_UNROLL
  for (int y = row_begin - 2; y < row_end + 2; ++y) {
    // Row y is here from all lanes, and none still reads row y - 1, whose place y + 3 takes.
    CopyWait<2>();
    __syncwarp();
    fetch(y + 3);
    const unsigned char* row = queue + (y & (Shape::kQueue - 1)) * Shape::kRowBytes;
    HalfPair value[4][P];
    MSTPP_UNROLL
    for (int k = 0; k < kSlices; ++k) {
      Rows in[kPixelStep<P>];
      MSTPP_UNROLL
      for (int i = 0; i < kPixelStep<P>; ++i) {
        in[i] = loader.Load(row + (k * P + i) * kWarpVecBytes);
      }
      if (k == 0) {
        Multiply<true>(value, in, weight[k]);
      } else {
        Multiply<false>(value, in, weight[k]);
      }
    }
    const bool in_rows = static_cast<unsigned>(y - 1) < static_cast<unsigned>(p.height);
    HalfVec result[P];
    HalfPair hidden[4][P];
    // Pairs one after the other, a step apart: while GELU has one the tensor cores have the next.
    MSTPP_UNROLL
    for (int j = 0; j < 6; ++j) {
      if (j < 4) first.Add(j, value[j], lane, ends, hidden[j]);  // row y - 1
      if (j >= 1 && j < 5) {
        Gelu(hidden[j - 1]);
        MSTPP_UNROLL
        for (int i = 0; i < P; ++i) {
          if (!in_rows || !in_columns[i]) hidden[j - 1][i].bits = 0u;
        }
      }
      if (j >= 2) {
        HalfPair above[P];
        second.Add(j - 2, hidden[j - 2], lane, ends, above);  // row y - 2
        MSTPP_UNROLL
        for (int i = 0; i < P; ++i) result[i].pair[j - 2] = above[i];
      }
    }
    if (y - 2 < row_begin) continue;
    char* out =
        static_cast<char*>(p.d) +
        (image_offset + (static_cast<size_t>(y - 2) * p.width + column) * C + 32 * slice + 8 * t) *
            kElement;
    MSTPP_UNROLL
    for (int i = 0; i < P; ++i) {
      const int local = P * g + i;
      if ((local >= 2 || ends.first) && (local < 8 * P - 2 || ends.last) && column + i < p.width) {
        StoreVec(out + static_cast<ptrdiff_t>(i) * C * kElement, result[i]);
      }
    }
  }
}

}  // namespace mstpp::cuda
