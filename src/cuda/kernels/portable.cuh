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
};

constexpr int kSlab = 16;  // inputs at a time
constexpr int kOwn = 4;    // pixels of which a thread loads four inputs each

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
    const auto count = static_cast<float>(channels);
    const float mean = Sum(at, [](float v) { return v; }) / count;
    const float squares = Sum(at, [mean](float v) { return (v - mean) * (v - mean); });
    return {mean, 1.0f / sqrtf(squares / count + 1e-5f)};
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

// kSize x kSize neighbours with stride kStride from (stride y - 1, stride x - 1); taps, then
// channels.
template <class T, int kSize, int kStride>
struct LoadNeighbours {
  Map<const T> x;
  struct State {
    Pixel pixel[kOwn];
  };
  MSTPP_DEVICE void Start(State& state, const Pixel (&p)[kOwn]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) state.pixel[i] = p[i];
  }
  MSTPP_DEVICE void Load(const State& state, int k, Four (&v)[kOwn]) const {
    const int tap = k / x.stride, channel = k - tap * x.stride;
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const Pixel& p = state.pixel[i];
      const int y = kStride * p.y - 1 + tap / kSize, column = kStride * p.x - 1 + tap % kSize;
      v[i] = x.Inside(y, column) ? LoadFour(x.At(p.image, y, column) + channel) : Four{};
    }
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

// The pixel and its child in the skip: column `phase` % 2, row `phase` / 2.
template <class T>
struct LoadWithSkip {
  Map<const T> x, skip;
  int phase;
  struct State {
    const T *at[kOwn], *skip_at[kOwn];
  };
  MSTPP_DEVICE void Start(State& state, const Pixel (&p)[kOwn]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      state.at[i] = x.At(p[i].image, p[i].y, p[i].x);
      state.skip_at[i] = skip.At(p[i].image, 2 * p[i].y + phase / 2, 2 * p[i].x + phase % 2);
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

// x + X M' + b_proj + dw2(g): the sums are X M'.
template <class T>
struct WriteAttention {
  static constexpr bool kPixelsFirst = false;
  Map<T> y;
  Map<const T> x, g;
  const float *bias, *weights;
  MSTPP_DEVICE void Write(const Pixel& p, int n, Four sum) const {
    Four position = {};
    MSTPP_UNROLL
    for (int tap = 0; tap < 9; ++tap) {
      const int row = p.y + tap / 3 - 1, column = p.x + tap % 3 - 1;
      if (g.Inside(row, column)) {
        AddProduct(position, LoadFour(g.At(p.image, row, column) + n),
                   LoadFour(weights + tap * g.stride + n));
      }
    }
    sum = Plus(Plus(sum, LoadFour(bias + n)), position);
    StoreFour(y.At(p.image, p.y, p.x) + n, Plus(LoadFour(x.At(p.image, p.y, p.x) + n), sum));
  }
};

template <class T>
struct WriteChild {
  static constexpr bool kPixelsFirst = false;
  Map<T> y;
  const float* bias;
  int phase;
  MSTPP_DEVICE void Write(const Pixel& p, int n, const Four& sum) const {
    StoreFour(y.At(p.image, 2 * p.y + phase / 2, 2 * p.x + phase % 2) + n,
              Plus(sum, LoadFour(bias + n)));
  }
};

// ---- Products on the tensor cores.

// Factors as TF32, or with kTerms = 3 as the sum of two: rounded, and what that leaves. Of the
// products of such sums all but the smallest are taken, which is as exact as FP32.
template <int kTerms, int kCount>
struct SplitFactor {
  uint32_t big[kCount], small[kTerms == 3 ? kCount : 1];
  MSTPP_DEVICE void Set(int i, float value) {
    big[i] = RoundToTf32(value);
    if constexpr (kTerms == 3) small[i] = AsUint(value - AsFloat(big[i]));
  }
};

// d += a b. The tensor cores add by truncating, so that long sums drift: three terms are summed by
// themselves, the small ones first, and their sum is added in FP32.
template <int kTerms>
MSTPP_DEVICE void Multiply(float (&d)[4], const SplitFactor<kTerms, 4>& a,
                           const SplitFactor<kTerms, 2>& b) {
  const uint32_t(&x)[4] = a.big;
  if constexpr (kTerms == 1) {
    MmaTf32(d, x[0], x[1], x[2], x[3], b.big[0], b.big[1], d[0], d[1], d[2], d[3]);
  } else {
    float part[4];
    MmaTf32(part, a.small[0], a.small[1], a.small[2], a.small[3], b.big[0], b.big[1], 0.f, 0.f, 0.f,
            0.f);
    MmaTf32(part, x[0], x[1], x[2], x[3], b.small[0], b.small[1], part[0], part[1], part[2],
            part[3]);
    MmaTf32(part, x[0], x[1], x[2], x[3], b.big[0], b.big[1], part[0], part[1], part[2], part[3]);
    MSTPP_UNROLL
    for (int i = 0; i < 4; ++i) d[i] += part[i];
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

// ---- The product: 128 pixels by kN outputs a block of four warps, 32 pixels each; the next slab
// of inputs is loaded into registers while this one is multiplied.
// weights: [inputs / 16][outputs][16].

struct ProductSize {
  int images, height, width;  // of the pixels
  int inputs, outputs;        // multiples of 16
};

constexpr int kProductPixels = 128;
template <int kN>
struct ProductShape {
  static constexpr int kFactors = 2 * kProductPixels * kSlab;  // floats before the weights
  static constexpr int kLoading = kFactors + 2 * kN * kSlab;   // floats in all
  static constexpr int kRow = kN + 8;                          // of sums; no bank conflicts
  static constexpr int kStoring = kProductPixels * kRow;
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
  const int n0 = static_cast<int>(blockIdx.x) % column_blocks * kN;
  const int first = static_cast<int>(blockIdx.x) / column_blocks * kProductPixels;
  const int pixels = size.images * size.height * size.width;
  const auto pixel_of = [&](int index) {
    const int row = index / size.width;
    return Pixel{row / size.height, row % size.height, index - row * size.width};
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
      // Four sums in turn hide each other's latency.
      MSTPP_UNROLL
      for (int i = 0; i < 8; ++i) {
        const int s = i / 4, m = i / 2 % 2;
        Multiply(sum[m][n + i % 2], x[m][s], w[i % 2][s]);
      }
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

  // Through shared memory, so that threads write four channels each.
  MSTPP_UNROLL
  for (int m = 0; m < 2; ++m) {
    MSTPP_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      MSTPP_UNROLL
      for (int half = 0; half < 2; ++half) {
        float* at = a + (32 * warp + 16 * m + 8 * half + g) * Shape::kRow + 8 * n + 2 * t;
        *reinterpret_cast<float2*>(at) = make_float2(sum[m][n][2 * half], sum[m][n][2 * half + 1]);
      }
    }
  }
  __syncthreads();
  constexpr int kQuads = kN / 4;
  MSTPP_UNROLL_4
  for (int e = tid; e < kProductPixels * kQuads; e += kProductPixels) {
    const int pixel = Writer::kPixelsFirst ? e % kProductPixels : e / kQuads;
    const int n = 4 * (Writer::kPixelsFirst ? e / kProductPixels : e % kQuads);
    if (first + pixel < pixels && n0 + n < size.outputs) {
      writer.Write(pixel_of(first + pixel), n0 + n, LoadFour(a + pixel * Shape::kRow + n));
    }
  }
}

// ---- The feed-forward network of up to kC channels in one kernel, so that the hidden channels
// never leave the SM:
//
//   y = x + W2 GELU(dw(GELU(W1 LN(x) + b1)))
//
// A block of eight warps takes 16 x 8 pixels, and one around for the depthwise convolution. It
// keeps LN(x) in shared memory and goes through the hidden channels by 16: the first product of all
// 180 pixels, GELU, the depthwise convolution, GELU, and what these channels add to the second
// product, whose sums stay in registers.

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

template <int kC>
struct FeedForwardShape {
  static constexpr int kThreads = 256;
  static constexpr int kColumns = 16, kRows = 8;  // of a tile
  static constexpr int kWide = kColumns + 2, kHigh = kRows + 2;
  static constexpr int kAll = 192;  // kWide kHigh, rounded up to whole products
  // In floats: LN(x) [slab][kAll][16], later the sums; 16 hidden channels of all pixels; the same
  // after the depthwise convolution; and these channels' weights.
  static constexpr int kHidden = kC * kAll;
  static constexpr int kFactors = kHidden + kSlab * kAll;
  static constexpr int kWeight1 = kFactors + kSlab * kColumns * kRows;
  static constexpr int kWeight2 = kWeight1 + kSlab * kC;
  static constexpr int kDepthwise = kWeight2 + kSlab * kC;
  static constexpr int kSharedBytes = 4 * (kDepthwise + 9 * kSlab);
  static constexpr int kRow = kC + 8;  // of the sums: no bank conflicts
  static_assert(kRow * kColumns * kRows <= kHidden, "the sums fit where LN(x) was");
};

template <int kTerms, int kC, class T>
class TileFeedForward {
  using Shape = FeedForwardShape<kC>;
  static constexpr int kWeights = (kC * 4 + Shape::kThreads - 1) / Shape::kThreads;

 public:
  MSTPP_DEVICE explicit TileFeedForward(const FeedForwardParams<T>& p)
      : p_(p),
        shared_(reinterpret_cast<float*>(SharedMemory())),
        lane_(threadIdx.x & 31),
        warp_(threadIdx.x >> 5) {
    const int across = (p.x.width + Shape::kColumns - 1) / Shape::kColumns;
    const int down = (p.x.height + Shape::kRows - 1) / Shape::kRows;
    column_ = static_cast<int>(blockIdx.x) % across * Shape::kColumns;
    row_ = static_cast<int>(blockIdx.x) / across % down * Shape::kRows;
    image_ = static_cast<int>(blockIdx.x) / across / down;
  }

  MSTPP_DEVICE void Run() {
    Normalise();
    Four weight1[kWeights], weight2[kWeights], depthwise;
    Fetch(0, 0, weight1, weight2, depthwise);
    Put1(weight1);
    __syncthreads();
    float sum[kC / 8][4] = {};
    MSTPP_NO_UNROLL
    for (int h = 0; h < p_.hidden; h += kSlab) {
      Fetch(min(h + kSlab, p_.hidden - kSlab), h, weight1, weight2, depthwise);
      First(h);
      Put2(weight2, depthwise);
      __syncthreads();
      Put1(weight1);
      Depthwise();
      __syncthreads();
      Second(sum);
    }
    __syncthreads();
    Store(sum);
  }

 private:
  // Pixel i of the tile with one around: its place in the image.
  MSTPP_DEVICE int RowOf(int i) const { return row_ - 1 + i / Shape::kWide; }
  MSTPP_DEVICE int ColumnOf(int i) const { return column_ - 1 + i % Shape::kWide; }
  MSTPP_DEVICE bool IsInside(int i) const {
    return i < Shape::kWide * Shape::kHigh && p_.x.Inside(RowOf(i), ColumnOf(i));
  }

  MSTPP_DEVICE void Normalise() {
    const LoadNormalised<T> loader{p_.x, p_.channels};
    const int quad = threadIdx.x & 3;
    MSTPP_UNROLL
    for (int i = 0; i < Shape::kAll / 64; ++i) {
      const int row = static_cast<int>(threadIdx.x >> 2) + 64 * i;
      const bool inside = IsInside(row);
      const T* at = p_.x.At(image_, inside ? RowOf(row) : row_, inside ? ColumnOf(row) : column_);
      const auto moments = loader.MomentsOf(at);
      for (int k = 4 * quad; k < kC; k += kSlab) {
        const Four v = inside && k < p_.x.stride ? loader.Normalised(moments, at, k) : Four{};
        StoreFour(QuadAt(shared_ + k / kSlab * (kSlab * Shape::kAll), row, quad), v);
      }
    }
  }

  // The thread's share of the weights: W1 for the hidden channels from h1 on, the others from h2.
  MSTPP_DEVICE void Fetch(int h1, int h2, Four (&weight1)[kWeights], Four (&weight2)[kWeights],
                          Four& depthwise) const {
    MSTPP_UNROLL
    for (int i = 0; i < kWeights; ++i) {
      const int e = static_cast<int>(threadIdx.x) + i * Shape::kThreads, row = e / 4, quad = e % 4;
      const bool wanted = row < p_.x.stride;
      weight1[i] =
          wanted ? LoadFour(p_.weight1 +
                            static_cast<size_t>(row / 16 * p_.hidden + h1 + row % 16) * kSlab +
                            4 * quad)
                 : Four{};
      weight2[i] = wanted ? LoadFour(p_.weight2 + static_cast<size_t>(h2) * p_.x.stride +
                                     row * kSlab + 4 * quad)
                          : Four{};
    }
    if (threadIdx.x < 36) {
      depthwise = LoadFour(p_.depthwise + static_cast<int>(threadIdx.x) / 4 * p_.hidden + h2 +
                           static_cast<int>(threadIdx.x) % 4 * 4);
    }
  }
  MSTPP_DEVICE void PutRows(int at, const Four (&weight)[kWeights]) const {
    MSTPP_UNROLL
    for (int i = 0; i < kWeights; ++i) {
      const int e = static_cast<int>(threadIdx.x) + i * Shape::kThreads;
      if (e < kC * 4) StoreFour(QuadAt(shared_ + at, e / 4, e % 4), weight[i]);
    }
  }
  MSTPP_DEVICE void Put1(const Four (&weight1)[kWeights]) const {
    PutRows(Shape::kWeight1, weight1);
  }
  MSTPP_DEVICE void Put2(const Four (&weight2)[kWeights], const Four& depthwise) const {
    PutRows(Shape::kWeight2, weight2);
    if (threadIdx.x < 36) StoreFour(shared_ + Shape::kDepthwise + 4 * threadIdx.x, depthwise);
  }

  // Hidden channels h to h + 15 of all pixels, zeros outside the image. A warp takes eight of the
  // channels and every fourth 16 pixels.
  MSTPP_DEVICE void First(int h) const {
    constexpr int kTiles = Shape::kAll / 16 / 4;
    const int g = lane_ >> 2, t = lane_ & 3, half = warp_ & 1, first = warp_ / 2 * 16 + g;
    float sum[kTiles][4] = {};
    for (int k = 0; k < p_.x.stride; k += kSlab) {
      SplitFactor<kTerms, 2> w[2];
      SetColumn(w, LoadFour(QuadAt(shared_ + Shape::kWeight1, k + 8 * half + g, t)));
      float* rows = shared_ + k * Shape::kAll;
      MSTPP_UNROLL
      for (int m = 0; m < kTiles; ++m) {
        SplitFactor<kTerms, 4> x[2];
        SetRows(x, LoadFour(QuadAt(rows, first + 64 * m, t)),
                LoadFour(QuadAt(rows, first + 64 * m + 8, t)));
        MSTPP_UNROLL
        for (int s = 0; s < 2; ++s) Multiply(sum[m], x[s], w[s]);
      }
    }
    const int channel = 8 * half + 2 * t;
    const float2 bias = *reinterpret_cast<const float2*>(p_.bias1 + h + channel);
    MSTPP_UNROLL
    for (int m = 0; m < kTiles; ++m) {
      MSTPP_UNROLL
      for (int side = 0; side < 2; ++side) {
        const int pixel = first + 64 * m + 8 * side;
        const bool inside = IsInside(pixel);
        float* to = QuadAt(shared_ + Shape::kHidden, pixel, channel / 4) + channel % 4;
        const float low = Gelu(sum[m][2 * side] + bias.x),
                    high = Gelu(sum[m][2 * side + 1] + bias.y);
        *reinterpret_cast<float2*>(to) = inside ? make_float2(low, high) : make_float2(0.f, 0.f);
      }
    }
  }

  // A thread takes four channels of two pixels, one below the other.
  MSTPP_DEVICE void Depthwise() const {
    const int quad = threadIdx.x & 3, column = static_cast<int>(threadIdx.x >> 2) % Shape::kColumns;
    const int row = static_cast<int>(threadIdx.x) / 64 * 2;
    Four weight[9], sum[2] = {};
    MSTPP_UNROLL
    for (int tap = 0; tap < 9; ++tap) {
      weight[tap] = LoadFour(shared_ + Shape::kDepthwise + tap * kSlab + 4 * quad);
    }
    MSTPP_UNROLL
    for (int y = 0; y < 4; ++y) {
      MSTPP_UNROLL
      for (int x = 0; x < 3; ++x) {
        const Four v =
            LoadFour(QuadAt(shared_ + Shape::kHidden, (row + y) * Shape::kWide + column + x, quad));
        if (y < 3) AddProduct(sum[0], v, weight[y * 3 + x]);
        if (y > 0) AddProduct(sum[1], v, weight[(y - 1) * 3 + x]);
      }
    }
    MSTPP_UNROLL
    for (int i = 0; i < 2; ++i) {
      StoreFour(QuadAt(shared_ + Shape::kFactors, (row + i) * Shape::kColumns + column, quad),
                GeluOf(sum[i]));
    }
  }

  // A warp takes 16 pixels, one row of the tile.
  MSTPP_DEVICE void Second(float (&sum)[kC / 8][4]) const {
    const int g = lane_ >> 2, t = lane_ & 3;
    float* rows = shared_ + Shape::kFactors;
    SplitFactor<kTerms, 4> x[2];
    SetRows(x, LoadFour(QuadAt(rows, 16 * warp_ + g, t)),
            LoadFour(QuadAt(rows, 16 * warp_ + g + 8, t)));
    MSTPP_UNROLL
    for (int n = 0; n < kC / 8; ++n) {
      SplitFactor<kTerms, 2> w[2];
      SetColumn(w, LoadFour(QuadAt(shared_ + Shape::kWeight2, 8 * n + g, t)));
      MSTPP_UNROLL
      for (int s = 0; s < 2; ++s) Multiply(sum[n], x[s], w[s]);
    }
  }

  // Through shared memory, so that threads write four channels each.
  MSTPP_DEVICE void Store(const float (&sum)[kC / 8][4]) const {
    const int g = lane_ >> 2, t = lane_ & 3;
    MSTPP_UNROLL
    for (int n = 0; n < kC / 8; ++n) {
      MSTPP_UNROLL
      for (int side = 0; side < 2; ++side) {
        float* at = shared_ + (16 * warp_ + 8 * side + g) * Shape::kRow + 8 * n + 2 * t;
        *reinterpret_cast<float2*>(at) = make_float2(sum[n][2 * side], sum[n][2 * side + 1]);
      }
    }
    __syncthreads();
    constexpr int kQuads = kC / 4;
    MSTPP_UNROLL_4
    for (int e = threadIdx.x; e < Shape::kColumns * Shape::kRows * kQuads; e += Shape::kThreads) {
      const int pixel = e / kQuads, n = e % kQuads * 4;
      const int y = row_ + pixel / Shape::kColumns, x = column_ + pixel % Shape::kColumns;
      if (n >= p_.x.stride || !p_.x.Inside(y, x)) continue;
      const T* at = p_.x.At(image_, y, x) + n;
      StoreFour(p_.y + (at - p_.x.data),
                Plus(LoadFour(at), LoadFour(shared_ + pixel * Shape::kRow + n)));
    }
  }

  const FeedForwardParams<T>& p_;
  float* shared_;
  int lane_, warp_, column_, row_, image_;
};

// ---- What is not a product.

// GELU(dw(x)): a thread takes four channels of kRun pixels of a column.
constexpr int kRun = 4;
template <class T>
MSTPP_DEVICE void DepthwiseGeluBody(const Map<const T>& x, const float* weights, T* y) {
  const int quads = x.stride / 4, runs = (x.height + kRun - 1) / kRun;
  const size_t index = static_cast<size_t>(blockIdx.x) * 128 + threadIdx.x;
  const int c = static_cast<int>(index % quads) * 4;
  const auto rest = static_cast<int>(index / quads);
  const int column = rest % x.width, run = rest / x.width;
  const int image = run / runs, first = run % runs * kRun;
  if (image >= x.images) return;
  Four weight[9], sum[kRun] = {};
  MSTPP_UNROLL
  for (int tap = 0; tap < 9; ++tap) weight[tap] = LoadFour(weights + tap * x.stride + c);
  MSTPP_UNROLL
  for (int r = -1; r <= kRun; ++r) {
    MSTPP_UNROLL
    for (int dx = -1; dx <= 1; ++dx) {
      if (!x.Inside(first + r, column + dx)) continue;
      const Four v = LoadFour(x.At(image, first + r, column + dx) + c);
      MSTPP_UNROLL
      for (int i = 0; i < kRun; ++i) {
        const int dy = r - i;
        if (dy >= -1 && dy <= 1) AddProduct(sum[i], v, weight[(dy + 1) * 3 + dx + 1]);
      }
    }
  }
  MSTPP_UNROLL
  for (int i = 0; i < kRun; ++i) {
    if (first + i >= x.height) break;
    StoreFour(y + (x.At(image, first + i, column) - x.data) + c, GeluOf(sum[i]));
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
    for (int k = 0; k < Shape::kPixels; k += 8) {
      const float *low = a + (k + t) * Shape::kRow, *high = low + 4 * Shape::kRow;
      SplitFactor<kTerms, 4> x4;
      x4.Set(0, low[row]);
      x4.Set(1, low[row + 8]);
      x4.Set(2, high[row]);
      x4.Set(3, high[row + 8]);
      low = b + (k + t) * Shape::kRow, high = low + 4 * Shape::kRow;
      SplitFactor<kTerms, 2> y[kColumns];
      MSTPP_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        y[n].Set(0, low[column + 8 * n]);
        y[n].Set(1, high[column + 8 * n]);
      }
      MSTPP_UNROLL
      for (int n = 0; n < kColumns; ++n) Multiply(sum[n], x4, y[n]);
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
