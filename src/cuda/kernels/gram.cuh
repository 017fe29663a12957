// SPDX-License-Identifier: Apache-2.0
// S = X' X over all pixels of an image, the one global quantity of spectral attention.
//
// Every block leaves its sum over a fixed share of the pixels; GramReduce adds these in a fixed
// order. The shares depend on the image's size only, so neither a batch nor the GPU changes a bit.
//
// Most maps come with such sums from the kernels that write them (written_gram.cuh), and only the
// reduction is left. Gram16 reads those of downsampling to 128 channels and of feed_forward.
//
// Gram16 (FP16): both operands of the product are X transposed, eight channels by eight pixels at a
// time. A warp's load has pixels in rows; movmatrix turns it. S is symmetric: of the 8-column tiles
// in each 16-row band only those from the diagonal on are computed. Up to 64 channels every warp
// sums the whole S over pixels of its own; with 128, four warps share the pixels and the bands. The
// sums are left tile by tile as the lanes hold them; Gram16Reduce puts them in their places.
#pragma once

#include "cuda/kernels/written_gram.cuh"

namespace mstpp::cuda {

struct GramParams {
  const void* x;    // images x pixels x C
  float* partials;  // images x blocks x parts of S
  int pixels, blocks, images;
};

template <int C>
struct Gram16Shape {
  static constexpr int kWarps = C == 64 ? 8 : 16;
  static constexpr int kSharers = C <= 64 ? 1 : 4;  // warps that share the same pixels
  static constexpr int kTeams = kWarps / kSharers;
  static constexpr int kBands = C / 16 / kSharers;                // of a warp
  static constexpr int kTiles = C == 32 ? 6 : C == 64 ? 20 : 18;  // of a warp
  static constexpr int kAllTiles = kTiles * kSharers;
  // Steps that are loaded before the first is needed: a warp has few, and would wait for each.
  static constexpr int kAhead = C == 128 ? 1 : 2;
  static constexpr int kSharedBytes = kTeams * kAllTiles * 512;
};

// The bands of a warp: all, or its own and that from the other end, which is as short as this is
// long.
template <int C>
MSTPP_DEVICE constexpr int GramBand(int sharer, int i) {
  return Gram16Shape<C>::kSharers == 1 ? i : i == 0 ? sharer : C / 16 - 1 - sharer;
}

MSTPP_DEVICE void AddTo(float4& sum, const float4& x) {
  sum.x += x.x;
  sum.y += x.y;
  sum.z += x.z;
  sum.w += x.w;
}
MSTPP_DEVICE void AddTo(float& sum, float x) { sum += x; }
MSTPP_DEVICE float4 ShuffleXor(const float4& x, int mask) {
  return make_float4(ShuffleXor(x.x, mask), ShuffleXor(x.y, mask), ShuffleXor(x.z, mask),
                     ShuffleXor(x.w, mask));
}

template <int C>
class Gram16 {
  using Shape = Gram16Shape<C>;
  static constexpr int kBlocks8 = C / 8;

 public:
  MSTPP_DEVICE explicit Gram16(const GramParams& p)
      : p_(p), lane_(threadIdx.x & 31), warp_(threadIdx.x >> 5) {}

  MSTPP_DEVICE void Run() {
    LaunchDependents();
    // Registers have no run-time index, so each sharer's case is compiled by itself.
    if constexpr (Shape::kSharers == 1) {
      RunAs<0>();
    } else {
      switch (warp_ % Shape::kSharers) {
        case 0:
          return RunAs<0>();
        case 1:
          return RunAs<1>();
        case 2:
          return RunAs<2>();
        default:
          return RunAs<3>();
      }
    }
  }

 private:
  struct Pixels {
    HalfVec vec[C / 32][2];  // [32 channels][eight pixels]
  };

  // Sixteen pixels; zeros behind the last.
  MSTPP_DEVICE Pixels Load(const unsigned char* x, int step, int end) const {
    Pixels pixels;
    MSTPP_UNROLL
    for (int k = 0; k < C / 32; ++k) {
      MSTPP_UNROLL
      for (int side = 0; side < 2; ++side) {
        const int pixel = step * 16 + side * 8 + (lane_ >> 2);
        pixels.vec[k][side] = Zero();
        if (step < end && pixel < p_.pixels) {
          pixels.vec[k][side] = LoadVec(x + (static_cast<size_t>(pixel) * C + 32 * k) * 2);
        }
      }
    }
    return pixels;
  }

  template <int kSharer>
  MSTPP_DEVICE void RunAs() {
    const int image = blockIdx.x / p_.blocks, block = blockIdx.x % p_.blocks;
    // The steps of sixteen pixels of the block's contiguous share go to the teams in turn.
    const int steps = (p_.pixels + 15) / 16;
    const int share = (steps + p_.blocks - 1) / p_.blocks;
    const int begin = block * share, end = min(begin + share, steps);
    const auto* x = static_cast<const unsigned char*>(p_.x) +
                    static_cast<size_t>(image) * p_.pixels * C * 2 + 16 * (lane_ & 3);
    float sum[Shape::kTiles][4];
    MSTPP_UNROLL
    for (int i = 0; i < Shape::kTiles; ++i) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0.f;

    int step = begin + warp_ / Shape::kSharers;
    Pixels ahead[Shape::kAhead];
    MSTPP_UNROLL
    for (int i = 0; i < Shape::kAhead; ++i) ahead[i] = Load(x, step + i * Shape::kTeams, end);
    while (step < end) {
      MSTPP_UNROLL
      for (int i = 0; i < Shape::kAhead; ++i, step += Shape::kTeams) {
        if (step >= end) break;
        const Pixels pixels = ahead[i];
        ahead[i] = Load(x, step + Shape::kAhead * Shape::kTeams, end);
        Add<kSharer>(pixels, sum);
      }
    }
    Combine(sum, kSharer * Shape::kTiles, image * p_.blocks + block);
  }

  // Sixteen pixels more.
  template <int kSharer>
  MSTPP_DEVICE static void Add(const Pixels& pixels, float (&sum)[Shape::kTiles][4]) {
    uint32_t turned[kBlocks8][2];  // [8 channels][8 pixels]
    MSTPP_UNROLL
    for (int i = 0; i < kBlocks8; ++i) {
      MSTPP_UNROLL
      for (int side = 0; side < 2; ++side) {
        turned[i][side] = TransposeHalf(pixels.vec[i / 4][side].pair[i % 4].bits);
      }
    }
    int tile = 0;
    MSTPP_UNROLL
    for (int i = 0; i < Shape::kBands; ++i) {
      const auto& top = turned[2 * GramBand<C>(kSharer, i)];
      const auto& bottom = turned[2 * GramBand<C>(kSharer, i) + 1];
      MSTPP_UNROLL
      for (int n = 2 * GramBand<C>(kSharer, i); n < kBlocks8; ++n, ++tile) {
        float(&d)[4] = sum[tile];
        MmaHalf(d, top[0], bottom[0], top[1], bottom[1], turned[n][0], turned[n][1], d[0], d[1],
                d[2], d[3]);
      }
    }
  }

  // Adds the teams' sums, in their order.
  MSTPP_DEVICE void Combine(const float (&sum)[Shape::kTiles][4], int first_tile, int part) const {
    constexpr int kAll = Shape::kAllTiles * 32;  // float4s
    auto* shared = reinterpret_cast<float4*>(SharedMemory());
    float4* mine = shared + warp_ / Shape::kSharers * kAll + first_tile * 32 + lane_;
    MSTPP_UNROLL
    for (int i = 0; i < Shape::kTiles; ++i) {
      mine[i * 32] = make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
    }
    BlockBarrier<Shape::kWarps * 32>();
    auto* out = reinterpret_cast<float4*>(p_.partials) + static_cast<size_t>(part) * kAll;
    for (int e = threadIdx.x; e < kAll; e += Shape::kWarps * 32) {
      float4 total = shared[e];
      MSTPP_UNROLL
      for (int i = 1; i < Shape::kTeams; ++i) AddTo(total, shared[i * kAll + e]);
      out[e] = total;
    }
  }

  const GramParams& p_;
  int lane_, warp_;
};

// Of a part of S as tiles: Gram16's or a writing kernel's.
constexpr size_t GramPartBytes(int C) { return static_cast<size_t>(C / 16) * (C / 16 + 1) * 512; }

struct GramReduceParams {
  const float* partials;  // images x blocks x size
  float* sum;             // images x size
  int blocks, size, images;
};

constexpr int kReduceThreads = 512;

// Adds `count` parts that lie `stride` apart. kWidth neighbouring threads have as many entries of
// `parts`, and of all such teams each its share; then their sums are added. The result is warp 0's.
// Needs kReduceThreads of T in shared memory.
template <int kWidth = 32, class T>
MSTPP_DEVICE T SumParts(const T* parts, int count, size_t stride) {
  constexpr int kWarps = kReduceThreads / 32, kTeams = kReduceThreads / kWidth;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  T sum{};
  MSTPP_UNROLL_8
  for (int i = threadIdx.x / kWidth; i < count; i += kTeams) AddTo(sum, parts[i * stride]);
  auto* shared = reinterpret_cast<T*>(SharedMemory());
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (warp == 0) {
    MSTPP_UNROLL
    for (int i = 1; i < kWarps; ++i) AddTo(sum, shared[i * 32 + lane]);
    MSTPP_UNROLL
    for (int i = kWidth; i < 32; i *= 2) AddTo(sum, ShuffleXor(sum, i));
  }
  return sum;
}

// 32 entries a block.
MSTPP_DEVICE void GramReduceBody(const GramReduceParams& p) {
  const int groups = p.size / 32;
  const int image = blockIdx.x / groups, entry = blockIdx.x % groups * 32 + (threadIdx.x & 31);
  const float sum = SumParts(p.partials + static_cast<size_t>(image) * p.blocks * p.size + entry,
                             p.blocks, p.size);
  if (threadIdx.x < 32) p.sum[static_cast<size_t>(image) * p.size + entry] = sum;
}

// Whose parts: Gram16's, or those of a kernel that writes x with outputs in Packer's order.
enum class GramParts { kRead, kQuads, kVecs };

// Tile `index` of a part.
template <int C, GramParts kParts>
MSTPP_DEVICE GramTile TileOfPart(int index) {
  if constexpr (kParts == GramParts::kRead) {
    const int sharer = index / Gram16Shape<C>::kTiles;
    int band = GramBand<C>(sharer, 0), column8 = 2 * band + index % Gram16Shape<C>::kTiles;
    for (int i = 0; column8 >= C / 8; ++i) {
      column8 -= C / 8;
      band = GramBand<C>(sharer, i + 1);
      column8 += 2 * band;
    }
    return {band, column8};
  } else {
    return WrittenGramTile<C>(index);
  }
}

// The channel that is `entry` of block `block` of eight: Gram16's lanes, and Vecs, hold their
// channels four by four; of Quads each lane has four neighbours.
template <GramParts kParts>
MSTPP_DEVICE int ChannelOfPart(int block, int entry) {
  if (kParts == GramParts::kQuads) {
    return block / 2 * 16 + 4 * (entry >> 1) + 2 * (block % 2) + (entry & 1);
  }
  return block / 4 * 32 + 8 * (entry >> 1) + 2 * (block % 4) + (entry & 1);
}

// Lanes whose entries of a tile a block adds: the fewer, the more blocks, for parts are many.
template <int C>
constexpr int kReduceWidth = C == 32   ? 8
                             : C == 64 ? 16
                                       : 32;
template <int C>
constexpr int kReduceBlocks = Gram16Shape<C>::kAllTiles*(32 / kReduceWidth<C>);  // of an image

// Of parts in tiles. `size` is C x C.
template <int C, GramParts kParts>
MSTPP_DEVICE void Gram16ReduceBody(const GramReduceParams& p) {
  constexpr int kTiles = Gram16Shape<C>::kAllTiles, kWidth = kReduceWidth<C>;
  constexpr int kPieces = 32 / kWidth;
  LaunchDependents();
  WaitForPrevious();
  const int image = blockIdx.x / (kTiles * kPieces), index = blockIdx.x / kPieces % kTiles;
  const int lane = blockIdx.x % kPieces * kWidth + threadIdx.x % kWidth;
  const float4 sum =
      SumParts<kWidth>(reinterpret_cast<const float4*>(p.partials) +
                           (static_cast<size_t>(image) * p.blocks * kTiles + index) * 32 + lane,
                       p.blocks, kTiles * 32);
  if (threadIdx.x >= kWidth) return;
  const int g = lane >> 2, t = lane & 3;
  const GramTile tile = TileOfPart<C, kParts>(index);
  float* out = p.sum + static_cast<size_t>(image) * C * C;
  const float values[4] = {sum.x, sum.y, sum.z, sum.w};
  MSTPP_UNROLL
  for (int c = 0; c < 4; ++c) {
    const int row = ChannelOfPart<kParts>(2 * tile.band + (c >> 1), g);
    const int column = ChannelOfPart<kParts>(tile.column8, 2 * t + (c & 1));
    out[row * C + column] = values[c];
    if (tile.column8 / 2 != tile.band) out[column * C + row] = values[c];
  }
}

}  // namespace mstpp::cuda
