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

// Two neighbouring channels.
struct HalfPair {
  uint32_t bits;
};

MSTPP_DEVICE HalfPair Mul(HalfPair a, HalfPair b) { return {HalfMul(a.bits, b.bits)}; }
MSTPP_DEVICE HalfPair Add(HalfPair a, HalfPair b) { return {HalfAdd(a.bits, b.bits)}; }
MSTPP_DEVICE HalfPair Fma(HalfPair a, HalfPair b, HalfPair c) {
  return {HalfFma(a.bits, b.bits, c.bits)};
}
MSTPP_DEVICE HalfPair FromLane(HalfPair a, int lane) { return {Shuffle(a.bits, lane)}; }
MSTPP_DEVICE void Set(HalfPair& a, float x, float y) { a.bits = HalfPack(x, y); }

MSTPP_DEVICE void SetHigh(HalfPair& a, float y) {
  a.bits = (a.bits & 0xffffu) | (HalfPack(0.f, y) & 0xffff0000u);
}

// Eight neighbouring channels of a pixel; or, of a weight tile, of one output's eight inputs.
template <class Pair>
struct Vec {
  Pair pair[4];
};
using HalfVec = Vec<HalfPair>;

template <class Pair>
MSTPP_DEVICE Vec<Pair> Zero() {
  Vec<Pair> zero;
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) Set(zero.pair[j], 0.f, 0.f);
  return zero;
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
// the lower pixel's and the upper pixel's in turn.
template <class Pair>
struct Rows {
  Pair a[2][4];
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
  MSTPP_DEVICE Rows<HalfPair> Load(const unsigned char* low) const {
    Rows<HalfPair> rows;
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
MSTPP_DEVICE void StoreBlocks(unsigned char* strip, int lane, const Vec<HalfPair>& vec) {
  if constexpr (kStoresMatrices) {
    const uint32_t m[4] = {vec.pair[0].bits, vec.pair[1].bits, vec.pair[2].bits, vec.pair[3].bits};
    StoreMatrices(strip + PieceOffset(lane & 7, lane >> 3), m);
  } else {
    MSTPP_UNROLL
    for (int q = 0; q < 4; ++q) {
      *reinterpret_cast<HalfPair*>(strip + PieceOffset(lane >> 2, q) + 4 * (lane & 3)) =
          vec.pair[q];
    }
  }
}

// ---- Products of 32 channels of two pixels and the lane's part `w` of a weight tile
// (Packer::Tiles), summed in FP16 or FP32 (Wide). With kFirst the sum starts here, else it goes on.

// Half s of the 32 channels.
template <bool kFirst>
MSTPP_DEVICE void MultiplyHalf(int s, HalfPair& d_lo, HalfPair& d_hi, const Rows<HalfPair>& x,
                               const HalfVec& w) {
  MmaHalf(d_lo.bits, d_hi.bits, x.a[s][0].bits, x.a[s][1].bits, x.a[s][2].bits, x.a[s][3].bits,
          w.pair[2 * s].bits, w.pair[2 * s + 1].bits, kFirst ? 0u : d_lo.bits,
          kFirst ? 0u : d_hi.bits);
}
template <bool kFirst>
MSTPP_DEVICE void MultiplyWide(float (&d)[4], const Rows<HalfPair>& x, const HalfVec& w) {
  MSTPP_UNROLL
  for (int s = 0; s < 2; ++s) {
    const bool zero = kFirst && s == 0;
    MmaHalf(d, x.a[s][0].bits, x.a[s][1].bits, x.a[s][2].bits, x.a[s][3].bits, w.pair[2 * s].bits,
            w.pair[2 * s + 1].bits, zero ? 0.f : d[0], zero ? 0.f : d[1], zero ? 0.f : d[2],
            zero ? 0.f : d[3]);
  }
}
// acc += the pixels themselves, both in blocks of eight, as products with the identity: four
// instructions, where conversions would take sixteen.
MSTPP_DEVICE void AddWide(float (&acc)[4][4], const Rows<HalfPair>& x, int lane) {
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

// The nearest TF32 number, but for the bits under the mask: MmaTf32 does not look at these. The
// conversion instruction is several on some GPUs.
constexpr uint32_t kTf32Mask = 0xffffe000u;
MSTPP_DEVICE uint32_t RoundToTf32(float value) { return AsUint(value) + 0x1000u; }

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

// Weights before a GELU are multiplied by this: see Gelu.
constexpr float kGeluScale = 0.5f;

// Of 2z:
//
//   z + z tanh(2z (a + b (2z)^2)),   a = 0.800143, b = 0.0347073
//
// The usual a and b of GELU's tanh form, but fitted to the least largest error: 2.7e-4 before
// rounding. It keeps that error in FP16, where a polynomial in x^2 loses most of its digits between
// terms of either sign. Pairs step by step together, for the latency of one.
template <int N>
MSTPP_DEVICE void Gelu(HalfPair (&z)[N]) {
  constexpr uint32_t kLinear = 0x3e673e67u;  // 2 a
  constexpr uint32_t kCubic = 0x34713471u;   // 8 b
  uint32_t t[N];
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) t[i] = HalfMul(z[i].bits, z[i].bits);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) t[i] = HalfFma(t[i], kCubic, kLinear);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) t[i] = HalfMul(t[i], z[i].bits);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) t[i] = HalfTanh(t[i]);
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) z[i].bits = HalfFma(z[i].bits, t[i], z[i].bits);
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

}  // namespace mstpp::cuda
