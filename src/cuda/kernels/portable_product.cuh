// SPDX-License-Identifier: Apache-2.0
// All dense layers but the convolutions and fused feed-forward networks are one matrix product,
// PixelProduct: a row a pixel, with a loader that says what a pixel's inputs are (its own channels,
// normalised, convolved, with a skip's) and a writer that says what becomes of the sums.
#pragma once

#include "cuda/kernels/io.cuh"
#include "cuda/kernels/portable.cuh"

namespace mstpp::cuda::portable {

constexpr int kOwn = 4;  // pixels of which a thread loads four inputs each

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

// With a residual, cropped, to the cube of floats or halves.
template <class T, class Element>
struct WriteCube {
  static constexpr bool kPixelsFirst = true;
  const NetworkIo* io;
  Map<const T> residual;
  int channels;
  MSTPP_DEVICE void Write(const Pixel& p, int n, const Four& sum) const {
    if (p.y >= io->cube_height || p.x >= io->cube_width) return;
    Element* at = static_cast<Element*>(io->cube) + p.image * io->cube_stride[0] +
                  p.y * io->cube_stride[2] + p.x * io->cube_stride[3];
    const Four more = LoadFour(residual.At(p.image, p.y, p.x) + n);
    MSTPP_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (n + i < channels) StoreOne(at + (n + i) * io->cube_stride[1], sum.v[i] + more.v[i]);
    }
  }
};

// ---- The product: 128 pixels by kN outputs a block of four warps, 32 pixels each; the next slab
// of inputs is loaded into registers while this one is multiplied.
// weights: [inputs / 16][outputs][16].

template <int kN>
struct ProductShape {
  static constexpr int kFactors = 2 * kProductPixels * kSlab;  // floats before the weights
  static constexpr int kLoading = kFactors + 2 * kN * kSlab;   // floats in all
  static constexpr int kStoring = kProductPixels * kSumsRow<kN>;
  static constexpr int kSharedBytes = 4 * (kLoading > kStoring ? kLoading : kStoring);
};

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

}  // namespace mstpp::cuda::portable
