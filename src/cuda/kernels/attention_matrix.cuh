// SPDX-License-Identifier: Apache-2.0
// From S = X' X to the matrix that applies spectral attention, M, so that neither the queries nor
// the keys of a pixel are ever computed:
//
//   T = S Wq'     U = S Wk'
//   nq_j = max(sqrt((Wq T)_jj), 1e-12)     nk_i = max(sqrt((Wk U)_ii), 1e-12)    F.normalize's
//   clamp A_k[i, j] = softmax over j of rescale_k (Wk T)[i, j] / (nk_i nq_j)           i, j in head
//   k M = Wproj blockdiag(A_k) Wv
//
// Two kernels, all in FP32: AttentionRows computes some rows of blockdiag(A_k) Wv (all that one
// head's T gives), AttentionMatrix their product with Wproj, packed as tiles for the feed-forward
// kernel. The weights lie transposed, inputs by outputs, so that neighbouring outputs are loaded
// together.
#pragma once

#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda {

struct AttentionParams {
  const float* s;             // images x C x C
  const float *wq, *wk, *wv;  // [input c][output stride]: transposed; wv as it is: [output][input]
  const float* wproj;         // transposed
  const float* rescale;       // [heads]
  const float* bias;          // of proj
  float* rows;                // images x channels x stride: blockdiag(A) Wv
  void* matrix;               // images of tiles [C / 32][C / 32][4], bias in the last column; or
                              // plain [C inputs][C] floats
  int channels, heads, C, images;
  int stride;  // of the weights' rows: channels rounded up to 4
};

constexpr int kAttentionThreads = 256;
constexpr int kAttentionRows = 8;  // of A a block computes

// out[i][j] = sum over b of a[b][i] w[b][j] for i < rows, j < columns: both `a` and `w` have b in
// rows of the given strides. Four by four outputs a thread; may read up to three past each end.
template <class Emit>
MSTPP_DEVICE void SmallProduct(const float* a, int a_stride, int rows, const float* w, int w_stride,
                               int columns, int depth, Emit emit) {
  const int row_tiles = (rows + 3) / 4, column_tiles = (columns + 3) / 4;
  for (int tile = threadIdx.x; tile < row_tiles * column_tiles; tile += kAttentionThreads) {
    const int i0 = tile % row_tiles * 4, j0 = tile / row_tiles * 4;
    float sum[4][4] = {};
    for (int b = 0; b < depth; ++b) {
      float x[4], y[4];
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) {
        x[i] = a[b * a_stride + i0 + i];
        y[i] = w[b * w_stride + j0 + i];
      }
      MSTPP_UNROLL
      for (int i = 0; i < 4; ++i) {
        MSTPP_UNROLL
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
      }
    }
    MSTPP_UNROLL
    for (int i = 0; i < 4; ++i) {
      MSTPP_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (i0 + i < rows && j0 + j < columns) emit(i0 + i, j0 + j, sum[i][j]);
      }
    }
  }
}

// Shared memory of AttentionRows, in floats.
struct AttentionRowsShape {
  int head_stride, t, u, norms, logits, size;
  MSTPP_HOST_DEVICE explicit AttentionRowsShape(int channels, int heads) {
    head_stride = (channels / heads + 3) / 4 * 4;
    t = 0;
    u = t + channels * head_stride;
    norms = u + channels * kAttentionRows;
    logits = norms + head_stride + kAttentionRows;
    size = logits + kAttentionRows * head_stride + 4;
  }
};

MSTPP_DEVICE void AttentionRowsBody(const AttentionParams& p) {
  const int width = p.channels / p.heads;
  const int slices = (width + kAttentionRows - 1) / kAttentionRows;
  const int slice = blockIdx.x % slices, head = blockIdx.x / slices % p.heads;
  const int image = blockIdx.x / slices / p.heads;
  const int first = slice * kAttentionRows, rows = min(kAttentionRows, width - first);
  const AttentionRowsShape shape(p.channels, p.heads);
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  float *t = shared + shape.t, *u = shared + shape.u, *nq = shared + shape.norms;
  float *nk = nq + shape.head_stride, *logits = shared + shape.logits;
  const float* s = p.s + static_cast<size_t>(image) * p.C * p.C;
  const int column = head * width;  // of the weights, transposed

  // S is symmetric: S[b][i] stands for S[i][b].
  SmallProduct(s, p.C, p.channels, p.wq + column, p.stride, width, p.channels,
               [&](int i, int j, float value) { t[i * shape.head_stride + j] = value; });
  SmallProduct(s, p.C, p.channels, p.wk + column + first, p.stride, rows, p.channels,
               [&](int i, int j, float value) { u[i * kAttentionRows + j] = value; });
  __syncthreads();

  for (int j = threadIdx.x; j < width + rows; j += kAttentionThreads) {
    const bool is_query = j < width;
    const float* w = is_query ? p.wq + column + j : p.wk + column + first + j - width;
    const float* v = is_query ? t + j : u + j - width;
    const int v_stride = is_query ? shape.head_stride : kAttentionRows;
    float square = 0.0f;
    for (int b = 0; b < p.channels; ++b) square = fmaf(w[b * p.stride], v[b * v_stride], square);
    (is_query ? nq[j] : nk[j - width]) = fmaxf(sqrtf(fmaxf(square, 0.0f)), 1e-12f);
  }
  SmallProduct(p.wk + column + first, p.stride, rows, t, shape.head_stride, width, p.channels,
               [&](int i, int j, float value) { logits[i * shape.head_stride + j] = value; });
  __syncthreads();

  // Softmax: a warp a row.
  const int lane = threadIdx.x & 31;
  for (int i = threadIdx.x >> 5; i < rows; i += kAttentionThreads / 32) {
    float* row = logits + i * shape.head_stride;
    const float scale = p.rescale[head] / nk[i];
    float largest = -INFINITY;
    for (int j = lane; j < width; j += 32) {
      row[j] = row[j] * scale / nq[j];
      largest = fmaxf(largest, row[j]);
    }
    for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, ShuffleXor(largest, mask));
    float sum = 0.0f;
    for (int j = lane; j < width; j += 32) {
      row[j] = expf(row[j] - largest);
      sum += row[j];
    }
    for (int mask = 16; mask > 0; mask /= 2) sum += ShuffleXor(sum, mask);
    for (int j = lane; j < width; j += 32) row[j] /= sum;
  }
  __syncthreads();

  float* out = p.rows + (static_cast<size_t>(image) * p.channels + column + first) * p.stride;
  for (int e = threadIdx.x; e < rows * p.channels; e += kAttentionThreads) {
    const int i = e / p.channels, c = e % p.channels;
    float sum = 0.0f;
    for (int j = 0; j < width; ++j) {
      sum = fmaf(logits[i * shape.head_stride + j], p.wv[(column + j) * p.stride + c], sum);
    }
    out[i * p.stride + c] = sum;
  }
}

// Element i of lane `lane` of a tile: where its float or half lies (LoadWarpVec).
template <int kPerWord>
MSTPP_DEVICE int TileElement(int tile, int lane, int i) {
  constexpr int kWordsOfVec = 8 / kPerWord;
  return ((tile * kWordsOfVec + i / kPerWord) * 32 + lane) * kPerWord + i % kPerWord;
}
// Where the weight from input `in` to output `out` lies in tiles [outputs / 32][inputs / 32][4].
template <int kPerWord>
MSTPP_DEVICE int TileWeight(int out, int in, int input_groups) {
  const int r = out % 32, k = in % 32;
  const int tile = (out / 32 * input_groups + in / 32) * 4 + ((r & 7) >> 1);
  const int g = 2 * (r >> 3) + (r & 1);
  return TileElement<kPerWord>(tile, g * 4 + k / 8, k % 8);
}

enum class MatrixForm { kHalfTiles, kFloatTiles, kPlain };

// One block: eight rows of M, that is, outputs.
template <MatrixForm kForm>
MSTPP_DEVICE void AttentionMatrixBody(const AttentionParams& p) {
  const int slices = p.C / kAttentionRows;
  const int first = blockIdx.x % slices * kAttentionRows, image = blockIdx.x / slices;
  const auto put = [&](int out, int in, float value) {
    const size_t image_at = static_cast<size_t>(image) * p.C * p.C;
    if constexpr (kForm == MatrixForm::kHalfTiles) {
      static_cast<uint16_t*>(p.matrix)[image_at + TileWeight<8>(out, in, p.C / 32)] =
          static_cast<uint16_t>(HalfPack(value, 0.0f));
    } else if constexpr (kForm == MatrixForm::kFloatTiles) {
      static_cast<float*>(p.matrix)[image_at + TileWeight<4>(out, in, p.C / 32)] = value;
    } else {
      static_cast<float*>(p.matrix)[image_at + static_cast<size_t>(in) * p.C + out] = value;
    }
  };
  const int rows = max(0, min(kAttentionRows, p.channels - first));
  for (int e = threadIdx.x; e < kAttentionRows * p.C; e += kAttentionThreads) {
    const int out = first + e / p.C, in = e % p.C;
    if (out >= p.channels || in >= p.channels) {
      const bool is_bias = kForm != MatrixForm::kPlain && in == p.C - 1 && out < p.channels;
      put(out, in, is_bias ? p.bias[out] : 0.0f);
    }
  }
  SmallProduct(p.wproj + first, p.stride, rows,
               p.rows + static_cast<size_t>(image) * p.channels * p.stride, p.stride, p.channels,
               p.channels, [&](int i, int j, float value) { put(first + i, j, value); });
}

}  // namespace mstpp::cuda
