// SPDX-License-Identifier: Apache-2.0
// Depthwise 3 x 3 convolution down a strip of 8 P columns, zero padding, in registers.
//
// Every new row adds to three rows of sums: it finishes the row above it, and `middle` and `below`
// keep those begun for its own row and the row under it. Neighbours along x are the lane's own
// pixels, or come from the lane beside.
//
// In FP16 the tensor cores take two of a row's three taps: half2 arithmetic alone is as slow as all
// else together, and they are idle between the 1 x 1 convolutions. For two pixels of a lane and
// eight channels,
//
//   A = [ pixels at tap a | pixels at tap b ]     16 pixels x (8 + 8)
//   B = [ diag(w_a) ; diag(w_b) ]                 (8 + 8) x 8 channels
//
// With P = 4 the lane's pixels 0, 2 and 1, 3 go together: [0 2 | 1 3] is both [left | middle] of 1,
// 3 and [middle | right] of 0, 2, so one A serves both and no register moves. The third taps, left
// of 0, 2 and right of 1, 3, are half2 multiply-adds.
#pragma once

#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda {

// Pixels i and i + P / 2 of a lane's P share products.
template <int P>
constexpr int kPixelStep = P / 2;

// Strips of 8 P columns that overlap by twice `halo`. The image's own ends need no halo, so
// the first strip begins with the first column and the last may end with the last.
MSTPP_HOST_DEVICE constexpr int StripCount(int width, int columns, int halo) {
  const int useful = columns - 2 * halo;
  return width <= columns ? 1 : (width - 2 * halo + useful - 1) / useful;
}
struct StripEnds {
  bool first, last;  // of the image's strips
};

template <class Pair, int P>
struct Depthwise {
  Vec<Pair> middle[P], below[P];

  // weights: nine taps, each four Vecs (one a t), 64 bytes between the words of one.
  MSTPP_DEVICE void Add(const Vec<Pair> (&row)[P], const unsigned char* weights,
                        const unsigned char* /*zeros*/, int lane, StripEnds ends,
                        Vec<Pair> (&above)[P]) {
    Vec<Pair> left = FromLane(row[P - 1], (lane + 28) & 31);
    Vec<Pair> right = FromLane(row[0], (lane + 4) & 31);
    if (ends.first && lane < 4) left = Zero<Pair>();
    if (ends.last && lane >= 28) right = Zero<Pair>();
    const unsigned char* w = weights + (lane & 3) * 16;
    MSTPP_UNROLL
    for (int i = 0; i < P; ++i) above[i] = middle[i];
    Row<false>(row, left, right, w + 6 * kTapBytes, above);
    MSTPP_UNROLL
    for (int i = 0; i < P; ++i) middle[i] = below[i];
    Row<false>(row, left, right, w + 3 * kTapBytes, middle);
    Row<true>(row, left, right, w, below);
  }

  static constexpr int kTapBytes = 4 * sizeof(Vec<Pair>);
  static constexpr int kWeightBytes = 9 * kTapBytes;
  static constexpr int kZeroBytes = 0;

 private:
  template <bool kFirst>
  MSTPP_DEVICE static void Row(const Vec<Pair> (&row)[P], const Vec<Pair>& left,
                               const Vec<Pair>& right, const unsigned char* weights,
                               Vec<Pair> (&sum)[P]) {
    MSTPP_UNROLL
    for (int dx = 0; dx < 3; ++dx) {
      const auto w = LoadVec<Vec<Pair>>(weights + dx * kTapBytes, 64);
      MSTPP_UNROLL
      for (int i = 0; i < P; ++i) {
        const int x = i + dx - 1;
        const Vec<Pair>& in = x < 0 ? left : x >= P ? right : row[x < 0 || x >= P ? 0 : x];
        MSTPP_UNROLL
        for (int j = 0; j < 4; ++j) {
          sum[i].pair[j] = kFirst && dx == 0 ? Mul(in.pair[j], w.pair[j])
                                             : Fma(in.pair[j], w.pair[j], sum[i].pair[j]);
        }
      }
    }
  }
};

// FP16. Weights of 32 channels: for every ky, for every pair j of a Vec the diagonals of
// [w_left, w_middle, w_middle, w_right] as B operands, 16 bytes for each lane that is not zero
// (t = g / 2); then w_left and w_right as Vecs, one a t. The other lanes read `zeros`.
template <int P>
struct Depthwise<HalfPair, P> {
  static_assert(P == 2 || P == 4, "two or four pixels a lane");
  HalfVec middle[P], below[P];

  static constexpr int kSides = 4 * 128;  // where w_left and w_right of a ky begin
  static constexpr int kRowBytes = kSides + 2 * 64;
  static constexpr int kWeightBytes = 3 * kRowBytes;
  static constexpr int kZeroBytes = 2 * kRowBytes + kSides;

  MSTPP_DEVICE void Add(const HalfVec (&row)[P], const unsigned char* weights,
                        const unsigned char* zeros, int lane, StripEnds ends, HalfVec (&above)[P]) {
    HalfVec left = FromLane(row[P - 1], (lane + 28) & 31);
    HalfVec right = FromLane(row[0], (lane + 4) & 31);
    if (ends.first && lane < 4) left = Zero<HalfPair>();
    if (ends.last && lane >= 28) right = Zero<HalfPair>();
    const int g = lane >> 2, t = lane & 3;
    const unsigned char* diagonals = g >> 1 == t ? weights + g * 16 : zeros;
    const unsigned char* sides = weights + kSides + t * 16;
    MSTPP_UNROLL
    for (int i = 0; i < P; ++i) above[i] = middle[i];
    Row<false>(row, left, right, diagonals + 2 * kRowBytes, sides + 2 * kRowBytes, above);
    MSTPP_UNROLL
    for (int i = 0; i < P; ++i) middle[i] = below[i];
    Row<false>(row, left, right, diagonals + kRowBytes, sides + kRowBytes, middle);
    Row<true>(row, left, right, diagonals, sides, below);
  }

 private:
  template <bool kFirst>
  MSTPP_DEVICE static void Side(HalfPair x, HalfPair w, HalfPair& sum) {
    sum = kFirst ? Mul(x, w) : Fma(x, w, sum);
  }
  // lo and hi += the pixels (a0, a1) and (b0, b1) by the diagonals d0 and d1.
  MSTPP_DEVICE static void Taps(HalfPair a0, HalfPair a1, HalfPair b0, HalfPair b1, uint32_t d0,
                                uint32_t d1, HalfPair& lo, HalfPair& hi) {
    MmaHalf(lo.bits, hi.bits, a0.bits, a1.bits, b0.bits, b1.bits, d0, d1, lo.bits, hi.bits);
  }

  template <bool kFirst>
  MSTPP_DEVICE static void Row(const HalfVec (&row)[P], const HalfVec& left, const HalfVec& right,
                               const unsigned char* diagonals, const unsigned char* sides,
                               HalfVec (&sum)[P]) {
    const auto w_left = LoadVec<HalfVec>(sides), w_right = LoadVec<HalfVec>(sides + 64);
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      const uint4 d = *reinterpret_cast<const uint4*>(diagonals + j * 128);
      if constexpr (P == 4) {
        Side<kFirst>(left.pair[j], w_left.pair[j], sum[0].pair[j]);
        Side<kFirst>(row[1].pair[j], w_left.pair[j], sum[2].pair[j]);
        Side<kFirst>(row[2].pair[j], w_right.pair[j], sum[1].pair[j]);
        Side<kFirst>(right.pair[j], w_right.pair[j], sum[3].pair[j]);
        Taps(row[0].pair[j], row[2].pair[j], row[1].pair[j], row[3].pair[j], d.z, d.w,
             sum[0].pair[j], sum[2].pair[j]);
        Taps(row[0].pair[j], row[2].pair[j], row[1].pair[j], row[3].pair[j], d.x, d.y,
             sum[1].pair[j], sum[3].pair[j]);
      } else {
        Side<kFirst>(left.pair[j], w_left.pair[j], sum[0].pair[j]);
        Side<kFirst>(row[0].pair[j], w_left.pair[j], sum[1].pair[j]);
        Taps(row[0].pair[j], row[1].pair[j], row[1].pair[j], right.pair[j], d.z, d.w,
             sum[0].pair[j], sum[1].pair[j]);
      }
    }
  }
};

}  // namespace mstpp::cuda
