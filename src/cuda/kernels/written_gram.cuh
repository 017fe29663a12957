// SPDX-License-Identifier: Apache-2.0
// S = X' X of the map that a kernel writes, summed as it goes: nothing reads the map again for it.
//
// Products with the weights first (weight_rows.cuh) leave sixteen channels in rows and eight pixels
// in columns. Rounded and packed, two such tiles are mma.sync's first operand for S as they are:
// sixteen channels, a band, by sixteen pixels; and half of that, eight channels, is its second.
//
// S is symmetric, so a part of it is of every band three tiles of eight columns, or with 64
// channels five, as the lanes hold them: the two on the diagonal; with 64 channels, whose four
// bands are a ring, the two with the next band; and one of the two that it and the opposite band
// have together.
//
// What a part covers depends on the image's size only, so neither a batch nor the GPU changes a
// bit. Either a kernel's blocks are cut so and leave one each, or they leave one every few rows.
#pragma once

#include "cuda/kernels/weight_rows.cuh"

namespace mstpp::cuda {

template <int C>
struct WrittenGramShape {
  static constexpr int kBands = C / 16;      // 2 or 4
  static constexpr int kTiles = C / 16 + 1;  // of a band
  static constexpr int kAllTiles = kBands * kTiles;
};

// Where a part's tile belongs: the band, and which eight columns.
struct GramTile {
  int band, column8;
};
template <int C>
MSTPP_HOST_DEVICE constexpr GramTile WrittenGramTile(int index) {
  using Shape = WrittenGramShape<C>;
  const int band = index / Shape::kTiles, i = index % Shape::kTiles, half = Shape::kBands / 2;
  if (i < Shape::kTiles - 1) return {band, (2 * band + i) % (C / 8)};
  return {band % half, 2 * half + 2 * (band % half) + band / half};
}

// Sixteen channels of sixteen pixels: the sums of two tiles; each zeros if it is not `inside`.
MSTPP_DEVICE WeightRows GramRows(const float (&first)[4], const float (&second)[4]) {
  return {{HalfPack(first[0], first[1]), HalfPack(first[2], first[3]),
           HalfPack(second[0], second[1]), HalfPack(second[2], second[3])}};
}
MSTPP_DEVICE WeightRows GramRows(const float (&first)[4], const float (&second)[4],
                                 bool first_inside, bool second_inside) {
  return {{first_inside ? HalfPack(first[0], first[1]) : 0u,
           first_inside ? HalfPack(first[2], first[3]) : 0u,
           second_inside ? HalfPack(second[0], second[1]) : 0u,
           second_inside ? HalfPack(second[2], second[3]) : 0u}};
}

// sum += x' y: of y eight channels, the first or, if `upper`, the last.
MSTPP_DEVICE void AddToGram(float (&sum)[4], const WeightRows& x, const WeightRows& y, bool upper) {
  MmaHalf(sum, x.a[0], x.a[1], x.a[2], x.a[3], upper ? y.a[1] : y.a[0], upper ? y.a[3] : y.a[2],
          sum[0], sum[1], sum[2], sum[3]);
}
// The same, eight pixels at a time: no operand whose registers must be brought together.
MSTPP_DEVICE void AddToGramByEights(float (&sum)[4], const WeightRows& x, const WeightRows& y,
                                    bool upper) {
  MSTPP_UNROLL
  for (int i = 0; i < 4; i += 2) {
    MmaHalf(sum, x.a[i], x.a[i + 1], upper ? y.a[i + 1] : y.a[i], sum[0], sum[1], sum[2], sum[3]);
  }
}

MSTPP_DEVICE void StoreRows(void* array, int lane, const WeightRows& rows) {
  reinterpret_cast<uint4*>(array)[lane] = make_uint4(rows.a[0], rows.a[1], rows.a[2], rows.a[3]);
}

// Adds sixteen pixels to the tiles of band `band` but the last, of `own` rows and others at `rows`.
template <int C>
MSTPP_DEVICE void AddToNeighbours(float (&sum)[WrittenGramShape<C>::kTiles][4],
                                  const WeightRows& own, const unsigned char* rows, int band,
                                  int lane) {
  AddToGram(sum[0], own, own, false);
  AddToGram(sum[1], own, own, true);
  if constexpr (WrittenGramShape<C>::kBands == 4) {
    const WeightRows next = LoadWeightRows(rows, (band + 1) & 3, lane);
    AddToGram(sum[2], own, next, false);
    AddToGram(sum[3], own, next, true);
  }
}
// Adds sixteen pixels to the tiles of band `band` of four, all of whose rows lie at `rows`.
MSTPP_DEVICE void AddBand(float (&sum)[5][4], const unsigned char* rows, int band, int lane) {
  AddToNeighbours<64>(sum, LoadWeightRows(rows, band, lane), rows, band, lane);
  AddToGram(sum[4], LoadWeightRows(rows, band & 1, lane), LoadWeightRows(rows, band | 2, lane),
            band >= 2);
}
// The same of two bands or four; the band's own rows are in registers.
template <int C>
MSTPP_DEVICE void AddOwnBand(float (&sum)[WrittenGramShape<C>::kTiles][4], const WeightRows& own,
                             const unsigned char* rows, int band, int lane) {
  constexpr int kHalf = WrittenGramShape<C>::kBands / 2, kLast = WrittenGramShape<C>::kTiles - 1;
  AddToNeighbours<C>(sum, own, rows, band, lane);
  const WeightRows opposite = LoadWeightRows(rows, band ^ kHalf, lane);
  if (band < kHalf) {
    AddToGram(sum[kLast], own, opposite, false);
  } else {
    AddToGram(sum[kLast], opposite, own, true);
  }
}

// Leaves tiles from the `first` on of a part.
template <int C, int kTiles>
MSTPP_DEVICE void StorePart(float* partials, int part, int first, int lane,
                            const float (&sum)[kTiles][4]) {
  auto* to = reinterpret_cast<float4*>(partials) + lane +
             (static_cast<size_t>(part) * WrittenGramShape<C>::kAllTiles + first) * 32;
  MSTPP_UNROLL
  for (int i = 0; i < kTiles; ++i) {
    to[i * 32] = make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
  }
}
// And begins the next.
template <int C, int kTiles>
MSTPP_DEVICE void LeavePart(float (&sum)[kTiles][4], float* partials, int part, int first,
                            int lane) {
  StorePart<C>(partials, part, first, lane, sum);
  MSTPP_UNROLL
  for (int i = 0; i < kTiles; ++i) {
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) sum[i][j] = 0.f;
  }
}

}  // namespace mstpp::cuda
