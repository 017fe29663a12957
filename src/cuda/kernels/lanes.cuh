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
#pragma once

#include "cuda/kernels/ptx.cuh"

namespace mstpp::cuda {

// Two neighbouring channels, in the type that the arithmetic between matrix products uses.
struct HalfPair {
  uint32_t bits;
};
struct FloatPair {
  float x, y;
};

MSTPP_DEVICE HalfPair Mul(HalfPair a, HalfPair b) { return {HalfMul(a.bits, b.bits)}; }
MSTPP_DEVICE HalfPair Add(HalfPair a, HalfPair b) { return {HalfAdd(a.bits, b.bits)}; }
MSTPP_DEVICE HalfPair Fma(HalfPair a, HalfPair b, HalfPair c) {
  return {HalfFma(a.bits, b.bits, c.bits)};
}
MSTPP_DEVICE HalfPair FromLane(HalfPair a, int lane) { return {Shuffle(a.bits, lane)}; }
MSTPP_DEVICE float Low(HalfPair a) { return HalfLow(a.bits); }
MSTPP_DEVICE float High(HalfPair a) { return HalfHigh(a.bits); }
MSTPP_DEVICE void Set(HalfPair& a, float x, float y) { a.bits = HalfPack(x, y); }

MSTPP_DEVICE void SetHigh(HalfPair& a, float y) {
  a.bits = (a.bits & 0xffffu) | (HalfPack(0.f, y) & 0xffff0000u);
}

MSTPP_DEVICE FloatPair Mul(FloatPair a, FloatPair b) { return {a.x * b.x, a.y * b.y}; }
MSTPP_DEVICE FloatPair Add(FloatPair a, FloatPair b) { return {a.x + b.x, a.y + b.y}; }
MSTPP_DEVICE FloatPair Fma(FloatPair a, FloatPair b, FloatPair c) {
  return {fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y)};
}
MSTPP_DEVICE FloatPair FromLane(FloatPair a, int lane) {
  return {Shuffle(a.x, lane), Shuffle(a.y, lane)};
}
MSTPP_DEVICE float Low(FloatPair a) { return a.x; }
MSTPP_DEVICE float High(FloatPair a) { return a.y; }
MSTPP_DEVICE void Set(FloatPair& a, float x, float y) { a = {x, y}; }
MSTPP_DEVICE void SetHigh(FloatPair& a, float y) { a.y = y; }

// Eight neighbouring channels of a pixel; or, of a weight tile, of one output's eight inputs.
template <class Pair>
struct Vec {
  Pair pair[4];
};
using HalfVec = Vec<HalfPair>;
using FloatVec = Vec<FloatPair>;

template <class Pair>
MSTPP_DEVICE Vec<Pair> Zero() {
  Vec<Pair> zero;
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) Set(zero.pair[j], 0.f, 0.f);
  return zero;
}
template <class Pair>
MSTPP_DEVICE Vec<Pair> FromLane(const Vec<Pair>& a, int lane) {
  Vec<Pair> result;
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) result.pair[j] = FromLane(a.pair[j], lane);
  return result;
}

// A Vec takes kWords<Vec> 16-byte words of memory, `stride` bytes apart.
template <class V>
constexpr int kWords = sizeof(V) / 16;

template <class V>
MSTPP_DEVICE V LoadVec(const void* address, int stride = 16) {
  union {
    uint4 words[kWords<V>];
    V value;
  };
  MSTPP_UNROLL
  for (int i = 0; i < kWords<V>; ++i) {
    words[i] = *reinterpret_cast<const uint4*>(static_cast<const char*>(address) + i * stride);
  }
  return value;
}
template <class V>
MSTPP_DEVICE void StoreVec(void* address, const V& vec, int stride = 16) {
  union {
    V value;
    uint4 words[kWords<V>];
  };
  value = vec;
  MSTPP_UNROLL
  for (int i = 0; i < kWords<V>; ++i) {
    *reinterpret_cast<uint4*>(static_cast<char*>(address) + i * stride) = words[i];
  }
}
// The same for an array of Vecs that a whole warp owns, lane after lane: no bank conflicts.
template <class V>
constexpr int kWarpVecBytes = 32 * static_cast<int>(sizeof(V));
template <class V>
MSTPP_DEVICE V LoadWarpVec(const unsigned char* array, int index, int lane) {
  return LoadVec<V>(array + index * kWarpVecBytes<V> + lane * 16, 512);
}
template <class V>
MSTPP_DEVICE void StoreWarpVec(unsigned char* array, int index, int lane, const V& vec) {
  StoreVec(array + index * kWarpVecBytes<V> + lane * 16, vec, 512);
}

// Two pixels' Vecs as mma.sync's A operand wants them in registers: for every two pairs of channels
// the lower pixel's and the upper pixel's in turn. Kept so in shared memory, a load needs no moves.
template <class Pair>
struct Rows {
  Pair a[2][4];
};
template <class Pair>
MSTPP_DEVICE Rows<Pair> MakeRows(const Vec<Pair>& lo, const Vec<Pair>& hi) {
  return {{{lo.pair[0], hi.pair[0], lo.pair[1], hi.pair[1]},
           {lo.pair[2], hi.pair[2], lo.pair[3], hi.pair[3]}}};
}

// Rows in memory: 512 bytes a word, a lane every 16 bytes, like a warp's Vecs. StoreRowsPair writes
// pair j of the lower (which = 0) or upper pixel.
template <class Pair>
MSTPP_DEVICE Rows<Pair> LoadRows(const unsigned char* address) {
  return LoadVec<Rows<Pair>>(address, 512);
}
MSTPP_DEVICE void StoreRowsPair(unsigned char* address, int j, int which, HalfPair value) {
  reinterpret_cast<HalfPair*>(address + (j >> 1) * 512)[2 * (j & 1) + which] = value;
}
MSTPP_DEVICE void StoreRowsPair(unsigned char* address, int j, int which, FloatPair value) {
  reinterpret_cast<FloatPair*>(address + j * 512)[which] = value;
}

// ---- Precisions. Each says what is stored, and how 32 channels of two pixels are multiplied by
// the lane's part `w` of a weight tile (PackTiles). With kFirst the sum starts here, else it goes
// on.

// FP16 storage and arithmetic, products accumulated in FP16 (Multiply) or FP32 (MultiplyWide).
// What goes through GELU is half of its value: see Gelu.
struct Fp16 {
  using Pair = HalfPair;
  using Stored = HalfVec;
  static constexpr float kGeluScale = 0.5f;

  MSTPP_DEVICE static const HalfVec& Unpack(const Stored& stored) { return stored; }
  MSTPP_DEVICE static const HalfVec& PackStored(const HalfVec& value) { return value; }

  template <bool kFirst>
  MSTPP_DEVICE static void Multiply(HalfPair& d_lo, HalfPair& d_hi, const Rows<HalfPair>& x,
                                    const HalfVec& w) {
    MSTPP_UNROLL
    for (int s = 0; s < 2; ++s) {
      const bool zero = kFirst && s == 0;
      MmaHalf(d_lo.bits, d_hi.bits, x.a[s][0].bits, x.a[s][1].bits, x.a[s][2].bits, x.a[s][3].bits,
              w.pair[2 * s].bits, w.pair[2 * s + 1].bits, zero ? 0u : d_lo.bits,
              zero ? 0u : d_hi.bits);
    }
  }
  template <bool kFirst>
  MSTPP_DEVICE static void MultiplyWide(float (&d)[4], const Rows<HalfPair>& x, const HalfVec& w) {
    MSTPP_UNROLL
    for (int s = 0; s < 2; ++s) {
      const bool zero = kFirst && s == 0;
      MmaHalf(d, x.a[s][0].bits, x.a[s][1].bits, x.a[s][2].bits, x.a[s][3].bits, w.pair[2 * s].bits,
              w.pair[2 * s + 1].bits, zero ? 0.f : d[0], zero ? 0.f : d[1], zero ? 0.f : d[2],
              zero ? 0.f : d[3]);
    }
  }
  // acc += the pixels themselves, as products with the identity: four instructions, where
  // conversions would take sixteen.
  MSTPP_DEVICE static void AddWide(float (&acc)[4][4], const Rows<HalfPair>& x, int lane) {
    const int g = lane >> 2, t = lane & 3;
    const uint32_t one = t == (g >> 1) ? ((g & 1) ? 0x3c000000u : 0x00003c00u) : 0u;
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      const auto& a = x.a[j >> 1];
      float(&d)[4] = acc[j];
      MmaHalf(d, a[0].bits, a[1].bits, a[2].bits, a[3].bits, (j & 1) ? 0u : one, (j & 1) ? one : 0u,
              d[0], d[1], d[2], d[3]);
    }
  }
};

// The nearest TF32 number, but for the bits under the mask: MmaTf32 does not look at these. The
// conversion instruction is several on some GPUs.
constexpr uint32_t kTf32Mask = 0xffffe000u;
MSTPP_DEVICE uint32_t RoundToTf32(float value) { return AsUint(value) + 0x1000u; }

// FP32 arithmetic, products of TF32: one, or with kTerms = 3 those of the halves of a split of both
// factors that matter, which is as exact as FP32.
template <int kTerms>
struct Tf32 {
  using Pair = FloatPair;
  using Stored = FloatVec;
  static constexpr float kGeluScale = 1.0f;

  MSTPP_DEVICE static const FloatVec& Unpack(const Stored& stored) { return stored; }
  MSTPP_DEVICE static const FloatVec& PackStored(const FloatVec& value) { return value; }

  template <bool kFirst>
  MSTPP_DEVICE static void MultiplyWide(float (&d)[4], const Rows<FloatPair>& x,
                                        const FloatVec& w) {
    MSTPP_UNROLL
    for (int s = 0; s < 4; ++s) {
      const FloatPair lo = x.a[s >> 1][2 * (s & 1)], hi = x.a[s >> 1][2 * (s & 1) + 1];
      const float a[4] = {lo.x, hi.x, lo.y, hi.y};
      const float b[2] = {w.pair[s].x, w.pair[s].y};
      uint32_t a_big[4], b_big[2];
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) a_big[i] = RoundToTf32(a[i]);
      MSTPP_UNROLL
      for (int i = 0; i < 2; ++i) b_big[i] = RoundToTf32(b[i]);
      if (kFirst && s == 0) d[0] = d[1] = d[2] = d[3] = 0.f;
      if constexpr (kTerms == 3) {
        uint32_t a_small[4], b_small[2];
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) a_small[i] = AsUint(a[i] - AsFloat(a_big[i] & kTf32Mask));
        MSTPP_UNROLL
        for (int i = 0; i < 2; ++i) b_small[i] = AsUint(b[i] - AsFloat(b_big[i] & kTf32Mask));
        MmaTf32(d, a_small[0], a_small[1], a_small[2], a_small[3], b_big[0], b_big[1], d[0], d[1],
                d[2], d[3]);
        MmaTf32(d, a_big[0], a_big[1], a_big[2], a_big[3], b_small[0], b_small[1], d[0], d[1], d[2],
                d[3]);
      }
      MmaTf32(d, a_big[0], a_big[1], a_big[2], a_big[3], b_big[0], b_big[1], d[0], d[1], d[2],
              d[3]);
    }
  }
  template <bool kFirst>
  MSTPP_DEVICE static void Multiply(FloatPair& d_lo, FloatPair& d_hi, const Rows<FloatPair>& x,
                                    const FloatVec& w) {
    float d[4] = {d_lo.x, d_lo.y, d_hi.x, d_hi.y};
    MultiplyWide<kFirst>(d, x, w);
    d_lo = {d[0], d[1]};
    d_hi = {d[2], d[3]};
  }
  MSTPP_DEVICE static void AddWide(float (&acc)[4][4], const Rows<FloatPair>& x, int /*lane*/) {
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      const FloatPair lo = x.a[j >> 1][2 * (j & 1)], hi = x.a[j >> 1][2 * (j & 1) + 1];
      acc[j][0] += lo.x;
      acc[j][1] += lo.y;
      acc[j][2] += hi.x;
      acc[j][3] += hi.y;
    }
  }
};

// BF16 storage; the arithmetic is that of TF32, in which a BF16 number is exact.
struct Bf16 : Tf32<1> {
  using Stored = HalfVec;  // of BF16 bits
  MSTPP_DEVICE static FloatVec Unpack(const Stored& stored) {
    FloatVec value;
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      value.pair[j] = {AsFloat(stored.pair[j].bits << 16),
                       AsFloat(stored.pair[j].bits & 0xffff0000u)};
    }
    return value;
  }
  MSTPP_DEVICE static Stored PackStored(const FloatVec& value) {
    Stored stored;
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) stored.pair[j].bits = Bf16Pack(value.pair[j].x, value.pair[j].y);
    return stored;
  }
};

// The result of MultiplyWide for four tiles, as Vecs of the two pixels.
template <class Pair>
MSTPP_DEVICE void Narrow(const float (&acc)[4][4], Vec<Pair>& lo, Vec<Pair>& hi) {
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) {
    Set(lo.pair[j], acc[j][0], acc[j][1]);
    Set(hi.pair[j], acc[j][2], acc[j][3]);
  }
}

// ---- GELU.

// Of 2z (the factor is folded into the weights before it):
//
//   z + z tanh(2z (a + b (2z)^2)),   a = 0.800143, b = 0.0347073
//
// The usual a and b of GELU's tanh form, but fitted to the least largest error: 2.7e-4 before
// rounding. It keeps that error in FP16, where a polynomial in x^2 loses most of its digits between
// terms of either sign. Eight channels step by step together, for the latency of one.
MSTPP_DEVICE void Gelu(HalfVec& z) {
  constexpr uint32_t kLinear = 0x3e673e67u;  // 2 a
  constexpr uint32_t kCubic = 0x34713471u;   // 8 b
  uint32_t t[4];
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) t[j] = HalfMul(z.pair[j].bits, z.pair[j].bits);
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) t[j] = HalfFma(t[j], kCubic, kLinear);
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) t[j] = HalfMul(t[j], z.pair[j].bits);
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) t[j] = HalfTanh(t[j]);
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) z.pair[j].bits = HalfFma(z.pair[j].bits, t[j], z.pair[j].bits);
}

// x Phi(x) as max(x, 0) - |x| Phi(-|x|), the last by Abramowitz and Stegun 7.1.26: absolute error
// of erf below 1.5e-7. Their p is over sqrt(2) here and their polynomial halved.
MSTPP_DEVICE float Gelu(float x) {
  const float u = Reciprocal(fmaf(0.23164189f, fabsf(x), 1.0f));
  float p = fmaf(u, 0.5307027145f, -0.7265760135f);
  p = fmaf(p, u, 0.7107068705f);
  p = fmaf(p, u, -0.142248368f);
  p = fmaf(p, u, 0.127414796f);
  const float tail = p * (u * Exp2(x * (-0.72134752f * x)));
  return fmaf(-fabsf(x), tail, fmaxf(x, 0.0f));
}
MSTPP_DEVICE void Gelu(FloatVec& x) {
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) x.pair[j] = {Gelu(x.pair[j].x), Gelu(x.pair[j].y)};
}

}  // namespace mstpp::cuda
