// From S = X' X to the matrix that applies spectral attention, M, so that neither the queries nor
// the keys of a pixel are ever computed:
//
//   K'Q = Wk S Wq'     |Q_j|^2 = (Wq S Wq')_jj     |K_i|^2 = (Wk S Wk')_ii
//   A_k[i, j] = softmax over j of rescale_k (K'Q)[i, j] / (|K_i| |Q_j|)      i, j in head k
//   M = Wproj blockdiag(A_k) Wv
//
// with norms of at least 1e-12, F.normalize's clamp.
//
// Two kernels, all in FP32. AttentionLogits: a block takes a few rows W of Wq or Wk, and from R = W
// S their norms and, of keys, their rows of K'Q. AttentionMatrix: a block takes the softmax, and a
// few rows of Wproj, that is outputs, multiplies them by the softmax and that by Wv, and packs its
// rows of M as tiles for the feed-forward kernel. Weights that are needed by columns lie
// transposed.
#pragma once

#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda {

struct AttentionParams {
  const float* s;             // images x C x C
  const float *wq, *wk, *wv;  // [input c][output stride]: transposed; wv as it is: [output][input]
  const float* wproj;         // transposed
  const float* rescale;       // [heads]
  const float* bias;          // of proj
  float* logits;              // images of AttentionFloats
  void* matrix;               // images of tiles [C / 32][C / 32][4] or of bricks, bias in the last
                              // column; or plain [C inputs / 16][C][16] floats
  int channels, heads, C, images;
  int stride;  // of the weights' rows: channels rounded up to 4
};

constexpr int kAttentionThreads = 256;
// Of AttentionMatrix with many channels.
constexpr int kManyAttentionThreads = 512;
MSTPP_HOST_DEVICE constexpr int AttentionMatrixThreads(int channels) {
  return channels > 64 ? kManyAttentionThreads : kAttentionThreads;
}
constexpr int kAttentionRows = 4;  // a block's

// One image's K'Q, [key][query of the same head], then the norms of the queries, then the keys'.
MSTPP_HOST_DEVICE inline int AttentionFloats(int channels, int heads) {
  return channels * (channels / heads) + 2 * channels;
}

// Shared memory, in floats: the block's rows, transposed, as the product's first factor and as its
// result; the product's parts, before which AttentionMatrix has the softmax there; and the
// product's second factor, S or Wv, unless it is too large.
struct AttentionShape {
  int a, r, parts, factor, size;
  bool has_factor;
  MSTPP_HOST_DEVICE AttentionShape(int channels, int heads, int C, int threads) {
    a = 0;
    r = a + channels * kAttentionRows;
    parts = r + channels * kAttentionRows;
    factor = parts + max(threads * 4 * kAttentionRows, ((channels / heads | 1) + 3) / 4 * 4);
    has_factor = channels * C <= 16384;
    size = factor + (has_factor ? channels * C : 0);
  }
};

// Starts the copy of a second factor of so many rows to its place, and says where it is to be read.
template <int kThreads>
MSTPP_DEVICE const float* StageFactor(const AttentionShape& shape, const float* factor, int rows,
                                      int stride) {
  if (!shape.has_factor) return factor;
  auto* to = reinterpret_cast<float*>(SharedMemory()) + shape.factor;
  MSTPP_UNROLL_4
  for (int e = 4 * threadIdx.x; e < rows * stride; e += 4 * kThreads) {
    CopyAsync(to + e, factor + e, true);
  }
  return to;
}

// out[i][j] = sum over b of a[b][i] w[b][j] for the block's i and all j < columns: a in shared
// memory, w's rows `stride` apart; they may be read up to a multiple of four columns. Four columns
// and all i a thread; the sum over b is shared among groups of threads. Ends with a barrier.
template <bool kAligned, int kThreads, class Emit>
MSTPP_DEVICE void BlockRows(const float* a, const float* w, int stride, int columns, int depth,
                            float* parts, Emit emit) {
  for (int first = 0; first < columns; first += 128) {
    const int quads = min(32, (columns - first + 3) / 4);
    const int width = quads <= 8 ? 8 : quads <= 16 ? 16 : 32;
    const int groups = kThreads / width;
    const int quad = threadIdx.x % width, group = threadIdx.x / width;
    float sum[kAttentionRows][4] = {};
    if (quad < quads) {
      MSTPP_UNROLL_8
      for (int b = group; b < depth; b += groups) {
        const float* at = w + static_cast<size_t>(b) * stride + first + 4 * quad;
        float4 y;
        if constexpr (kAligned) {
          y = *reinterpret_cast<const float4*>(at);
        } else {
          y = make_float4(at[0], at[1], at[2], at[3]);
        }
        MSTPP_UNROLL
        for (int i = 0; i < kAttentionRows; ++i) {
          const float x = a[b * kAttentionRows + i];
          sum[i][0] = fmaf(x, y.x, sum[i][0]);
          sum[i][1] = fmaf(x, y.y, sum[i][1]);
          sum[i][2] = fmaf(x, y.z, sum[i][2]);
          sum[i][3] = fmaf(x, y.w, sum[i][3]);
        }
      }
    }
    MSTPP_UNROLL
    for (int i = 0; i < kAttentionRows; ++i) {
      reinterpret_cast<float4*>(parts)[(group * kAttentionRows + i) * width + quad] =
          make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
    }
    __syncthreads();
    for (int e = threadIdx.x; e < kAttentionRows * 4 * width; e += kThreads) {
      const int i = e / (4 * width), j = e % (4 * width);
      float total = 0.0f;
      MSTPP_UNROLL_8
      for (int k = 0; k < groups; ++k) total += parts[(k * kAttentionRows + i) * 4 * width + j];
      if (first + j < columns) emit(i, first + j, total);
    }
    __syncthreads();
  }
}

// Blocks of AttentionLogits an image: a few rows at a time of each head, queries then keys.
MSTPP_HOST_DEVICE inline int AttentionLogitsBlocks(int channels, int heads) {
  const int width = channels / heads;
  return 2 * heads * ((width + kAttentionRows - 1) / kAttentionRows);
}

MSTPP_DEVICE void AttentionLogitsBody(const AttentionParams& p) {
  constexpr int kThreads = kAttentionThreads;
  const int width = p.channels / p.heads;
  const int slices = (width + kAttentionRows - 1) / kAttentionRows;
  const int slice = blockIdx.x % slices, head = blockIdx.x / slices % p.heads;
  const bool is_key = (blockIdx.x / slices / p.heads & 1) != 0;
  const int image = blockIdx.x / slices / p.heads / 2;
  const int first = head * width + slice * kAttentionRows;
  const int rows = min(kAttentionRows, width - slice * kAttentionRows);
  const AttentionShape shape(p.channels, p.heads, p.C, kThreads);
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  float *a = shared + shape.a, *r = shared + shape.r, *parts = shared + shape.parts;
  float* logits = p.logits + static_cast<size_t>(image) * AttentionFloats(p.channels, p.heads);
  float* norms = logits + p.channels * width + (is_key ? p.channels : 0);

  LaunchDependents();
  const float* w = is_key ? p.wk : p.wq;
  for (int e = threadIdx.x; e < p.channels * kAttentionRows; e += kThreads) {
    const int b = e / kAttentionRows, i = e % kAttentionRows;
    a[e] = i < rows ? w[b * p.stride + first + i] : 0.0f;
  }
  WaitForPrevious();
  const float* s =
      StageFactor<kThreads>(shape, p.s + static_cast<size_t>(image) * p.C * p.C, p.channels, p.C);
  CopyCommit();
  CopyWait<0>();
  __syncthreads();
  BlockRows<true, kThreads>(a, s, p.C, p.channels, p.channels, parts,
                            [&](int i, int j, float value) { r[j * kAttentionRows + i] = value; });

  const int lane = threadIdx.x & 31, row = threadIdx.x >> 5;
  if (row < rows) {
    float square = 0.0f;
    for (int b = lane; b < p.channels; b += 32) {
      square = fmaf(a[b * kAttentionRows + row], r[b * kAttentionRows + row], square);
    }
    for (int mask = 16; mask > 0; mask /= 2) square += ShuffleXor(square, mask);
    if (lane == 0) norms[first + row] = fmaxf(sqrtf(fmaxf(square, 0.0f)), 1e-12f);
  }
  if (is_key) {
    BlockRows<false, kThreads>(r, p.wq + head * width, p.stride, width, p.channels, parts,
                               [&](int i, int j, float value) {
                                 if (i < rows) logits[(first + i) * width + j] = value;
                               });
  }
}

// The softmax of the rows `begin` to `end` - 1 of K'Q, of all heads, `stride` apart. A warp takes
// every kWarps-th, several together for the latency of one.
template <int kThreads>
MSTPP_DEVICE void SoftmaxRows(const AttentionParams& p, int image, int begin, int end,
                              float* softmax, int stride) {
  constexpr int kWarps = kThreads / 32, kTogether = 8;
  const int width = p.channels / p.heads, lane = threadIdx.x & 31;
  const float* logits =
      p.logits + static_cast<size_t>(image) * AttentionFloats(p.channels, p.heads);
  const float* nq = logits + p.channels * width;
  const float* nk = nq + p.channels;
  for (int first = begin + (threadIdx.x >> 5); first < end; first += kTogether * kWarps) {
    // Behind the end the last row once more, which is not stored.
    int rows[kTogether], queries[kTogether];
    float scale[kTogether], largest[kTogether], sum[kTogether];
    MSTPP_UNROLL
    for (int u = 0; u < kTogether; ++u) {
      rows[u] = min(first + u * kWarps, end - 1);
      const int head = rows[u] / width;
      queries[u] = head * width;
      scale[u] = p.rescale[head] * Reciprocal(nk[rows[u]]);
      largest[u] = -INFINITY;
      sum[u] = 0.0f;
    }
    const auto load = [&](float(&value)[kTogether], int j) {
      MSTPP_UNROLL
      for (int u = 0; u < kTogether; ++u) {
        value[u] = logits[rows[u] * width + j] * (scale[u] * Reciprocal(nq[queries[u] + j]));
      }
    };
    const auto store = [&](int u, int j, float value) {
      if (first + u * kWarps < end) softmax[(rows[u] - begin) * stride + j] = value;
    };
    float value[kTogether];
    for (int j = lane; j < width; j += 32) {
      load(value, j);
      MSTPP_UNROLL
      for (int u = 0; u < kTogether; ++u) largest[u] = fmaxf(largest[u], value[u]);
    }
    for (int mask = 16; mask > 0; mask /= 2) {
      MSTPP_UNROLL
      for (int u = 0; u < kTogether; ++u) {
        largest[u] = fmaxf(largest[u], ShuffleXor(largest[u], mask));
      }
    }
    for (int j = lane; j < width; j += 32) {
      if (width > 32) load(value, j);
      MSTPP_UNROLL
      for (int u = 0; u < kTogether; ++u) {
        value[u] = expf(value[u] - largest[u]);
        if (width > 32) store(u, j, value[u]);
        sum[u] += value[u];
      }
    }
    for (int mask = 16; mask > 0; mask /= 2) {
      MSTPP_UNROLL
      for (int u = 0; u < kTogether; ++u) sum[u] += ShuffleXor(sum[u], mask);
    }
    for (int j = lane; j < width; j += 32) {
      MSTPP_UNROLL
      for (int u = 0; u < kTogether; ++u) {
        if (width > 32) value[u] = softmax[(rows[u] - begin) * stride + j];
      }
      MSTPP_UNROLL
      for (int u = 0; u < kTogether; ++u) store(u, j, value[u] * Reciprocal(sum[u]));
    }
  }
}

// Where the weight from input `in` to output `out` lies in tiles [outputs / 32][inputs / 32][4],
// both in blocks of eight (Packer::Tiles).
MSTPP_DEVICE int TileWeight(int out, int in, int input_groups) {
  const int tile = (out / 32 * input_groups + in / 32) * 4 + out % 32 / 8;
  const int lane = out % 8 * 4 + in % 8 / 2;
  return (tile * 32 + lane) * 8 + in % 32 / 8 * 2 + in % 2;
}

// The same in bricks (kernels/hopper.cuh).
MSTPP_DEVICE int BrickWeight(int out, int in, int outputs) {
  return (in / 8 * outputs + out) * 8 + in % 8;
}

enum class MatrixForm { kHalfTiles, kHalfBricks, kPlain };

// Where M, C x C, has the weight from input `in` to output `out`.
template <MatrixForm kForm>
MSTPP_DEVICE int MatrixWeight(int out, int in, int C) {
  if constexpr (kForm == MatrixForm::kHalfTiles) return TileWeight(out, in, C / 32);
  if constexpr (kForm == MatrixForm::kHalfBricks) return BrickWeight(out, in, C);
  return (in / 16 * C + out) * 16 + in % 16;
}

// One block: a few rows of M, that is, outputs.
template <MatrixForm kForm, int kThreads>
MSTPP_DEVICE void AttentionMatrixBody(const AttentionParams& p) {
  const int width = p.channels / p.heads;
  const int slices = p.C / kAttentionRows;
  const int first = blockIdx.x % slices * kAttentionRows, image = blockIdx.x / slices;
  const int rows = max(0, min(kAttentionRows, p.channels - first));
  const AttentionShape shape(p.channels, p.heads, p.C, kThreads);
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  float *proj = shared + shape.a, *a = shared + shape.r, *parts = shared + shape.parts;
  const auto put = [&](int out, int in, float value) {
    const size_t at = static_cast<size_t>(image) * p.C * p.C + MatrixWeight<kForm>(out, in, p.C);
    if constexpr (kForm == MatrixForm::kPlain) {
      static_cast<float*>(p.matrix)[at] = value;
    } else {
      static_cast<uint16_t*>(p.matrix)[at] = static_cast<uint16_t>(HalfPack(value, 0.0f));
    }
  };
  for (int b = threadIdx.x; b < p.channels; b += kThreads) {
    CopyAsync(proj + b * kAttentionRows, p.wproj + b * p.stride + first, rows > 0);
  }
  LaunchDependents();
  const float* wv = StageFactor<kThreads>(shape, p.wv, p.channels, p.stride);
  CopyCommit();
  WaitForPrevious();
  const int thread = threadIdx.x;
  float bias = 0.0f;
  if (kForm != MatrixForm::kPlain && thread < rows) bias = p.bias[first + thread];

  // The softmax, as many rows at a time as there is room for, and its product with the rows of
  // Wproj.
  const int odd = width | 1;  // a stride without bank conflicts
  const int room = (shape.factor - shape.parts) / odd;
  for (int begin = 0; begin < p.channels; begin += room) {
    const int end = min(begin + room, p.channels);
    SoftmaxRows<kThreads>(p, image, begin, end, parts, odd);
    CopyWait<0>();
    __syncthreads();
    for (int column = threadIdx.x; column < p.channels; column += kThreads) {
      const int head = column / width;
      auto* result = reinterpret_cast<float4*>(a + column * kAttentionRows);
      float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
      if (begin > 0) sum = *result;
      const int last = min(end, (head + 1) * width);
      MSTPP_UNROLL_8
      for (int i = max(begin, head * width); i < last; ++i) {
        const float y = parts[(i - begin) * odd + column - head * width];
        const float4 x = *reinterpret_cast<const float4*>(proj + i * kAttentionRows);
        sum.x = fmaf(x.x, y, sum.x);
        sum.y = fmaf(x.y, y, sum.y);
        sum.z = fmaf(x.z, y, sum.z);
        sum.w = fmaf(x.w, y, sum.w);
      }
      *result = sum;
    }
    __syncthreads();
  }
  BlockRows<true, kThreads>(a, wv, p.stride, p.channels, p.channels, parts,
                            [&](int i, int j, float value) {
                              if (i < rows) put(first + i, j, value);
                            });
  for (int e = thread; e < kAttentionRows * p.C; e += kThreads) {
    const int i = e / p.C, in = e % p.C;
    if (i >= rows || (in >= p.channels && in < p.C - 1)) put(first + i, in, 0.0f);
  }
  if (thread < rows && p.C > p.channels) put(first + thread, p.C - 1, bias);
}

}  // namespace mstpp::cuda
