// SPDX-License-Identifier: Apache-2.0
// Every block of the network for any numbers of channels, in FP32 arithmetic with products on the
// tensor cores as TF32; feature maps stored in FP32, FP16 or BF16. It is what runs where the fused
// kernels do not fit, FP32 itself (three products of TF32 for one: SplitFactor), and the twin that
// those are tested against.
//
// All dense layers are one matrix product, PixelProduct: a row a pixel, with a loader that says
// what a pixel's inputs are (its own channels, its neighbours', normalised, convolved ...) and a
// writer that says what becomes of the sums. Feature maps are height x width x stride, the stride
// the channels rounded up to 16; the channels between are zeros.
#pragma once

#include "cuda/kernels/lanes.cuh"

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
constexpr int kOwn = 4;       // pixels of which a thread loads four inputs each

// ---- Loaders. Start(state, pixels) once, then Load(state, k, v): of each pixel the inputs k to
// k + 3. Four neighbouring threads share pixels; k / 4 modulo four is a thread's own.

template <class T>
struct LoadPixel {
  Map<const T> x;
  struct State {
    const T* at[kOwn];
  };
  MSTPP_DEVICE void Start(State& state, const Pixel (&p)[kOwn]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) state.at[i] = x.At(p[i].image, p[i].y, p[i].x);
  }
  MSTPP_DEVICE void Load(const State& state, int k, Four (&v)[kOwn]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) v[i] = LoadFour(state.at[i] + k);
  }
};

// LayerNorm without gain and offset (they are in the weights that follow).
template <class T>
struct LoadNormalised {
  Map<const T> x;
  int channels;
  struct Moments {
    float mean, scale;
  };
  struct State {
    const T* at[kOwn];
    Moments moments[kOwn];
  };
  // The sum over the channels of f of each, shared among the four threads.
  template <class F>
  MSTPP_DEVICE float Sum(const T* at, F f) const {
    float sum = 0.0f;
    for (int k = 4 * (threadIdx.x & 3); k < x.stride; k += kSlab) {
      const Four v = LoadFour(at + k);
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) sum += k + i < channels ? f(v.v[i]) : 0.0f;
    }
    sum += ShuffleXor(sum, 1);
    return sum + ShuffleXor(sum, 2);
  }
  MSTPP_DEVICE Moments MomentsOf(const T* at) const {
    const float each = Reciprocal(static_cast<float>(channels));
    const float mean = Sum(at, [](float v) { return v; }) * each;
    const float squares = Sum(at, [mean](float v) { return (v - mean) * (v - mean); });
    return {mean, ReciprocalSqrt(fmaf(squares, each, 1e-5f))};
  }
  MSTPP_DEVICE Four Normalised(const Moments& moments, const T* at, int k) const {
    Four v = LoadFour(at + k);
    MSTPP_UNROLL
    for (int i = 0; i < 4; ++i) {
      v.v[i] = k + i < channels ? (v.v[i] - moments.mean) * moments.scale : 0.0f;
    }
    return v;
  }
  MSTPP_DEVICE void Start(State& state, const Pixel (&p)[kOwn]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      state.at[i] = x.At(p[i].image, p[i].y, p[i].x);
      state.moments[i] = MomentsOf(state.at[i]);
    }
  }
  MSTPP_DEVICE void Load(const State& state, int k, Four (&v)[kOwn]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) v[i] = Normalised(state.moments[i], state.at[i], k);
  }
};

// GELU of the depthwise 3 x 3; weights [9][stride].
template <class T>
struct LoadDepthwiseGelu {
  Map<const T> x;
  const float* weights;
  struct State {
    Pixel pixel[kOwn];
  };
  MSTPP_DEVICE void Start(State& state, const Pixel (&p)[kOwn]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) state.pixel[i] = p[i];
  }
  MSTPP_DEVICE void Load(const State& state, int k, Four (&v)[kOwn]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) v[i] = Four{};
    MSTPP_UNROLL
    for (int tap = 0; tap < 9; ++tap) {
      const Four weight = LoadFour(weights + tap * x.stride + k);
      MSTPP_UNROLL
      for (int i = 0; i < kOwn; ++i) {
        const Pixel& p = state.pixel[i];
        const int y = p.y + tap / 3 - 1, column = p.x + tap % 3 - 1;
        if (x.Inside(y, column)) AddProduct(v[i], LoadFour(x.At(p.image, y, column) + k), weight);
      }
    }
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) v[i] = GeluOf(v[i]);
  }
};

// The pixel and its child in the skip: column group % 2, row group / 2.
template <class T>
struct LoadWithSkip {
  Map<const T> x, skip;
  struct State {
    const T *at[kOwn], *skip_at[kOwn];
  };
  MSTPP_DEVICE void Start(State& state, const Pixel (&p)[kOwn]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      state.at[i] = x.At(p[i].image, p[i].y, p[i].x);
      state.skip_at[i] =
          skip.At(p[i].image, 2 * p[i].y + p[i].group / 2, 2 * p[i].x + p[i].group % 2);
    }
  }
  MSTPP_DEVICE void Load(const State& state, int k, Four (&v)[kOwn]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      v[i] = LoadFour(k < x.stride ? state.at[i] + k : state.skip_at[i] + k - x.stride);
    }
  }
};

// ---- Writers: the sums n to n + 3 of a pixel. kPixelsFirst: neighbouring threads have
// neighbouring pixels, else neighbouring channels.

template <class T>
struct WriteMap {
  static constexpr bool kPixelsFirst = false;
  Map<T> y;
  const T* residual;  // same layout, or null
  const float* bias;  // or null
  int gelu;
  MSTPP_DEVICE void Write(const Pixel& p, int n, Four sum) const {
    T* at = y.At(p.image, p.y, p.x) + n;
    if (bias != nullptr) sum = Plus(sum, LoadFour(bias + n));
    if (gelu) sum = GeluOf(sum);
    if (residual != nullptr) sum = Plus(sum, LoadFour(residual + (at - y.data)));
    StoreFour(at, sum);
  }
};

// x + X M' + b_proj + d: the sums are X M'.
template <class T>
struct WriteAttention {
  static constexpr bool kPixelsFirst = false;
  Map<T> y;
  Map<const T> x, d;
  const float* bias;
  MSTPP_DEVICE void Write(const Pixel& p, int n, Four sum) const {
    sum = Plus(Plus(sum, LoadFour(bias + n)), LoadFour(d.At(p.image, p.y, p.x) + n));
    StoreFour(y.At(p.image, p.y, p.x) + n, Plus(LoadFour(x.At(p.image, p.y, p.x) + n), sum));
  }
};

template <class T>
struct WriteChild {
  static constexpr bool kPixelsFirst = false;
  Map<T> y;
  const float* bias;
  MSTPP_DEVICE void Write(const Pixel& p, int n, const Four& sum) const {
    StoreFour(y.At(p.image, 2 * p.y + p.group / 2, 2 * p.x + p.group % 2) + n,
              Plus(sum, LoadFour(bias + n)));
  }
};

// ---- Products on the tensor cores.

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
      *reinterpret_cast<float2*>(at) = make_float2(sum[n][2 * half], sum[n][2 * half + 1]);
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

// ---- The product: 128 pixels by kN outputs a block of four warps, 32 pixels each; the next slab
// of inputs is loaded into registers while this one is multiplied.
// weights: [inputs / 16][outputs][16].

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

template <int kN>
struct ProductShape {
  static constexpr int kFactors = 2 * kProductPixels * kSlab;  // floats before the weights
  static constexpr int kLoading = kFactors + 2 * kN * kSlab;   // floats in all
  static constexpr int kStoring = kProductPixels * kSumsRow<kN>;
  static constexpr int kSharedBytes = 4 * (kLoading > kStoring ? kLoading : kStoring);
};

// Where the four numbers `quad` of a row of 16 lie: no bank conflicts, neither when four threads
// write a row nor when a warp reads the factors of a product.
MSTPP_DEVICE float* QuadAt(float* rows, int row, int quad) {
  return rows + row * kSlab + 4 * (quad ^ (row >> 1 & 3));
}

template <int kTerms, int kN, class Loader, class Writer>
MSTPP_DEVICE void PixelProduct(const ProductSize& size, const float* weights, const Loader& loader,
                               const Writer& writer) {
  using Shape = ProductShape<kN>;
  constexpr int kTiles = kN / 8, kWeights = kN / 32;
  auto* a = reinterpret_cast<float*>(SharedMemory());
  float* b = a + Shape::kFactors;
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, t = lane & 3;
  const int column_blocks = (size.outputs + kN - 1) / kN;
  const int group = static_cast<int>(blockIdx.x) / size.BlocksOfGroup(kN);
  const int block = static_cast<int>(blockIdx.x) % size.BlocksOfGroup(kN);
  const int n0 = block % column_blocks * kN, first = block / column_blocks * kProductPixels;
  weights += static_cast<size_t>(group) * size.inputs * size.outputs;
  const int pixels = size.images * size.height * size.width;
  const auto pixel_of = [&](int index) {
    const int row = index / size.width;
    return Pixel{row / size.height, row % size.height, index - row * size.width, group};
  };

  const int quad = tid & 3, row = tid >> 2;  // of what the thread loads
  Pixel mine[kOwn];
  MSTPP_UNROLL
  for (int i = 0; i < kOwn; ++i) mine[i] = pixel_of(min(first + row + 32 * i, pixels - 1));
  typename Loader::State state;
  loader.Start(state, mine);
  Four inputs[kOwn], factors[kWeights];
  const auto fetch = [&](int k) {
    loader.Load(state, k + 4 * quad, inputs);
    MSTPP_UNROLL
    for (int i = 0; i < kWeights; ++i) {
      const int n = n0 + row + 32 * i;
      factors[i] =
          n < size.outputs
              ? LoadFour(weights + static_cast<size_t>(k) * size.outputs + n * kSlab + 4 * quad)
              : Four{};
    }
  };
  const auto put = [&](int side) {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      StoreFour(QuadAt(a, side * kProductPixels + row + 32 * i, quad), inputs[i]);
    }
    MSTPP_UNROLL
    for (int i = 0; i < kWeights; ++i) {
      StoreFour(QuadAt(b, side * kN + row + 32 * i, quad), factors[i]);
    }
  };

  // Lane t's part of a slab are the inputs 4 t to 4 t + 3: two steps of two.
  float sum[2][kTiles][4] = {};
  const auto multiply = [&](int side) {
    SplitFactor<kTerms, 4> x[2][2];  // [16 pixels][step]
    MSTPP_UNROLL
    for (int m = 0; m < 2; ++m) {
      const int at = side * kProductPixels + 32 * warp + 16 * m + g;
      SetRows(x[m], LoadFour(QuadAt(a, at, t)), LoadFour(QuadAt(a, at + 8, t)));
    }
    MSTPP_UNROLL
    for (int n = 0; n < kTiles; n += 2) {
      SplitFactor<kTerms, 2> w[2][2];  // [tile][step]
      MSTPP_UNROLL
      for (int i = 0; i < 2; ++i)
        SetColumn(w[i], LoadFour(QuadAt(b, side * kN + 8 * (n + i) + g, t)));
      Multiply<kTerms, 4>([&](int i) { return x[i / 2]; }, [&](int i) { return w[i % 2]; },
                          [&](int i) { return sum[i / 2][n + i % 2]; });
    }
  };

  fetch(0);
  put(0);
  __syncthreads();
  int side = 0;
  MSTPP_NO_UNROLL
  for (int k = 0; k < size.inputs; k += kSlab) {
    const bool more = k + kSlab < size.inputs;
    if (more) fetch(k + kSlab);
    multiply(side);
    side ^= 1;
    if (more) put(side);
    __syncthreads();
  }

  MSTPP_UNROLL
  for (int m = 0; m < 2; ++m) StageSums<kN>(a, 32 * warp + 16 * m, sum[m]);
  __syncthreads();
  ForStagedSums<kN, kProductPixels, Writer::kPixelsFirst>(
      a, [&](int pixel, int n, const Four& sums) {
        if (first + pixel < pixels && n0 + n < size.outputs) {
          writer.Write(pixel_of(first + pixel), n0 + n, sums);
        }
      });
}

// ---- The feed-forward network of up to kC channels in one kernel, so that the hidden channels
// never leave the SM:
//
//   y = x + W2 GELU(dw(GELU(W1 LN(x) + b1)))
//
// A block of eight warps takes 16 x 8 pixels, and one around for the depthwise convolution. It
// keeps LN(x) in shared memory and goes through the hidden channels by 16: the first product of all
// 180 pixels, GELU, the depthwise convolution, GELU, and what these channels add to the second
// product, whose sums stay in registers. The weights are copied 16 hidden channels ahead.

template <class T>
struct FeedForwardParams {
  Map<const T> x;
  T* y;                  // same layout
  const float* weight1;  // [inputs / 16][hidden][16]
  const float* bias1;
  const float* depthwise;  // [9][hidden]
  const float* weight2;    // [hidden / 16][outputs][16]
  int channels, hidden;    // hidden: a multiple of 16
};

// What a block takes of the output, with eight warps unless it says more.
struct Tile {
  static constexpr int kThreads = 256;
  static constexpr int kColumns = 16, kRows = 8;
};

template <int kC>
struct FeedForwardShape : Tile {
  // With many channels one block fills an SM: then two warps share the outputs of 16 pixels.
  static constexpr int kShares = kC > 64 ? 2 : 1, kWarps = 8 * kShares, kThreads = 32 * kWarps;
  static constexpr int kWide = kColumns + 2, kHigh = kRows + 2;
  static constexpr int kAll = 192;  // kWide kHigh, rounded up to whole products
  // In floats: LN(x) [slab][kAll][16], later the sums; 16 hidden channels of all pixels; the same
  // after the depthwise convolution; and twice the weights of 16 hidden channels: W1's, W2's, the
  // depthwise convolution's and the bias.
  static constexpr int kHidden = kC * kAll;
  static constexpr int kFactors = kHidden + kSlab * kAll;
  static constexpr int kWeights = kFactors + kSlab * kColumns * kRows;
  static constexpr int kWeight2 = kSlab * kC, kDepthwise = 2 * kSlab * kC;
  static constexpr int kBias = kDepthwise + 9 * kSlab, kWeightsSize = kBias + kSlab;
  static constexpr int kSharedBytes = 4 * (kWeights + 2 * kWeightsSize);
  static_assert(kSumsRow<kC> * kColumns * kRows <= kHidden, "the sums fit where LN(x) was");
};

template <int kTerms, int kC, class T>
class TileFeedForward {
  using Shape = FeedForwardShape<kC>;
  // Tiles of 16 pixels of a warp in First (of 16 warps twelve have some), and of eight outputs in
  // Second.
  static constexpr int kTiles = Shape::kShares == 1 ? 3 : 2, kStep = 12 / kTiles * 16;
  static constexpr int kOutputs = kC / 8 / Shape::kShares;

 public:
  MSTPP_DEVICE explicit TileFeedForward(const FeedForwardParams<T>& p)
      : p_(p),
        shared_(reinterpret_cast<float*>(SharedMemory())),
        g_((threadIdx.x & 31) >> 2),
        t_(threadIdx.x & 3),
        warp_(threadIdx.x >> 5),
        swizzled_(4 * (t_ ^ (g_ >> 1))) {
    const int across = (p.x.width + Shape::kColumns - 1) / Shape::kColumns;
    const int down = (p.x.height + Shape::kRows - 1) / Shape::kRows;
    column_ = static_cast<int>(blockIdx.x) % across * Shape::kColumns;
    row_ = static_cast<int>(blockIdx.x) / across % down * Shape::kRows;
    image_ = static_cast<int>(blockIdx.x) / across / down;
    inside_ = 0;
    for (int i = 0; i < 2 * kTiles; ++i) {
      if (IsInside(FirstPixel() + kStep * (i / 2) + 8 * (i % 2))) inside_ |= 1u << i;
    }
  }

  MSTPP_DEVICE void Run() {
    Fetch(0);
    Normalise();
    CopyWait<0>();
    __syncthreads();
    float sum[kOutputs][4] = {};
    MSTPP_NO_UNROLL
    for (int h = 0; h < p_.hidden; h += kSlab) {
      if (kTiles == 3 || warp_ < 12) First(h);
      __syncthreads();
      if (h + kSlab < p_.hidden) Fetch(h + kSlab);
      Depthwise(h);
      CopyWait<0>();
      __syncthreads();
      Second(h, sum);
    }
    __syncthreads();
    StageSums<kC>(shared_ + Output(), 16 * (warp_ % 8), sum);
    __syncthreads();
    ForStagedSums<kC, Shape::kThreads, false>(shared_, [&](int pixel, int n, const Four& sums) {
      const int y = row_ + pixel / Shape::kColumns, x = column_ + pixel % Shape::kColumns;
      if (n >= p_.x.stride || !p_.x.Inside(y, x)) return;
      const T* at = p_.x.At(image_, y, x) + n;
      StoreFour(p_.y + (at - p_.x.data), Plus(LoadFour(at), sums));
    });
  }

 private:
  // Pixel i of the tile with one around: its place in the image.
  MSTPP_DEVICE int RowOf(int i) const { return row_ - 1 + i / Shape::kWide; }
  MSTPP_DEVICE int ColumnOf(int i) const { return column_ - 1 + i % Shape::kWide; }
  MSTPP_DEVICE bool IsInside(int i) const {
    return i < Shape::kWide * Shape::kHigh && p_.x.Inside(RowOf(i), ColumnOf(i));
  }
  // In First a warp takes eight channels of 16 pixels, and of every kStep pixels after these; this
  // is the lane's first.
  MSTPP_DEVICE int FirstPixel() const { return warp_ / 2 * 16 + g_; }

  // Four neighbouring threads take a pixel, and its channels from registers.
  MSTPP_DEVICE void Normalise() const {
    const float each = Reciprocal(static_cast<float>(p_.channels));
    MSTPP_NO_UNROLL
    for (int row = static_cast<int>(threadIdx.x >> 2); row < Shape::kAll;
         row += Shape::kThreads / 4) {
      const bool inside = IsInside(row);
      const T* at = p_.x.At(image_, inside ? RowOf(row) : row_, inside ? ColumnOf(row) : column_);
      Four v[kC / kSlab];
      float sum = 0.0f, squares = 0.0f;
      MSTPP_UNROLL
      for (int k = 0; k < kC / kSlab; ++k) {
        const int c = k * kSlab + 4 * t_;
        v[k] = inside && c < p_.x.stride ? LoadFour(at + c) : Four{};
        sum += v[k].v[0] + v[k].v[1] + v[k].v[2] + v[k].v[3];
      }
      sum += ShuffleXor(sum, 1);
      const float mean = (sum + ShuffleXor(sum, 2)) * each;
      MSTPP_UNROLL
      for (int k = 0; k < kC / kSlab; ++k) {
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) {
          v[k].v[i] = k * kSlab + 4 * t_ + i < p_.channels ? v[k].v[i] - mean : 0.0f;
          squares = fmaf(v[k].v[i], v[k].v[i], squares);
        }
      }
      squares += ShuffleXor(squares, 1);
      squares += ShuffleXor(squares, 2);
      const float scale = ReciprocalSqrt(fmaf(squares, each, 1e-5f));
      float* to = QuadAt(shared_, row, t_);
      MSTPP_UNROLL
      for (int k = 0; k < kC / kSlab; ++k) {
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) v[k].v[i] *= scale;
        StoreFour(to + k * (kSlab * Shape::kAll), v[k]);
      }
    }
  }

  MSTPP_DEVICE float* Weights(int h) const {
    return shared_ + Shape::kWeights + (h / kSlab & 1) * Shape::kWeightsSize;
  }

  // Starts to copy the weights of the hidden channels h to h + 15.
  MSTPP_DEVICE void Fetch(int h) const {
    float* to = Weights(h);
    MSTPP_UNROLL
    for (int first = 0; first < kC * 4; first += Shape::kThreads) {
      const int e = first + static_cast<int>(threadIdx.x), row = e / 4, quad = e % 4;
      if (e >= kC * 4) break;
      const bool wanted = row < p_.x.stride;
      const int at = wanted ? row / 16 * p_.hidden + row % 16 : 0, at2 = wanted ? row : 0;
      CopyAsync(QuadAt(to, row, quad), p_.weight1 + static_cast<size_t>(at + h) * kSlab + 4 * quad,
                wanted);
      CopyAsync(QuadAt(to + Shape::kWeight2, row, quad),
                p_.weight2 + static_cast<size_t>(h) * p_.x.stride + at2 * kSlab + 4 * quad, wanted);
    }
    const int e = threadIdx.x;
    if (e < 36) {
      CopyAsync(to + Shape::kDepthwise + 4 * e, p_.depthwise + e / 4 * p_.hidden + h + e % 4 * 4,
                true);
    } else if (e < 40) {
      CopyAsync(to + Shape::kBias + 4 * (e - 36), p_.bias1 + h + 4 * (e - 36), true);
    }
    CopyCommit();
  }

  // Hidden channels h to h + 15 of all pixels, zeros outside the image.
  MSTPP_DEVICE void First(int h) const {
    const int half = warp_ & 1, channel = 8 * half + 2 * t_;
    const float* weights = Weights(h) + (8 * half + g_) * kSlab + swizzled_;
    const float* rows = shared_ + FirstPixel() * kSlab + swizzled_;
    float sum[kTiles][4] = {};
    MSTPP_UNROLL_2
    for (int k = 0; k < p_.x.stride; k += kSlab) {
      SplitFactor<kTerms, 2> w[2];
      SplitFactor<kTerms, 4> x[kTiles][2];
      SetColumn(w, LoadFour(weights + k * kSlab));
      MSTPP_UNROLL
      for (int m = 0; m < kTiles; ++m) {
        const float* at = rows + k * Shape::kAll + kStep * m * kSlab;
        SetRows(x[m], LoadFour(at), LoadFour(at + 8 * kSlab));
      }
      Multiply<kTerms, kTiles>([&](int m) { return x[m]; }, [&](int) { return w; },
                               [&](int m) { return sum[m]; });
    }
    const float* bias = Weights(h) + Shape::kBias + channel;
    float* to = shared_ + Shape::kHidden + FirstPixel() * kSlab + channel;
    MSTPP_UNROLL
    for (int i = 0; i < 2 * kTiles; ++i) {
      const float low = Gelu(sum[i / 2][2 * (i % 2)] + bias[0]);
      const float high = Gelu(sum[i / 2][2 * (i % 2) + 1] + bias[1]);
      const bool inside = inside_ >> i & 1;
      *reinterpret_cast<float2*>(to + (kStep * (i / 2) + 8 * (i % 2)) * kSlab) =
          make_float2(inside ? low : 0.0f, inside ? high : 0.0f);
    }
  }

  // A thread takes four channels of a pixel, or with eight warps of two, one below the other.
  MSTPP_DEVICE void Depthwise(int h) const {
    constexpr int kPixels = 2 / Shape::kShares;
    const int column = static_cast<int>(threadIdx.x >> 2) % Shape::kColumns;
    const int row = static_cast<int>(threadIdx.x) / 64 * kPixels;
    const float* weights = Weights(h) + Shape::kDepthwise + 4 * t_;
    const float* from = shared_ + Shape::kHidden + (row * Shape::kWide + column) * kSlab + 4 * t_;
    Four weight[9], sum[kPixels] = {};
    MSTPP_UNROLL
    for (int tap = 0; tap < 9; ++tap) weight[tap] = LoadFour(weights + tap * kSlab);
    MSTPP_UNROLL
    for (int y = 0; y < kPixels + 2; ++y) {
      MSTPP_UNROLL
      for (int x = 0; x < 3; ++x) {
        const Four v = LoadFour(from + (y * Shape::kWide + x) * kSlab);
        MSTPP_UNROLL
        for (int i = 0; i < kPixels; ++i) {
          if (y >= i && y < i + 3) AddProduct(sum[i], v, weight[(y - i) * 3 + x]);
        }
      }
    }
    float* to = QuadAt(shared_ + Shape::kFactors, row * Shape::kColumns + column, t_);
    MSTPP_UNROLL
    for (int i = 0; i < kPixels; ++i) StoreFour(to + i * (Shape::kColumns * kSlab), GeluOf(sum[i]));
  }

  // A warp takes 16 pixels, one row of the tile, and all outputs or half.
  MSTPP_DEVICE int Output() const { return warp_ / 8 * (8 * kOutputs); }
  MSTPP_DEVICE void Second(int h, float (&sum)[kOutputs][4]) const {
    const float* rows = shared_ + Shape::kFactors + (16 * (warp_ % 8) + g_) * kSlab + swizzled_;
    const float* weights = Weights(h) + Shape::kWeight2 + (Output() + g_) * kSlab + swizzled_;
    SplitFactor<kTerms, 4> x[2];
    SetRows(x, LoadFour(rows), LoadFour(rows + 8 * kSlab));
    MSTPP_UNROLL
    for (int n = 0; n < kOutputs; n += kTogether) {
      SplitFactor<kTerms, 2> w[kTogether][2];
      MSTPP_UNROLL
      for (int i = 0; i < kTogether; ++i) SetColumn(w[i], LoadFour(weights + 8 * (n + i) * kSlab));
      Multiply<kTerms, kTogether>([&](int) { return x; }, [&](int i) { return w[i]; },
                                  [&](int i) { return sum[n + i]; });
    }
  }

  const FeedForwardParams<T>& p_;
  float* shared_;
  int g_, t_, warp_;
  int swizzled_;  // where quad t of row g lies in it, and of every eighth row from there
  int column_, row_, image_;
  unsigned inside_;  // which of the lane's pixels in First are
};

// ---- Convolutions kSize x kSize with stride kStride, padding 1: 16 x 8 pixels by kN outputs a
// block of eight warps, a row of the tile each. In shared memory are what the taps need of 16
// channels, in a row with stride 2 first the even columns; and the weights of some of the taps,
// already split.
// weights: [taps][inputs / 16][outputs][16].

template <int kTerms, int kN, int kSize, int kStride>
struct ConvShape : Tile {
  static constexpr int kWide = kStride * (kColumns - 1) + kSize;
  static constexpr int kHigh = kStride * (kRows - 1) + kSize;
  static constexpr int kTaps = kSize * kSize, kTapsTogether = kTaps > 9 ? 4 : kTaps;
  // In floats: where the weights begin and how many they are, without their small parts.
  static constexpr int kWeights = kWide * kHigh * kSlab, kCount = kTapsTogether * kN * kSlab;
  static constexpr int kLoading = kWeights + (kTerms == 3 ? 2 : 1) * kCount;
  static constexpr int kStoring = kColumns * kRows * kSumsRow<kN>;
  static constexpr int kSharedBytes = 4 * (kLoading > kStoring ? kLoading : kStoring);
  MSTPP_HOST_DEVICE static constexpr int Place(int column) {
    return kStride == 1 ? column : column % 2 * (kWide / 2) + column / 2;
  }
};

template <int kTerms, int kN, int kSize, int kStride, class T, class Writer>
MSTPP_DEVICE void TileConv(const ProductSize& size, const Map<const T>& x, const float* weights,
                           const Writer& writer) {
  using Shape = ConvShape<kTerms, kN, kSize, kStride>;
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int column_blocks = (size.outputs + kN - 1) / kN;
  const int n0 = static_cast<int>(blockIdx.x) % column_blocks * kN;
  const int tile = static_cast<int>(blockIdx.x) / column_blocks;
  const int across = (size.width + Shape::kColumns - 1) / Shape::kColumns;
  const int down = (size.height + Shape::kRows - 1) / Shape::kRows;
  const int column = tile % across * Shape::kColumns, row = tile / across % down * Shape::kRows;
  const int image = tile / across / down;
  float sum[kN / 8][4] = {};
  const int swizzled = 4 * (t ^ g >> 1);
  for (int channel = 0; channel < x.stride; channel += kSlab) {
    MSTPP_NO_UNROLL
    for (int first = 0; first < Shape::kTaps; first += Shape::kTapsTogether) {
      __syncthreads();
      MSTPP_UNROLL_4
      for (int e = threadIdx.x; e < Shape::kTapsTogether * kN * 4; e += Shape::kThreads) {
        const int n = n0 + e / 4 % kN, tap = first + e / 4 / kN;
        const float* from = weights + static_cast<size_t>(tap * x.stride + channel) * size.outputs;
        const Four v = n < size.outputs ? LoadFour(from + n * kSlab + e % 4 * 4) : Four{};
        SplitFactor<kTerms, 4> split;
        MSTPP_UNROLL
        for (int i = 0; i < 4; ++i) split.Set(i, v.v[i]);
        float* to = QuadAt(shared + Shape::kWeights, e / 4, e % 4);
        StoreFour(to, AsFour(split.big));
        if constexpr (kTerms == 3) StoreFour(to + Shape::kCount, AsFour(split.small));
      }
      if (first == 0) {
        MSTPP_UNROLL_4
        for (int e = threadIdx.x; e < Shape::kWide * Shape::kHigh * 4; e += Shape::kThreads) {
          const int y = e / 4 / Shape::kWide, q = e / 4 % Shape::kWide;
          const int in_y = kStride * row - 1 + y, in_x = kStride * column - 1 + q;
          const Four v = x.Inside(in_y, in_x)
                             ? LoadFour(x.At(image, in_y, in_x) + channel + e % 4 * 4)
                             : Four{};
          StoreFour(QuadAt(shared, y * Shape::kWide + Shape::Place(q), e % 4), v);
        }
      }
      __syncthreads();
      MSTPP_UNROLL_2
      for (int i = 0; i < Shape::kTapsTogether; ++i) {
        const int tap = first + i, y = tap / kSize, q = tap % kSize;
        const int pixel = (kStride * warp + y) * Shape::kWide + Shape::Place(q) + g;
        const float* at = QuadAt(shared, pixel, t);  // eight pixels further on, the same quad
        SplitFactor<kTerms, 4> pixels[2];
        SetRows(pixels, LoadFour(at), LoadFour(at + 8 * kSlab));
        const float* slab = shared + Shape::kWeights + (i * kN + g) * kSlab + swizzled;
        MSTPP_UNROLL
        for (int n = 0; n < kN / 8; n += kTogether) {
          SplitFactor<kTerms, 2> w[kTogether][2];
          MSTPP_UNROLL
          for (int i = 0; i < kTogether; ++i) {
            const Four big = LoadFour(slab + 8 * (n + i) * kSlab);
            MSTPP_UNROLL
            for (int e = 0; e < 4; ++e) w[i][e / 2].big[e % 2] = AsUint(big.v[e]);
            if constexpr (kTerms == 3) {
              const Four small = LoadFour(slab + 8 * (n + i) * kSlab + Shape::kCount);
              MSTPP_UNROLL
              for (int e = 0; e < 4; ++e) w[i][e / 2].small[e % 2] = AsUint(small.v[e]);
            }
          }
          Multiply<kTerms, kTogether>([&](int) { return pixels; }, [&](int i) { return w[i]; },
                                      [&](int i) { return sum[n + i]; });
        }
      }
    }
  }
  __syncthreads();
  StageSums<kN>(shared, 16 * warp, sum);
  __syncthreads();
  ForStagedSums<kN, Shape::kThreads, Writer::kPixelsFirst>(
      shared, [&](int pixel, int n, const Four& sums) {
        const int y = row + pixel / Shape::kColumns, q = column + pixel % Shape::kColumns;
        if (y < size.height && q < size.width && n0 + n < size.outputs) {
          writer.Write(Pixel{image, y, q}, n0 + n, sums);
        }
      });
}

// ---- What is not a product of pixels.

// The positional branch, d = dw2(GELU(dw1(v))): a block takes 16 channels of 16 x 8 pixels, with
// two pixels around of v and one of what is between in shared memory.
template <class T>
struct PositionParams {
  Map<const T> v;
  const float *weights1, *weights2;  // [9][stride]
  T* d;                              // same layout as v
};

struct PositionShape : Tile {
  static constexpr int kWide = kColumns + 2, kHigh = kRows + 2;  // between
  static constexpr int kBetween = (kWide + 2) * (kHigh + 2) * kSlab;
  static constexpr int kSharedBytes = 4 * (kBetween + kWide * kHigh * kSlab);
};

// The sum over the 3 x 3 pixels from `at` on, `wide` in a row.
MSTPP_DEVICE Four DepthwiseSum(const float* at, int wide, const Four (&weight)[9]) {
  Four sum = {};
  MSTPP_UNROLL
  for (int tap = 0; tap < 9; ++tap) {
    AddProduct(sum, LoadFour(at + (tap / 3 * wide + tap % 3) * kSlab), weight[tap]);
  }
  return sum;
}

template <class T>
MSTPP_DEVICE void PositionBody(const PositionParams<T>& p) {
  using Shape = PositionShape;
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  float* between = shared + Shape::kBetween;
  const Map<const T>& v = p.v;
  const int thread = threadIdx.x, quad = 4 * (thread & 3), slabs = v.stride / kSlab;
  const int channel = static_cast<int>(blockIdx.x) % slabs * kSlab + quad;
  const int tile = static_cast<int>(blockIdx.x) / slabs;
  const int across = (v.width + Shape::kColumns - 1) / Shape::kColumns;
  const int down = (v.height + Shape::kRows - 1) / Shape::kRows;
  const int column = tile % across * Shape::kColumns, row = tile / across % down * Shape::kRows;
  const int image = tile / across / down;
  MSTPP_UNROLL_4
  for (int i = thread / 4; i < (Shape::kWide + 2) * (Shape::kHigh + 2); i += Shape::kThreads / 4) {
    const int y = row - 2 + i / (Shape::kWide + 2), x = column - 2 + i % (Shape::kWide + 2);
    StoreFour(shared + i * kSlab + quad,
              v.Inside(y, x) ? LoadFour(v.At(image, y, x) + channel) : Four{});
  }
  Four weight[9];
  MSTPP_UNROLL
  for (int tap = 0; tap < 9; ++tap) weight[tap] = LoadFour(p.weights1 + tap * v.stride + channel);
  __syncthreads();
  for (int i = thread / 4; i < Shape::kWide * Shape::kHigh; i += Shape::kThreads / 4) {
    const int y = i / Shape::kWide, x = i % Shape::kWide;
    const float* at = shared + (y * (Shape::kWide + 2) + x) * kSlab + quad;
    StoreFour(between + i * kSlab + quad, v.Inside(row - 1 + y, column - 1 + x)
                                              ? GeluOf(DepthwiseSum(at, Shape::kWide + 2, weight))
                                              : Four{});
  }
  MSTPP_UNROLL
  for (int tap = 0; tap < 9; ++tap) weight[tap] = LoadFour(p.weights2 + tap * v.stride + channel);
  __syncthreads();
  MSTPP_UNROLL
  for (int i = thread / 4; i < Shape::kColumns * Shape::kRows; i += Shape::kThreads / 4) {
    const int y = i / Shape::kColumns, x = i % Shape::kColumns;
    if (!v.Inside(row + y, column + x)) continue;
    const T* at = v.At(image, row + y, column + x) + channel;
    StoreFour(p.d + (at - v.data),
              DepthwiseSum(between + (y * Shape::kWide + x) * kSlab + quad, Shape::kWide, weight));
  }
}

// One kTile x kTile tile of S over a share of the pixels, on or above the diagonal: kTile / 8
// warps, 16 by kTile / 2 entries each.
template <int kTile>
struct GramSumShape {
  static constexpr int kThreads = kTile * 4;
  static constexpr int kPixels = 32;  // at a time
  static constexpr int kRow = kTile + 8;
  static constexpr int kSharedBytes = 2 * kPixels * kRow * 4;
  MSTPP_HOST_DEVICE static constexpr int Tiles(int stride) {
    const int side = (stride + kTile - 1) / kTile;
    return side * (side + 1) / 2;
  }
};

template <int kTerms, int kTile, class T>
MSTPP_DEVICE void GramSumBody(const Map<const T>& x, float* partials, int blocks) {
  using Shape = GramSumShape<kTile>;
  constexpr int kQuads = kTile / 4, kLoads = Shape::kPixels * kQuads / Shape::kThreads;
  constexpr int kColumns = kTile / 16;  // of eight entries, of a warp
  const int pixels = x.height * x.width, tiles = Shape::Tiles(x.stride);
  int j_tile = 0, i_tile = static_cast<int>(blockIdx.x) % tiles;
  while (i_tile > j_tile) i_tile -= ++j_tile;
  const int block = static_cast<int>(blockIdx.x) / tiles % blocks;
  const int image = static_cast<int>(blockIdx.x) / tiles / blocks;
  const int i0 = i_tile * kTile, j0 = j_tile * kTile;
  const int share = (pixels + blocks - 1) / blocks;
  const int begin = block * share, end = min(begin + share, pixels);
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, t = lane & 3;
  auto* a = reinterpret_cast<float*>(SharedMemory());
  float* b = i0 == j0 ? a : a + Shape::kPixels * Shape::kRow;
  const T* from = x.At(image, 0, 0);

  Four next_a[kLoads], next_b[kLoads];
  const auto fetch = [&](int first) {
    MSTPP_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int e = tid + i * Shape::kThreads, pixel = first + e / kQuads, c = e % kQuads * 4;
      const T* at = from + static_cast<size_t>(min(pixel, pixels - 1)) * x.stride;
      next_a[i] = pixel < end && i0 + c < x.stride ? LoadFour(at + i0 + c) : Four{};
      next_b[i] = i0 != j0 && pixel < end && j0 + c < x.stride ? LoadFour(at + j0 + c) : Four{};
    }
  };
  float sum[kColumns][4] = {};
  const int row = warp / 2 * 16 + g, column = warp % 2 * (kTile / 2) + g;
  fetch(begin);
  MSTPP_NO_UNROLL
  for (int first = begin; first < end; first += Shape::kPixels) {
    MSTPP_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int e = tid + i * Shape::kThreads, at = e / kQuads * Shape::kRow + e % kQuads * 4;
      StoreFour(a + at, next_a[i]);
      if (i0 != j0) StoreFour(b + at, next_b[i]);
    }
    __syncthreads();
    fetch(first + Shape::kPixels);
    MSTPP_UNROLL
    for (int k = 0; k < Shape::kPixels; k += 16) {
      SplitFactor<kTerms, 4> x16[2];
      SplitFactor<kTerms, 2> y[kColumns][2];
      MSTPP_UNROLL
      for (int s = 0; s < 2; ++s) {
        const int at = (k + 8 * s + t) * Shape::kRow;
        const float *low = a + at, *high = low + 4 * Shape::kRow;
        x16[s].Set(0, low[row]);
        x16[s].Set(1, low[row + 8]);
        x16[s].Set(2, high[row]);
        x16[s].Set(3, high[row + 8]);
        low = b + at, high = low + 4 * Shape::kRow;
        MSTPP_UNROLL
        for (int n = 0; n < kColumns; ++n) {
          y[n][s].Set(0, low[column + 8 * n]);
          y[n][s].Set(1, high[column + 8 * n]);
        }
      }
      Multiply<kTerms, kColumns>([&](int) { return x16; }, [&](int n) { return y[n]; },
                                 [&](int n) { return sum[n]; });
    }
    __syncthreads();
  }
  float* out = partials + (static_cast<size_t>(image) * blocks + block) * x.stride * x.stride;
  MSTPP_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    MSTPP_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int i = i0 + row + 8 * (e / 2), j = j0 + column - g + 8 * n + 2 * t + e % 2;
      if (i >= x.stride || j >= x.stride) continue;
      out[static_cast<size_t>(i) * x.stride + j] = sum[n][e];
      if (i0 != j0) out[static_cast<size_t>(j) * x.stride + i] = sum[n][e];
    }
  }
}

}  // namespace mstpp::cuda::portable
