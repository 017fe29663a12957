// SPDX-License-Identifier: Apache-2.0
// The positional branch of spectral attention (pos_emb), with the value projection in front:
//
//   V = X Wv',   d = dw2(GELU(dw1(V)))         both depthwise 3 x 3, zero padding, no bias
//
// It needs nothing of the attention matrix, so it runs beside the kernels that compute that; the
// feed-forward kernel adds x, d and X M'.
//
// Work: a warp takes a strip of 8 P columns, 32 channels of V and `rows` rows, and needs no other
// warp. Two columns on either side of a strip, where it meets another, and two rows above and below
// feed the 3 x 3s only.
// Rows of X stream into a private queue in shared memory; every lane copies just what it will read
// itself, so there is no barrier. All else stays in registers.
#pragma once

#include "cuda/kernels/depthwise.cuh"

namespace mstpp::cuda {

struct PositionParams {
  const void* x;             // images x height x width x C
  void* d;                   // the same
  const void* value_weight;  // tiles [C / 32][C / 32][4] (PackTiles)
  const void* depthwise1;    // [C / 32] of Depthwise::kWeightBytes
  const void* depthwise2;
  int height, width, rows, strips, segments, images;
};

template <class Policy, int C, int P>
struct PositionShape {
  using V = Vec<typename Policy::Pair>;
  using Stored = typename Policy::Stored;
  static constexpr int kSlices = C / 32;
  static constexpr int kUseful = 8 * P - 4;  // columns of output a strip
  static constexpr int kQueue = 4;           // rows, a power of two
  static constexpr int kRowBytes = kSlices * P * kWarpVecBytes<Stored>;
  static constexpr int kWeightBytes =
      kSlices * 2 * Depthwise<typename Policy::Pair, P>::kWeightBytes;
  static constexpr int kQueues = kWeightBytes + Depthwise<typename Policy::Pair, P>::kZeroBytes;
  static constexpr int SharedBytes(int warps) { return kQueues + warps * kQueue * kRowBytes; }
};

template <class Policy, int C, int P, int kWarps>
MSTPP_DEVICE void PositionBody(const PositionParams& p) {
  using Shape = PositionShape<Policy, C, P>;
  using Pair = typename Policy::Pair;
  using V = typename Shape::V;
  using Stored = typename Shape::Stored;
  using Dw = Depthwise<Pair, P>;
  constexpr int kSlices = Shape::kSlices;
  constexpr int kElement = sizeof(Stored) / 8;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;

  unsigned char* shared = SharedMemory();
  for (int i = threadIdx.x; i < kSlices * Dw::kWeightBytes / 16; i += kWarps * 32) {
    const auto* dw1 = static_cast<const uint4*>(p.depthwise1);
    const auto* dw2 = static_cast<const uint4*>(p.depthwise2);
    reinterpret_cast<uint4*>(shared)[i] = dw1[i];
    reinterpret_cast<uint4*>(shared + kSlices * Dw::kWeightBytes)[i] = dw2[i];
  }
  const unsigned char* zeros = shared + Shape::kWeightBytes;
  for (int i = threadIdx.x; i < Dw::kZeroBytes / 16; i += kWarps * 32) {
    reinterpret_cast<uint4*>(shared + Shape::kWeightBytes)[i] = make_uint4(0, 0, 0, 0);
  }
  __syncthreads();

  const int item = blockIdx.x * kWarps + warp;
  const int slice = item % kSlices;
  const int strip = item / kSlices % p.strips;
  const int segment = item / kSlices / p.strips % p.segments;
  const int image = item / kSlices / p.strips / p.segments;
  if (image >= p.images) return;
  const unsigned char* weights1 = shared + slice * Dw::kWeightBytes;
  const unsigned char* weights2 = weights1 + kSlices * Dw::kWeightBytes;
  unsigned char* queue = shared + Shape::kQueues + warp * Shape::kQueue * Shape::kRowBytes;

  const int row_begin = segment * p.rows;
  const int row_end = min(row_begin + p.rows, p.height);
  const int column = strip * Shape::kUseful + P * g;  // of this lane's first pixel
  const size_t image_offset = static_cast<size_t>(image) * p.height * p.width * C;
  const char* x = static_cast<const char*>(p.x) + image_offset * kElement;

  const auto fetch = [&](int y) {
    unsigned char* row = queue + (y & (Shape::kQueue - 1)) * Shape::kRowBytes;
    MSTPP_UNROLL
    for (int k = 0; k < kSlices; ++k) {
      MSTPP_UNROLL
      for (int i = 0; i < P; ++i) {
        const int cx = column + i;
        const bool inside =
            static_cast<unsigned>(y) < static_cast<unsigned>(p.height) && cx < p.width;
        const size_t offset =
            inside ? (static_cast<size_t>(y) * p.width + cx) * C + 32 * k + 8 * t : 0;
        MSTPP_UNROLL
        for (int w = 0; w < kWords<Stored>; ++w) {
          CopyAsync(row + (k * P + i) * kWarpVecBytes<Stored> + w * 512 + lane * 16,
                    x + offset * kElement + w * 16, inside);
        }
      }
    }
    CopyCommit();
  };

  V weight[kSlices][4];
  MSTPP_UNROLL
  for (int k = 0; k < kSlices; ++k) {
    MSTPP_UNROLL
    for (int j = 0; j < 4; ++j) {
      weight[k][j] = LoadWarpVec<V>(static_cast<const unsigned char*>(p.value_weight),
                                    (slice * kSlices + k) * 4 + j, lane);
    }
  }

  Dw first, second;
  MSTPP_UNROLL
  for (int i = 0; i < P; ++i) {
    first.middle[i] = first.below[i] = second.middle[i] = second.below[i] = Zero<Pair>();
  }
  fetch(row_begin - 2);
  fetch(row_begin - 1);
  fetch(row_begin);
  // dw1's rows outside the image are sums of inside pixels, but dw2 must see zeros there.
  const StripEnds ends = {strip == 0, strip == p.strips - 1};
  const bool passes_edge = ends.last && column + P > p.width;

  MSTPP_NO_UNROLL
  for (int y = row_begin - 2; y < row_end + 2; ++y) {
    fetch(y + 3);
    CopyWait<3>();
    const unsigned char* row = queue + (y & (Shape::kQueue - 1)) * Shape::kRowBytes;
    V value[P];
    MSTPP_UNROLL
    for (int i = 0; i < kPixelStep<P>; ++i) {
      const int partner = i + kPixelStep<P>;
      MSTPP_UNROLL
      for (int k = 0; k < kSlices; ++k) {
        const Rows<Pair> in =
            MakeRows<Pair>(Policy::Unpack(LoadWarpVec<Stored>(row, k * P + i, lane)),
                           Policy::Unpack(LoadWarpVec<Stored>(row, k * P + partner, lane)));
        MSTPP_UNROLL
        for (int j = 0; j < 4; ++j) {
          if (k == 0) {
            Policy::template Multiply<true>(value[i].pair[j], value[partner].pair[j], in,
                                            weight[k][j]);
          } else {
            Policy::template Multiply<false>(value[i].pair[j], value[partner].pair[j], in,
                                             weight[k][j]);
          }
        }
      }
    }
    V hidden[P];
    first.Add(value, weights1, zeros, lane, ends, hidden);  // row y - 1
    if (static_cast<unsigned>(y - 1) < static_cast<unsigned>(p.height)) {
      MSTPP_UNROLL
      for (int i = 0; i < P; ++i) Gelu(hidden[i]);
      if (passes_edge) {
        MSTPP_UNROLL
        for (int i = 0; i < P; ++i) {
          if (column + i >= p.width) {
            hidden[i] = Zero<Pair>();
          }
        }
      }
    } else {
      MSTPP_UNROLL
      for (int i = 0; i < P; ++i) hidden[i] = Zero<Pair>();
    }
    V result[P];
    second.Add(hidden, weights2, zeros, lane, ends, result);  // row y - 2
    if (y - 2 < row_begin) continue;
    char* out =
        static_cast<char*>(p.d) +
        (image_offset + (static_cast<size_t>(y - 2) * p.width + column) * C + 32 * slice + 8 * t) *
            kElement;
    MSTPP_UNROLL
    for (int i = 0; i < P; ++i) {
      const int local = P * g + i;
      if ((local >= 2 || ends.first) && (local < 8 * P - 2 || ends.last) && column + i < p.width) {
        StoreVec(out + static_cast<ptrdiff_t>(i) * C * kElement, Policy::PackStored(result[i]));
      }
    }
  }
}

}  // namespace mstpp::cuda
