// SPDX-License-Identifier: Apache-2.0
// Depthwise 3 x 3 convolution down a strip of 8 P columns, zero padding, weights and all in
// registers, one pair of channels after the other.
//
// Every new row adds to three rows of sums: it finishes the row above it, and `middle` and `below`
// keep those begun for its own row and the row under it. Neighbours along x are the lane's own
// pixels, or come from the lane beside.
//
// The tensor cores multiply by diagonals, for they are idle between the 1 x 1 convolutions. For two
// pixels of a lane and eight channels,
//
//   A = [ pixels at tap a | pixels at tap b ]     16 pixels x (8 + 8)
//   B = [ diag(w_a) ; diag(w_b) ]                 (8 + 8) x 8 channels
//
// takes the middle and the right tap. With P = 4 the lane's pixels 0, 2 and 1, 3 go together.
#pragma once

#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda {

// Strips of 8 P columns that overlap by twice `halo`. The image's own ends need no halo, so
// the first strip begins with the first column and the last may end with the last.
MSTPP_HOST_DEVICE constexpr int StripCount(int width, int columns, int halo) {
  const int useful = columns - 2 * halo;
  return width <= columns ? 1 : (width - 2 * halo + useful - 1) / useful;
}
struct StripEnds {
  bool first, last;  // of the image's strips
};

// The rows under way, and what both ways of adding a row share.
template <int P>
struct StripSums {
  HalfPair middle[4][P], below[4][P];  // [pair][pixel]; banded [pair][channel, place]

  MSTPP_DEVICE void Clear() {
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      MSTPP_UNROLL
      for (int i = 0; i < P; ++i) middle[j][i].bits = below[j][i].bits = 0u;
    }
  }

  // The pixels left and right of a lane's run.
  struct Two {
    HalfPair left, right;
  };
  MSTPP_DEVICE static Two Beside(const HalfPair (&row)[P], int lane, StripEnds ends) {
    Two two = {FromLane(row[P - 1], (lane + 28) & 31), FromLane(row[0], (lane + 4) & 31)};
    if (ends.first && lane < 4) two.left.bits = 0u;
    if (ends.last && lane >= 28) two.right.bits = 0u;
    return two;
  }
};

// kSides: whether the left taps too are products by diagonals, or half2 multiply-adds: the first is
// fewer instructions, the second spares the tensor cores. Weights of 32 channels: for every tap a
// warp's Vec of the diagonals as B operands, or of the lane's channels' weights.
enum class Sides { kTensorCores, kHalf2 };

template <int P, Sides kSides>
struct Depthwise : StripSums<P> {
  static_assert(P == 2 || P == 4, "two or four pixels a lane");
  using StripSums<P>::middle, StripSums<P>::below;
  HalfVec taps[3][3];  // [ky][kx]

  static constexpr int kWeightBytes = 9 * kWarpVecBytes;

  MSTPP_DEVICE void Load(const void* weights, int group, int lane) {
    const auto* tiles = static_cast<const unsigned char*>(weights) + group * kWeightBytes;
    MSTPP_UNROLL
    for (int tap = 0; tap < 9; ++tap) {
      taps[tap / 3][tap % 3] = LoadWarpVec(tiles, tap, lane);
    }
    this->Clear();
  }

  // Pair j of the lane's pixels in a new row; `above` becomes the row above it, whose last it was.
  MSTPP_DEVICE void Add(int j, const HalfPair (&row)[P], int lane, StripEnds ends,
                        HalfPair (&above)[P]) {
    const auto [left, right] = this->Beside(row, lane, ends);
    MSTPP_UNROLL
    for (int i = 0; i < P; ++i) {
      above[i] = middle[j][i];
      middle[j][i] = below[j][i];
    }
    if constexpr (P == 4) {
      AddTaps(j, row[0], row[2], row[1], row[3], above, 0);
      AddTaps(j, row[1], row[3], row[2], right, above, 1);
      AddSides(j, left, row[1], above, 0);
      AddSides(j, row[0], row[2], above, 1);
    } else {
      AddTaps(j, row[0], row[1], row[1], right, above, 0);
      AddSides(j, left, row[0], above, 0);
    }
  }

  // What Add leaves is that already: see BandedDepthwise.
  MSTPP_DEVICE static void ToPixels(HalfPair (&)[P]) {}

 private:
  // lo and hi += the pixels (a0, a1) and (b0, b1) by the diagonals d and e.
  template <bool kFirst>
  MSTPP_DEVICE static void Taps(HalfPair a0, HalfPair a1, HalfPair b0, HalfPair b1, HalfPair d,
                                HalfPair e, HalfPair& lo, HalfPair& hi) {
    MmaHalf(lo.bits, hi.bits, a0.bits, a1.bits, b0.bits, b1.bits, d.bits, e.bits,
            kFirst ? 0u : lo.bits, kFirst ? 0u : hi.bits);
  }

  // The middle and the right taps of pixels i and i + P / 2, of all three sums.
  MSTPP_DEVICE void AddTaps(int j, HalfPair a0, HalfPair a1, HalfPair b0, HalfPair b1,
                            HalfPair (&above)[P], int i) {
    constexpr int kStep = kPixelStep<P>;
    MSTPP_UNROLL
    for (int ky = 2; ky >= 0; --ky) {
      const HalfPair m = taps[ky][1].pair[j], r = taps[ky][2].pair[j];
      HalfPair(&sum)[P] = ky == 2 ? above : ky == 1 ? middle[j] : below[j];
      if (ky == 0) {
        Taps<true>(a0, a1, b0, b1, m, r, sum[i], sum[i + kStep]);
      } else {
        Taps<false>(a0, a1, b0, b1, m, r, sum[i], sum[i + kStep]);
      }
    }
  }
  // The left taps.
  MSTPP_DEVICE void AddSides(int j, HalfPair a0, HalfPair a1, HalfPair (&above)[P], int i) {
    constexpr int kStep = kPixelStep<P>;
    MSTPP_UNROLL
    for (int ky = 2; ky >= 0; --ky) {
      HalfPair(&sum)[P] = ky == 2 ? above : ky == 1 ? middle[j] : below[j];
      Side(a0, a1, taps[ky][0].pair[j], sum[i], sum[i + kStep]);
    }
  }
  MSTPP_DEVICE static void Side(HalfPair a0, HalfPair a1, HalfPair w, HalfPair& lo, HalfPair& hi) {
    if constexpr (kSides == Sides::kTensorCores) {
      MmaHalf(lo.bits, hi.bits, a0.bits, a1.bits, w.bits, lo.bits, hi.bits);
    } else {
      lo = Fma(a0, w, lo);
      hi = Fma(a1, w, hi);
    }
  }
};

// The same of four pixels a lane, all three taps of a row in one product: halves of a register are
// not two channels of a pixel here but two neighbouring pixels of a channel,
//
//   A = [ pixels x - 1, x | pixels x + 1, x + 2 ]      16 places x, of 4 channels
//   B = of each channel the band  l m r 0              outputs x and x + 1
//                                 0 l m r
//
// a lane's places being its pixels 0 and 2, once for the first channels of its pairs and once for
// the second.
struct BandedDepthwise : StripSums<4> {
  static constexpr int P = 4;
  HalfVec taps[3][2][2];  // [ky][channel of a pair][inputs]

  static constexpr int kWeightBytes = 12 * kWarpVecBytes;

  MSTPP_DEVICE void Load(const void* weights, int group, int lane) {
    const auto* tiles = static_cast<const unsigned char*>(weights) + group * kWeightBytes;
    MSTPP_UNROLL
    for (int i = 0; i < 12; ++i) taps[i / 4][i / 2 % 2][i % 2] = LoadWarpVec(tiles, i, lane);
    Clear();
  }

  // Pair j of the lane's pixels in a new row; `above` becomes the row above it, for ToPixels.
  MSTPP_DEVICE void Add(int j, const HalfPair (&row)[P], int lane, StripEnds ends,
                        HalfPair (&above)[P]) {
    const auto [left, right] = Beside(row, lane, ends);
    MSTPP_UNROLL
    for (int channel = 0; channel < 2; ++channel) {
      const uint32_t first = Both(left, row[0], channel), third = Both(row[3], right, channel);
      // Twice, for a product wants its four registers side by side.
      const uint32_t second = Both(row[1], row[2], channel);
      const uint32_t again =
          PermuteBytes(row[2].bits, row[1].bits, channel == 0 ? 0x1054u : 0x3276u);
      MSTPP_UNROLL
      for (int ky = 2; ky >= 0; --ky) {
        const uint32_t b0 = taps[ky][channel][0].pair[j].bits;
        const uint32_t b1 = taps[ky][channel][1].pair[j].bits;
        HalfPair* sum = ky == 2 ? above : ky == 1 ? middle[j] : below[j];
        const HalfPair* begun = ky == 2 ? middle[j] : below[j];
        uint32_t &lo = sum[2 * channel].bits, &hi = sum[2 * channel + 1].bits;
        MmaHalf(lo, hi, first, second, again, third, b0, b1, ky == 0 ? 0u : begun[2 * channel].bits,
                ky == 0 ? 0u : begun[2 * channel + 1].bits);
      }
    }
  }

  // Back to two channels of each pixel.
  MSTPP_DEVICE static void ToPixels(HalfPair (&row)[P]) {
    const HalfPair first[2] = {row[0], row[1]}, second[2] = {row[2], row[3]};
    MSTPP_UNROLL
    for (int i = 0; i < P; ++i) row[i].bits = Both(first[i / 2], second[i / 2], i % 2);
  }

 private:
  // The lower halves of both or, with `upper`, the upper.
  MSTPP_DEVICE static uint32_t Both(HalfPair a, HalfPair b, int upper) {
    return PermuteBytes(a.bits, b.bits, upper ? 0x7632u : 0x5410u);
  }
};

}  // namespace mstpp::cuda
