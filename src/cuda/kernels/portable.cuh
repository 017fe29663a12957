// SPDX-License-Identifier: Apache-2.0
// Every block of the network in plain CUDA C++: any numbers of channels, FP32 arithmetic, feature
// maps stored in FP32, FP16 or BF16. It is what runs where the tensor-core kernels do not fit, true
// FP32, and the twin that these are tested against.
//
// All dense layers are one matrix product, PixelProduct: a row a pixel, with a loader that says
// what a pixel's inputs are (its own channels, its neighbours', normalised, convolved ...) and a
// writer that says what becomes of the sums. Feature maps are height x width x stride, the stride
// the channels rounded up to 16; the channels between are zeros.
#pragma once

#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda::portable {

// ---- Storage types: eight channels at a time.
struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

MSTPP_DEVICE void LoadEight(const float* from, float* to) {
  const auto vec = LoadVec<FloatVec>(from);
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) {
    to[2 * j] = vec.pair[j].x;
    to[2 * j + 1] = vec.pair[j].y;
  }
}
MSTPP_DEVICE void LoadEight(const Half* from, float* to) {
  const auto vec = LoadVec<HalfVec>(from);
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) {
    to[2 * j] = Low(vec.pair[j]);
    to[2 * j + 1] = High(vec.pair[j]);
  }
}
MSTPP_DEVICE void LoadEight(const Bfloat* from, float* to) {
  const FloatVec vec = Bf16::Unpack(LoadVec<HalfVec>(from));
  MSTPP_UNROLL
  for (int j = 0; j < 4; ++j) {
    to[2 * j] = vec.pair[j].x;
    to[2 * j + 1] = vec.pair[j].y;
  }
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

MSTPP_DEVICE float ExactGelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }

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

// ---- Loaders: Start(pixel) once, then Load(k, v): the inputs k .. k + 15.

template <class T>
struct LoadPixel {
  Map<const T> x;
  const T* at;
  MSTPP_DEVICE void Start(const Pixel& p) { at = x.At(p.image, p.y, p.x); }
  MSTPP_DEVICE void Load(int k, float (&v)[kSlab]) const {
    LoadEight(at + k, v);
    LoadEight(at + k + 8, v + 8);
  }
};

// LayerNorm without gain and offset (they are in the weights that follow).
template <class T>
struct LoadNormalised {
  Map<const T> x;
  int channels;
  const T* at;
  float mean, scale;
  MSTPP_DEVICE void Start(const Pixel& p) {
    at = x.At(p.image, p.y, p.x);
    float sum = 0.0f, squares = 0.0f;
    for (int c = 0; c < channels; ++c) sum += LoadOne(at + c);
    mean = sum / static_cast<float>(channels);
    for (int c = 0; c < channels; ++c) {
      const float d = LoadOne(at + c) - mean;
      squares = fmaf(d, d, squares);
    }
    scale = 1.0f / sqrtf(squares / static_cast<float>(channels) + 1e-5f);
  }
  MSTPP_DEVICE void Load(int k, float (&v)[kSlab]) const {
    LoadEight(at + k, v);
    LoadEight(at + k + 8, v + 8);
    MSTPP_UNROLL
    for (int i = 0; i < kSlab; ++i) v[i] = k + i < channels ? (v[i] - mean) * scale : 0.0f;
  }
};

// kSize x kSize neighbours with stride kStride from (stride y - 1, stride x - 1); taps, then
// channels.
template <class T, int kSize, int kStride>
struct LoadNeighbours {
  Map<const T> x;
  Pixel pixel;
  MSTPP_DEVICE void Start(const Pixel& p) { pixel = p; }
  MSTPP_DEVICE void Load(int k, float (&v)[kSlab]) const {
    const int tap = k / x.stride, channel = k - tap * x.stride;
    const int y = kStride * pixel.y - 1 + tap / kSize, column = kStride * pixel.x - 1 + tap % kSize;
    if (x.Inside(y, column)) {
      const T* at = x.At(pixel.image, y, column) + channel;
      LoadEight(at, v);
      LoadEight(at + 8, v + 8);
    } else {
      MSTPP_UNROLL
      for (int i = 0; i < kSlab; ++i) v[i] = 0.0f;
    }
  }
};

// Depthwise 3 x 3 of the channels c .. c + 15; weights [9][stride].
template <class T>
MSTPP_DEVICE void DepthwiseSum(const Map<const T>& x, const float* weights, const Pixel& p, int c,
                               float (&sum)[kSlab]) {
  MSTPP_UNROLL
  for (int i = 0; i < kSlab; ++i) sum[i] = 0.0f;
  MSTPP_NO_UNROLL
  for (int tap = 0; tap < 9; ++tap) {
    const int y = p.y + tap / 3 - 1, column = p.x + tap % 3 - 1;
    if (!x.Inside(y, column)) continue;
    float v[kSlab], w[kSlab];
    const T* at = x.At(p.image, y, column) + c;
    LoadEight(at, v);
    LoadEight(at + 8, v + 8);
    LoadEight(weights + tap * x.stride + c, w);
    LoadEight(weights + tap * x.stride + c + 8, w + 8);
    MSTPP_UNROLL
    for (int i = 0; i < kSlab; ++i) sum[i] = fmaf(v[i], w[i], sum[i]);
  }
}

template <class T>
struct LoadDepthwiseGelu {
  Map<const T> x;
  const float* weights;
  Pixel pixel;
  MSTPP_DEVICE void Start(const Pixel& p) { pixel = p; }
  MSTPP_DEVICE void Load(int k, float (&v)[kSlab]) const {
    DepthwiseSum(x, weights, pixel, k, v);
    MSTPP_UNROLL
    for (int i = 0; i < kSlab; ++i) v[i] = ExactGelu(v[i]);
  }
};

// The pixel and its child in the skip: column `phase` % 2, row `phase` / 2.
template <class T>
struct LoadWithSkip {
  Map<const T> x, skip;
  int phase;
  const T *at, *skip_at;
  MSTPP_DEVICE void Start(const Pixel& p) {
    at = x.At(p.image, p.y, p.x);
    skip_at = skip.At(p.image, 2 * p.y + phase / 2, 2 * p.x + phase % 2);
  }
  MSTPP_DEVICE void Load(int k, float (&v)[kSlab]) const {
    const T* from = k < x.stride ? at + k : skip_at + k - x.stride;
    LoadEight(from, v);
    LoadEight(from + 8, v + 8);
  }
};

// ---- Writers: kCount sums from channel n on.

template <class T>
struct WriteMap {
  Map<T> y;
  const T* residual;  // same layout, or null
  const float* bias;  // or null
  int gelu;
  template <int kCount>
  MSTPP_DEVICE void Write(const Pixel& p, int n, const float (&sum)[kCount]) const {
    T* at = y.At(p.image, p.y, p.x) + n;
    MSTPP_UNROLL
    for (int i = 0; i < kCount; ++i) {
      float value = bias != nullptr ? sum[i] + bias[n + i] : sum[i];
      if (gelu) value = ExactGelu(value);
      if (residual != nullptr) value += LoadOne(residual + (at - y.data) + i);
      StoreOne(at + i, value);
    }
  }
};

// x + X M' + b_proj + dw2(g): the sums are X M'.
template <class T>
struct WriteAttention {
  Map<T> y;
  Map<const T> x, g;
  const float *bias, *weights;
  template <int kCount>
  MSTPP_DEVICE void Write(const Pixel& p, int n, const float (&sum)[kCount]) const {
    T* at = y.At(p.image, p.y, p.x) + n;
    const T* x_at = x.At(p.image, p.y, p.x) + n;
    MSTPP_UNROLL
    for (int i = 0; i < kCount; ++i) {
      float position = 0.0f;
      MSTPP_NO_UNROLL
      for (int tap = 0; tap < 9; ++tap) {
        const int row = p.y + tap / 3 - 1, column = p.x + tap % 3 - 1;
        if (!g.Inside(row, column)) continue;
        position = fmaf(LoadOne(g.At(p.image, row, column) + n + i),
                        weights[tap * g.stride + n + i], position);
      }
      StoreOne(at + i, LoadOne(x_at + i) + sum[i] + bias[n + i] + position);
    }
  }
};

template <class T>
struct WriteChild {
  Map<T> y;
  const float* bias;
  int phase;
  template <int kCount>
  MSTPP_DEVICE void Write(const Pixel& p, int n, const float (&sum)[kCount]) const {
    T* at = y.At(p.image, 2 * p.y + phase / 2, 2 * p.x + phase % 2) + n;
    MSTPP_UNROLL
    for (int i = 0; i < kCount; ++i) StoreOne(at + i, sum[i] + bias[n + i]);
  }
};

// ---- The product: 128 pixels by kN outputs a block of 128 threads, each 8 by kN / 8; the next
// slab of inputs is loaded into registers while this one is multiplied. weights: [inputs][outputs].

struct ProductSize {
  int images, height, width;  // of the pixels
  int inputs, outputs;        // multiples of 16
};

constexpr int kProductPixels = 128;
template <int kN>
constexpr int kProductShared = 2 * kSlab*(kProductPixels + 4 + kN) * 4;

template <int kN, class Loader, class Writer>
MSTPP_DEVICE void PixelProduct(const ProductSize& size, const float* weights, Loader loader,
                               const Writer& writer) {
  constexpr int kCount = kN / 8, kRow = kProductPixels + 4;
  auto* a = reinterpret_cast<float*>(SharedMemory());
  float* b = a + 2 * kSlab * kRow;
  const int tid = threadIdx.x;
  const int column_blocks = (size.outputs + kN - 1) / kN;
  const int n0 = blockIdx.x % column_blocks * kN;
  const int first = blockIdx.x / column_blocks * kProductPixels;
  const int pixels = size.images * size.height * size.width;
  const auto pixel_of = [&](int index) {
    const int row = index / size.width;
    return Pixel{row / size.height, row % size.height, index % size.width};
  };
  const Pixel mine = pixel_of(min(first + tid, pixels - 1));
  loader.Start(mine);
  float inputs[kSlab], factors[kN / 8];
  const auto fetch = [&](int k) {
    loader.Load(k, inputs);
    MSTPP_UNROLL
    for (int i = 0; i < kN / 8; ++i) {
      const int e = i * kProductPixels + tid, row = e / kN, n = n0 + e % kN;
      factors[i] =
          n < size.outputs ? weights[static_cast<size_t>(k + row) * size.outputs + n] : 0.0f;
    }
  };
  const auto put = [&](int side) {
    MSTPP_UNROLL
    for (int i = 0; i < kSlab; ++i) a[(side * kSlab + i) * kRow + tid] = inputs[i];
    MSTPP_UNROLL
    for (int i = 0; i < kN / 8; ++i) b[side * kSlab * kN + i * kProductPixels + tid] = factors[i];
  };

  const int px = tid % 16 * 4, pn = tid / 16 * kCount;  // pixels px.. and px + 64..
  float sum[8][kCount] = {};
  fetch(0);
  put(0);
  __syncthreads();
  int side = 0;
  MSTPP_NO_UNROLL
  for (int k = 0; k < size.inputs; k += kSlab) {
    const bool more = k + kSlab < size.inputs;
    if (more) fetch(k + kSlab);
    MSTPP_UNROLL
    for (int i = 0; i < kSlab; ++i) {
      const float* row = a + (side * kSlab + i) * kRow + px;
      const float* w = b + (side * kSlab + i) * kN + pn;
      float x[8];
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        x[j] = row[j];
        x[4 + j] = row[64 + j];
      }
      MSTPP_UNROLL
      for (int n = 0; n < kCount; ++n) {
        const float factor = w[n];
        MSTPP_UNROLL
        for (int j = 0; j < 8; ++j) sum[j][n] = fmaf(x[j], factor, sum[j][n]);
      }
    }
    if (more) put(side ^ 1);
    __syncthreads();
    side ^= 1;
  }
  if (n0 + pn >= size.outputs) return;
  MSTPP_UNROLL
  for (int j = 0; j < 8; ++j) {
    const int index = first + px + (j < 4 ? j : 60 + j);
    if (index < pixels) writer.Write(pixel_of(index), n0 + pn, sum[j]);
  }
}

// ---- What is not a product.

// GELU(dw(x)), 16 channels a thread.
template <class T>
MSTPP_DEVICE void DepthwiseGeluBody(const Map<const T>& x, const float* weights, T* y) {
  const int groups = x.stride / kSlab;
  const size_t index = static_cast<size_t>(blockIdx.x) * 128 + threadIdx.x;
  const size_t pixel = index / groups;
  if (pixel >= static_cast<size_t>(x.images) * x.height * x.width) return;
  const int row = static_cast<int>(pixel / x.width);
  const Pixel p = {row / x.height, row % x.height, static_cast<int>(pixel % x.width)};
  const int c = static_cast<int>(index % groups) * kSlab;
  float sum[kSlab];
  DepthwiseSum(x, weights, p, c, sum);
  MSTPP_UNROLL
  for (int i = 0; i < kSlab; ++i) StoreOne(y + pixel * x.stride + c + i, ExactGelu(sum[i]));
}

// S's 64 x 64 tiles over a share of the pixels: 256 threads, 4 x 4 entries each.
template <class T>
MSTPP_DEVICE void GramSumBody(const Map<const T>& x, float* partials, int blocks) {
  constexpr int kTile = 64;
  const int pixels = x.height * x.width;
  const int tiles = (x.stride + kTile - 1) / kTile;
  const int tile = blockIdx.x % (tiles * tiles);
  const int block = blockIdx.x / (tiles * tiles) % blocks;
  const int image = blockIdx.x / (tiles * tiles) / blocks;
  const int i0 = tile / tiles * kTile, j0 = tile % tiles * kTile;
  const int share = (pixels + blocks - 1) / blocks;
  const int begin = block * share, end = min(begin + share, pixels);
  auto* a = reinterpret_cast<float*>(SharedMemory());
  float* b = a + kSlab * kTile;
  const int ti = threadIdx.x / 16 * 4, tj = threadIdx.x % 16 * 4;
  float sum[4][4] = {};
  for (int first = begin; first < end; first += kSlab) {
    for (int e = threadIdx.x; e < kSlab * kTile; e += 256) {
      const int pixel = first + e / kTile, c = e % kTile;
      const T* at = x.At(image, 0, 0) + static_cast<size_t>(min(pixel, pixels - 1)) * x.stride;
      a[e] = pixel < end && i0 + c < x.stride ? LoadOne(at + i0 + c) : 0.0f;
      b[e] = pixel < end && j0 + c < x.stride ? LoadOne(at + j0 + c) : 0.0f;
    }
    __syncthreads();
    MSTPP_UNROLL
    for (int k = 0; k < kSlab; ++k) {
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) {
        MSTPP_UNROLL
        for (int j = 0; j < 4; ++j) {
          sum[i][j] = fmaf(a[k * kTile + ti + i], b[k * kTile + tj + j], sum[i][j]);
        }
      }
    }
    __syncthreads();
  }
  float* out = partials + (static_cast<size_t>(image) * blocks + block) * x.stride * x.stride;
  MSTPP_UNROLL
  for (int i = 0; i < 4; ++i) {
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (i0 + ti + i < x.stride && j0 + tj + j < x.stride) {
        out[static_cast<size_t>(i0 + ti + i) * x.stride + j0 + tj + j] = sum[i][j];
      }
    }
  }
}

}  // namespace mstpp::cuda::portable
