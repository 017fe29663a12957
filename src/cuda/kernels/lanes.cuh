// SPDX-License-Identifier: Apache-2.0
// How warps hold feature maps, for every fused kernel here.
//
// A warp works on strips: 8 * P pixels of one image row. Lane (g, t), g = lane / 4, t = lane % 4,
// holds the pixels P*g .. P*g + P-1 and, of every 32 channels, those from 8t to 8t + 7: one Vec a
// pixel. That is both how mma.sync wants its A operand (rows g and g + 8 are two of the lane's
// pixels; the order of the summed channels is free as long as A and B agree) and how it returns D
// (tile j of four holds the channels 8t + 2j and 8t + 2j + 1). So products chain in registers,
// neighbours along x are register renames but at the two ends of a lane's run, and neighbours along
// y come from walking down the image.
//
// Feature maps lie in memory as height x width x C, C = 32 << level: more than the network's
// channels. The last channel is 1 inside the image: weights in its column are biases, and the zero
// padding that every kernel gives to pixels outside switches them off there. The rest are zeros.
//
// Split maps (Maps::kSplit, for TF32) have twice the digits: a number is the sum of two halves, the
// number rounded and what that leaves, its rest. The rests of all images lie in an array like the
// first, right behind it. Factors of products are the rounded numbers alone, which have TF32's ten
// bits; what is only added, the residuals, comes with its rests.
#pragma once

#include "cuda/kernels/ptx.cuh"

namespace mstpp::cuda {

// Two neighbouring channels.
struct HalfPair {
  uint32_t bits;
};

enum class Maps { kHalf, kSplit };

MSTPP_DEVICE HalfPair Mul(HalfPair a, HalfPair b) { return {HalfMul(a.bits, b.bits)}; }
MSTPP_DEVICE HalfPair Add(HalfPair a, HalfPair b) { return {HalfAdd(a.bits, b.bits)}; }
MSTPP_DEVICE HalfPair Subtract(HalfPair a, HalfPair b) { return {HalfSubtract(a.bits, b.bits)}; }
MSTPP_DEVICE HalfPair Fma(HalfPair a, HalfPair b, HalfPair c) {
  return {HalfFma(a.bits, b.bits, c.bits)};
}
MSTPP_DEVICE HalfPair FromLane(HalfPair a, int lane) { return {Shuffle(a.bits, lane)}; }
MSTPP_DEVICE void Set(HalfPair& a, float x, float y) { a.bits = HalfPack(x, y); }

MSTPP_DEVICE void SetHigh(HalfPair& a, float y) {
  a.bits = (a.bits & 0xffffu) | (HalfPack(0.f, y) & 0xffff0000u);
}

// number + rest += term: what the sum of halves loses is itself a half, and joins the rest.
MSTPP_DEVICE void AddToSplit(HalfPair& number, HalfPair& rest, HalfPair term) {
  const HalfPair sum = Add(number, term), taken = Subtract(sum, number);
  const HalfPair lost = Add(Subtract(number, Subtract(sum, taken)), Subtract(term, taken));
  rest = Add(rest, lost);
  number = Add(sum, rest);
  rest = Subtract(rest, Subtract(number, sum));
}

// Two numbers without the halves that they round to.
MSTPP_DEVICE void LeaveRest(float& low, float& high) {
  const uint32_t rounded = HalfPack(low, high);
  low -= HalfLow(rounded);
  high -= HalfHigh(rounded);
}

// Eight neighbouring channels of a pixel; or, of a weight tile, of one output's eight inputs.
struct HalfVec {
  HalfPair pair[4];
};

MSTPP_DEVICE HalfVec Zero() {
  HalfVec zero;
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) Set(zero.pair[j], 0.f, 0.f);
  return zero;
}

MSTPP_DEVICE HalfVec LoadVec(const void* address) {
  union {
    uint4 word;
    HalfVec vec;
  };
  word = *static_cast<const uint4*>(address);
  return vec;
}
MSTPP_DEVICE void StoreVec(void* address, const HalfVec& value) {
  union {
    HalfVec vec;
    uint4 word;
  };
  vec = value;
  *static_cast<uint4*>(address) = word;
}
// From an array of Vecs that a whole warp owns, lane after lane: no bank conflicts.
constexpr int kWarpVecBytes = 32 * static_cast<int>(sizeof(HalfVec));
MSTPP_DEVICE HalfVec LoadWarpVec(const unsigned char* array, int index, int lane) {
  return LoadVec(array + index * kWarpVecBytes + lane * 16);
}

// Pixels i and i + P / 2 of a lane's P share products.
template <int P>
constexpr int kPixelStep = P / 2;

// Two pixels' Vecs as mma.sync's A operand wants them in registers: for every two pairs of channels
// the lower pixel's and the upper pixel's in turn.
struct Rows {
  HalfPair a[2][4];
};

// Shared memory for a strip's 32 channels in halves, as LoadMatrices wants them: 512 bytes for the
// lanes' pixels i, of these 128 for channels 8t to 8t + 7, in which the eight pixels' 16 bytes are
// permuted so that neither a lane's own Vec nor a matrix meets itself in a bank.
MSTPP_DEVICE int PieceOffset(int g, int t) { return t * 128 + ((g ^ (2 * t)) & 7) * 16; }
MSTPP_DEVICE int PieceOffset(int lane) { return PieceOffset(lane >> 2, lane & 3); }

// Loads pixels of a strip and those `high_bytes` further on as Rows in "blocks of eight": pair q of
// a pixel has the channels 8q + 2t and 8q + 2t + 1 (Packer::Lanes::kBlocks).
class RowsLoader {
 public:
  MSTPP_DEVICE RowsLoader(int lane, int high_bytes) {
    const int offset = PieceOffset(lane & 7, lane >> 4), high = lane & 8 ? high_bytes : 0;
    offsets_[0] = offset + high;
    offsets_[1] = (offset ^ 64) + 256 + high;
  }
  MSTPP_DEVICE Rows Load(const unsigned char* low) const {
    Rows rows;
    MSTPP_UNROLL
    for (int s = 0; s < 2; ++s) {
      uint32_t m[4];
      LoadMatrices(m, low + offsets_[s]);
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) rows.a[s][i].bits = m[i];
    }
    return rows;
  }

 private:
  int offsets_[2];
};

// The other way round: a Vec whose pair q has the channels 8q + 2t and 8q + 2t + 1 becomes the
// lanes' pixels at `strip`.
MSTPP_DEVICE void StoreBlocksByPairs(unsigned char* strip, int lane, const HalfVec& vec) {
  MSTPP_UNROLL
  for (int q = 0; q < 4; ++q) {
    *reinterpret_cast<HalfPair*>(strip + PieceOffset(lane >> 2, q) + 4 * (lane & 3)) = vec.pair[q];
  }
}
MSTPP_DEVICE void StoreBlocks(unsigned char* strip, int lane, const HalfVec& vec) {
  if constexpr (kStoresMatrices) {
    const uint32_t m[4] = {vec.pair[0].bits, vec.pair[1].bits, vec.pair[2].bits, vec.pair[3].bits};
    StoreMatrices(strip + PieceOffset(lane & 7, lane >> 3), m);
  } else {
    StoreBlocksByPairs(strip, lane, vec);
  }
}

// Stores what Multiply gives from tiles whose outputs are in blocks of eight as the lanes' pixels
// of two strips, `high_bytes` apart: pixel i and pixel i + P / 2. Straight from the registers that
// the product leaves them in.
template <int P>
class ProductStorer {
 public:
  MSTPP_DEVICE ProductStorer(int lane, int high_bytes)
      : lane_(lane),
        high_bytes_(high_bytes),
        offset_(PieceOffset(lane & 7, lane >> 4) + (lane & 8 ? high_bytes : 0)) {}

  MSTPP_DEVICE void Store(unsigned char* low, const HalfPair (&sum)[4][P], int i) const {
    if constexpr (kStoresMatrices) {
      const int j = i + kPixelStep<P>, second = (offset_ ^ 64) + 256;
      StoreMatrices(low + offset_,
                    {sum[0][i].bits, sum[0][j].bits, sum[1][i].bits, sum[1][j].bits});
      StoreMatrices(low + second, {sum[2][i].bits, sum[2][j].bits, sum[3][i].bits, sum[3][j].bits});
    } else {
      StoreByPairs(low, sum, i);
    }
  }
  MSTPP_DEVICE void StoreByPairs(unsigned char* low, const HalfPair (&sum)[4][P], int i) const {
    const int j = i + kPixelStep<P>;
    StoreBlocksByPairs(low, lane_, {{sum[0][i], sum[1][i], sum[2][i], sum[3][i]}});
    StoreBlocksByPairs(low + high_bytes_, lane_, {{sum[0][j], sum[1][j], sum[2][j], sum[3][j]}});
  }

 private:
  int lane_, high_bytes_, offset_;
};

// ---- Products of 32 channels of two pixels and the lane's part `w` of a weight tile
// (Packer::Tiles), summed in FP16 or FP32 (Wide). With kFirst the sum starts here, else it goes on.

// All pixels of a lane, in four tiles: sum[pair][pixel].
template <bool kFirst, int P>
MSTPP_DEVICE void Multiply(HalfPair (&sum)[4][P], const Rows (&x)[kPixelStep<P>],
                           const HalfVec (&w)[4]) {
  MSTPP_UNROLL
  for (int s = 0; s < 2; ++s) {
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      MSTPP_UNROLL
      for (int i = 0; i < kPixelStep<P>; ++i) {
        const auto& a = x[i].a[s];
        uint32_t &lo = sum[j][i].bits, &hi = sum[j][i + kPixelStep<P>].bits;
        const bool zero = kFirst && s == 0;
        MmaHalf(lo, hi, a[0].bits, a[1].bits, a[2].bits, a[3].bits, w[j].pair[2 * s].bits,
                w[j].pair[2 * s + 1].bits, zero ? 0u : lo, zero ? 0u : hi);
      }
    }
  }
}
template <bool kFirst>
MSTPP_DEVICE void MultiplyWide(float (&d)[4], const Rows& x, const HalfVec& w) {
  MSTPP_UNROLL
  for (int s = 0; s < 2; ++s) {
    const bool zero = kFirst && s == 0;
    MmaHalf(d, x.a[s][0].bits, x.a[s][1].bits, x.a[s][2].bits, x.a[s][3].bits, w.pair[2 * s].bits,
            w.pair[2 * s + 1].bits, zero ? 0.f : d[0], zero ? 0.f : d[1], zero ? 0.f : d[2],
            zero ? 0.f : d[3]);
  }
}
// A lane's pair of an 8 x 8 matrix, row or column lane / 4, that has `half` on its diagonal alone.
constexpr uint32_t kOneHalf = 0x3c00u, kMinusOneHalf = 0xbc00u;
MSTPP_DEVICE uint32_t OnDiagonal(uint32_t half, int lane) {
  const int g = lane >> 2, t = lane & 3;
  return t == (g >> 1) ? ((g & 1) ? half << 16 : half) : 0u;
}

// acc += the pixels themselves, both in blocks of eight, as products with the identity: four
// instructions, where conversions would take sixteen.
MSTPP_DEVICE void AddWide(float (&acc)[4][4], const Rows& x, int lane) {
  const uint32_t one = OnDiagonal(kOneHalf, lane);
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) {
    const HalfPair* a = x.a[j >> 1] + 2 * (j & 1);
    float(&d)[4] = acc[j];
    MmaHalf(d, a[0].bits, a[1].bits, one, d[0], d[1], d[2], d[3]);
  }
}

// acc without the halves that it rounds to, which Narrow gave: the same with minus the identity.
MSTPP_DEVICE void SubtractWide(float (&acc)[4][4], const HalfVec& lo, const HalfVec& hi, int lane) {
  const uint32_t one = OnDiagonal(kMinusOneHalf, lane);
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) {
    float(&d)[4] = acc[j];
    MmaHalf(d, lo.pair[j].bits, hi.pair[j].bits, one, d[0], d[1], d[2], d[3]);
  }
}

// The result of MultiplyWide for four tiles, as Vecs of the two pixels.
MSTPP_DEVICE void Narrow(const float (&acc)[4][4], HalfVec& lo, HalfVec& hi) {
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) {
    Set(lo.pair[j], acc[j][0], acc[j][1]);
    Set(hi.pair[j], acc[j][2], acc[j][3]);
  }
}

// What LN divides a pixel by, as a factor: from the sums of its channels and of their squares, with
// the last channel's 1 in either.
MSTPP_DEVICE float NormScale(float sum, float squares, float reciprocal_channels) {
  const float mean = (sum - 1.0f) * reciprocal_channels;
  const float square = (squares - 1.0f) * reciprocal_channels;
  const float variance = fmaxf(fmaf(-mean, mean, square), 0.0f);
  return ReciprocalSqrt(variance + 1e-5f);
}

// ---- GELU.

// Weights before a GELU are multiplied by this: see Gelu.
constexpr float kGeluScale = 0.5f;

// Of 2z:
//
//   z + |z| (1 - r^2),   r = 1 + |z| (c1 + |z| (c2 + |z| (c3 + |z| c4))), clamped to [0, 1]
//
// for r^2 = erfc(sqrt(2) |z|), fitted to the least largest error: 2.7e-4 before rounding, 1.5e-3
// after, up to |2z| = 8. What is rounded lies between 0 and 1, so FP16 has enough digits for it;
// c4 < 0 makes r 0 for all larger z. Pairs step by step together, for the latency of one.
template <int N>
MSTPP_DEVICE void Gelu(HalfPair (&z)[N]) {
  // -0.135254, 0.544434, -0.407227, -0.789062, 1
  constexpr uint32_t c4 = 0xb054b054u, c3 = 0x385b385bu, c2 = 0xb684b684u, c1 = 0xba50ba50u;
  constexpr uint32_t kOne = 0x3c003c00u;
  uint32_t r[N];
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) r[i] = HalfFma(HalfAbs(z[i].bits), c4, c3);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) r[i] = HalfFma(HalfAbs(z[i].bits), r[i], c2);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) r[i] = HalfFma(HalfAbs(z[i].bits), r[i], c1);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) r[i] = HalfFmaSaturate(HalfAbs(z[i].bits), r[i], kOne);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) r[i] = HalfNegatedFma(r[i], r[i], kOne);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) z[i].bits = HalfFma(HalfAbs(z[i].bits), r[i], z[i].bits);
}

// The same in four instructions, of z = kShortGeluScale x, and 2 kShortGeluScale as much:
//
//   z + |z| (q^2 + p),   p = c1 |z| + c0,  q = p |z| + c2, the bracket clamped to [0, 1]
//
// Fitted to what the bundled weights make of a photograph, two thirds of it less than 0.3: before
// rounding off by 3.5e-4 up to 0.2, 9e-4 up to 1 and 5.3e-3 at most, at 2.9. For maps of 62
// channels and more, where the cube's error is not more for it; at full resolution it would be
// 4e-3.
constexpr float kShortGeluScale = 0.19741f;
template <int N>
MSTPP_DEVICE void ShortGelu(HalfPair (&z)[N]) {
  // -0.949219, 2.818359, -0.916504
  constexpr uint32_t c2 = 0xbb98bb98u, c1 = 0x41a341a3u, c0 = 0xbb55bb55u;
  uint32_t p[N], q[N];
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) p[i] = HalfFma(HalfAbs(z[i].bits), c1, c0);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) q[i] = HalfFma(HalfAbs(z[i].bits), p[i], c2);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) q[i] = HalfFmaSaturate(q[i], q[i], p[i]);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) z[i].bits = HalfFma(HalfAbs(z[i].bits), q[i], z[i].bits);
}

}  // namespace mstpp::cuda
