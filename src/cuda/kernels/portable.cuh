// SPDX-License-Identifier: Apache-2.0
// What the portable kernels share. They compute every block of the network for any numbers of
// channels, in FP32 arithmetic with products on the tensor cores as TF32; feature maps are stored
// in FP32, FP16 or BF16. They are what runs where the fused kernels do not fit, FP32 itself (three
// products of TF32 for one: SplitFactor), and the twin that those are tested against.
//
// Feature maps are height x width x stride, the stride the channels rounded up to 16; the channels
// between are zeros.
#pragma once

#include "cuda/kernels/ptx.cuh"

namespace mstpp::cuda::portable {

// ---- Storage types: four channels at a time.
struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

struct Four {
  float v[4];
};

MSTPP_DEVICE Four LoadFour(const float* from) {
  const float4 f = *reinterpret_cast<const float4*>(from);
  return {{f.x, f.y, f.z, f.w}};
}
MSTPP_DEVICE Four LoadFour(const Half* from) {
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  return {{HalfLow(bits.x), HalfHigh(bits.x), HalfLow(bits.y), HalfHigh(bits.y)}};
}
MSTPP_DEVICE Four LoadFour(const Bfloat* from) {
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  return {{AsFloat(bits.x << 16), AsFloat(bits.x & 0xffff0000u), AsFloat(bits.y << 16),
           AsFloat(bits.y & 0xffff0000u)}};
}
MSTPP_DEVICE void StoreFour(float* to, const Four& f) {
  *reinterpret_cast<float4*>(to) = make_float4(f.v[0], f.v[1], f.v[2], f.v[3]);
}
MSTPP_DEVICE void StoreFour(Half* to, const Four& f) {
  *reinterpret_cast<uint2*>(to) = make_uint2(HalfPack(f.v[0], f.v[1]), HalfPack(f.v[2], f.v[3]));
}
MSTPP_DEVICE void StoreFour(Bfloat* to, const Four& f) {
  *reinterpret_cast<uint2*>(to) = make_uint2(Bf16Pack(f.v[0], f.v[1]), Bf16Pack(f.v[2], f.v[3]));
}
MSTPP_DEVICE float LoadOne(const float* from) { return *from; }
MSTPP_DEVICE float LoadOne(const Half* from) { return HalfLow(from->bits); }
MSTPP_DEVICE float LoadOne(const Bfloat* from) {
  return AsFloat(static_cast<uint32_t>(from->bits) << 16);
}
MSTPP_DEVICE void StoreOne(float* to, float value) { *to = value; }
MSTPP_DEVICE void StoreOne(Half* to, float value) {
  to->bits = static_cast<uint16_t>(HalfPack(value, 0.0f));
}
MSTPP_DEVICE void StoreOne(Bfloat* to, float value) {
  to->bits = static_cast<uint16_t>(Bf16Pack(value, 0.0f));
}

MSTPP_DEVICE Four Plus(const Four& a, const Four& b) {
  return {{a.v[0] + b.v[0], a.v[1] + b.v[1], a.v[2] + b.v[2], a.v[3] + b.v[3]}};
}
MSTPP_DEVICE void AddProduct(Four& sum, const Four& a, const Four& b) {
  MSTPP_UNROLL
  for (int i = 0; i < 4; ++i) sum.v[i] = fmaf(a.v[i], b.v[i], sum.v[i]);
}
// x Phi(x) as max(x, 0) - |x| Phi(-|x|), and Phi(-|x|) as 2 to a polynomial that falls from -1 on:
// the one with the least error of the whole, 1.1e-8 besides rounding.
MSTPP_DEVICE float Gelu(float x) {
  const float a = fabsf(x);
  float p = fmaf(a, -2.05023275e-06f, 3.00659831e-05f);
  p = fmaf(p, a, -0.00014245513f);
  p = fmaf(p, a, -0.000240919471f);
  p = fmaf(p, a, 0.00719629321f);
  p = fmaf(p, a, -0.0525850132f);
  p = fmaf(p, a, -0.459180683f);
  p = fmaf(p, a, -1.15110803f);
  p = fmaf(p, a, -1.0f);
  return fmaf(-a, Exp2(p), fmaxf(x, 0.0f));
}
MSTPP_DEVICE Four GeluOf(const Four& x) {
  return {{Gelu(x.v[0]), Gelu(x.v[1]), Gelu(x.v[2]), Gelu(x.v[3])}};
}

// A feature map.
template <class T>
struct Map {
  T* data;
  int images, height, width, stride;

  MSTPP_DEVICE T* At(int image, int y, int x) const {
    return data + ((static_cast<size_t>(image) * height + y) * width + x) * stride;
  }
  MSTPP_DEVICE bool Inside(int y, int x) const {
    return static_cast<unsigned>(y) < static_cast<unsigned>(height) &&
           static_cast<unsigned>(x) < static_cast<unsigned>(width);
  }
};

struct Pixel {
  int image, y, x;
  int group = 0;  // ProductSize
};

constexpr int kSlab = 16;     // inputs at a time
constexpr int kTogether = 4;  // tiles of sums whose products take turns

constexpr int kProductPixels = 128;

struct ProductSize {
  int images, height, width;  // of the pixels
  int inputs, outputs;        // multiples of 16
  int groups = 1;             // so often, each time with weights of its own

  MSTPP_HOST_DEVICE int BlocksOfGroup(int columns) const {
    const int pixels = images * height * width;
    return (pixels + kProductPixels - 1) / kProductPixels * ((outputs + columns - 1) / columns);
  }
};

// A tile of a map: what a block takes of the output, with eight warps unless it says more.
struct Tile {
  static constexpr int kThreads = 256;
  static constexpr int kColumns = 16, kRows = 8;

  int image, row, column;  // its first pixel
  MSTPP_DEVICE Tile(int index, int height, int width)
      : image(index / Across(width) / Down(height)),
        row(index / Across(width) % Down(height) * kRows),
        column(index % Across(width) * kColumns) {}

  MSTPP_HOST_DEVICE static int Across(int width) { return (width + kColumns - 1) / kColumns; }
  MSTPP_HOST_DEVICE static int Down(int height) { return (height + kRows - 1) / kRows; }
  MSTPP_HOST_DEVICE static int Count(int images, int height, int width) {
    return images * Down(height) * Across(width);
  }
};

// ---- Products on the tensor cores.

// The nearest TF32 number, but for the bits under the mask: MmaTf32 does not look at these. The
// conversion instruction is several on some GPUs.
constexpr uint32_t kTf32Mask = 0xffffe000u;
MSTPP_DEVICE uint32_t RoundToTf32(float value) { return AsUint(value) + 0x1000u; }

// Factors as TF32, or with kTerms = 3 as the sum of two: rounded, and what that leaves. Of the
// products of such sums all but the smallest are taken, which is as exact as FP32.
template <int kTerms, int kCount>
struct SplitFactor {
  uint32_t big[kCount], small[kCount];  // small: only of three terms
  MSTPP_DEVICE void Set(int i, float value) {
    big[i] = RoundToTf32(value);
    if constexpr (kTerms == 3) small[i] = AsUint(value - AsFloat(big[i] & kTf32Mask));
  }
};

MSTPP_DEVICE Four AsFour(const uint32_t (&bits)[4]) {
  return {{AsFloat(bits[0]), AsFloat(bits[1]), AsFloat(bits[2]), AsFloat(bits[3])}};
}
MSTPP_DEVICE float2 LoadTwo(const float* from) { return *reinterpret_cast<const float2*>(from); }
MSTPP_DEVICE void StoreTwo(float* to, float low, float high) {
  *reinterpret_cast<float2*>(to) = make_float2(low, high);
}

// d(i) += a(i) b(i) for i < kCount, over the 16 inputs of two steps; in turns, so that the products
// hide each other's latency. The tensor cores add by truncating, so that long sums drift: three
// terms are summed by themselves, the small ones first, and their sum is added in FP32.
MSTPP_DEVICE void MultiplyStep(float* d, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaTf32(*reinterpret_cast<float(*)[4]>(d), a[0], a[1], a[2], a[3], b[0], b[1], d[0], d[1], d[2],
          d[3]);
}
template <int kTerms, int kCount, class A, class B, class D>
MSTPP_DEVICE void Multiply(A a, B b, D d) {
  if constexpr (kTerms == 1) {
    MSTPP_UNROLL
    for (int s = 0; s < 2; ++s) {
      MSTPP_UNROLL
      for (int i = 0; i < kCount; ++i) MultiplyStep(d(i), a(i)[s].big, b(i)[s].big);
    }
  } else {
    float part[kCount][4] = {};
    MSTPP_UNROLL
    for (int step = 0; step < 6; ++step) {
      const int s = step % 2;
      MSTPP_UNROLL
      for (int i = 0; i < kCount; ++i) {
        if (step < 2) MultiplyStep(part[i], a(i)[s].small, b(i)[s].big);
        if (step >= 2 && step < 4) MultiplyStep(part[i], a(i)[s].big, b(i)[s].small);
        if (step >= 4) MultiplyStep(part[i], a(i)[s].big, b(i)[s].big);
      }
    }
    MSTPP_UNROLL
    for (int i = 0; i < kCount; ++i) {
      MSTPP_UNROLL
      for (int e = 0; e < 4; ++e) d(i)[e] += part[i][e];
    }
  }
}

// The factors of a step of eight inputs, of two that a lane has of a slab of 16: rows g and g + 8
// of the first factor, row g of the second.
template <int kTerms>
MSTPP_DEVICE void SetRows(SplitFactor<kTerms, 4> (&x)[2], const Four& low, const Four& high) {
  MSTPP_UNROLL
  for (int s = 0; s < 2; ++s) {
    x[s].Set(0, low.v[2 * s]);
    x[s].Set(1, high.v[2 * s]);
    x[s].Set(2, low.v[2 * s + 1]);
    x[s].Set(3, high.v[2 * s + 1]);
  }
}
template <int kTerms>
MSTPP_DEVICE void SetColumn(SplitFactor<kTerms, 2> (&w)[2], const Four& four) {
  MSTPP_UNROLL
  for (int i = 0; i < 4; ++i) w[i / 2].Set(i % 2, four.v[i]);
}
// The same of factors that were split before: the small parts begin `small` floats further on.
// A step's of the first factor are in the order of the instruction.
template <int kTerms>
MSTPP_DEVICE void LoadRows(SplitFactor<kTerms, 4>& x, const float* from, int small) {
  const Four big_part = LoadFour(from), small_part = kTerms == 3 ? LoadFour(from + small) : Four{};
  MSTPP_UNROLL
  for (int i = 0; i < 4; ++i) {
    x.big[i] = AsUint(big_part.v[i]);
    x.small[i] = AsUint(small_part.v[i]);
  }
}
template <int kTerms>
MSTPP_DEVICE void LoadColumn(SplitFactor<kTerms, 2> (&w)[2], const float* from, int small) {
  const Four big_part = LoadFour(from), small_part = kTerms == 3 ? LoadFour(from + small) : Four{};
  MSTPP_UNROLL
  for (int i = 0; i < 4; ++i) {
    w[i / 2].big[i % 2] = AsUint(big_part.v[i]);
    w[i / 2].small[i % 2] = AsUint(small_part.v[i]);
  }
}

// Sums go through shared memory, so that threads write four channels each: those of 128 pixels by
// kN outputs, in rows without bank conflicts. First a warp's of 16 pixels, from row `first` on.
template <int kN>
constexpr int kSumsRow = kN + 8;
template <int kN, int kTiles>
MSTPP_DEVICE void StageSums(float* staged, int first, const float (&sum)[kTiles][4]) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  MSTPP_UNROLL
  for (int n = 0; n < kTiles; ++n) {
    MSTPP_UNROLL
    for (int half = 0; half < 2; ++half) {
      float* at = staged + (first + 8 * half + g) * kSumsRow<kN> + 8 * n + 2 * t;
      StoreTwo(at, sum[n][2 * half], sum[n][2 * half + 1]);
    }
  }
}
// After a barrier, f(pixel, n, the sums n to n + 3) for all, shared among the block's threads.
template <int kN, int kThreads, bool kPixelsFirst, class F>
MSTPP_DEVICE void ForStagedSums(const float* staged, F f) {
  constexpr int kQuads = kN / 4;
  const int thread = threadIdx.x;
  MSTPP_UNROLL_4
  for (int i = 0; i < 128 * kQuads / kThreads; ++i) {
    const int pixel = kPixelsFirst ? thread % 128 : thread / kQuads + i * (kThreads / kQuads);
    const int n = 4 * (kPixelsFirst ? thread / 128 + i * (kThreads / 128) : thread % kQuads);
    f(pixel, n, LoadFour(staged + pixel * kSumsRow<kN> + n));
  }
}

// Where the four numbers `quad` of a row of 16 lie: no bank conflicts, neither when four threads
// write a row nor when a warp reads the factors of a product.
MSTPP_DEVICE float* QuadAt(float* rows, int row, int quad) {
  return rows + row * kSlab + 4 * (quad ^ (row >> 1 & 3));
}

}  // namespace mstpp::cuda::portable
