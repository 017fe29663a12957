// SPDX-License-Identifier: Apache-2.0
// The fused kernels' device code on the CPU (cuda_emulator.h) against the blocks' equations
// in float64. Needs the CUDA headers, no GPU. Here what they share, and position; the others in
// cuda_attention_test.cc, cuda_conv3x3_test.cc, cuda_feed_forward_test.cc and
// cuda_resample_test.cc.
#define MSTPP_EMULATE_CUDA
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cuda/kernels/position.cuh"
#include "cuda_kernels_testing.h"

namespace mstpp::cuda::kernels_testing {
namespace {

TEST(KernelsTest, PackerSaysWhetherWeightsAreHalves) {
  for (const float largest : {65504.f, 65519.f, 65520.f, -1e9f, INFINITY}) {
    Packer packer;
    packer.Rows(16, Packer::Order::kQuads, 16, Packer::Order::kQuads,
                [&](int o, int i) { return o == 3 && i == 5 ? largest : 1.f; });
    EXPECT_EQ(packer.finite(), largest == 65504.f || largest == 65519.f) << largest;
  }
  EXPECT_EQ(HalfRest(1.0f + 0x1p-12f), 0x1p-12f);
}

template <int C, int P>
void TestPosition(int height, int width, int rows, int channels) {
  using M = Memory;
  Generator generator(1);
  const Image x = M::Draw(generator, height, width, C, channels);
  const Doubles wv = generator.Draw(channels * channels, 1.0 / std::sqrt(channels));
  const Doubles w1 = generator.Draw(channels * 9, 0.33), w2 = generator.Draw(channels * 9, 0.33);
  Image v = Product(x, wv, C, channels);
  Image g = DepthwiseReference(v, w1);
  for (double& e : g.data) e = GeluExact(e);
  const Image expected = DepthwiseReference(g, w2);

  const float scale = kGeluScale;
  Packer tiles = Packer(), first = Packer(), second = Packer();
  tiles.Tiles(C, kVecs, C, kBlocks, [&](int o, int i) {
    return o < channels && i < channels ? scale * static_cast<float>(wv[o * channels + i]) : 0.f;
  });
  first.Depthwise(C, kPositionSides == Sides::kTensorCores, [&](int c, int tap) {
    return c < channels ? static_cast<float>(w1[c * 9 + tap]) : 0.f;
  });
  second.Depthwise(C, kPositionSides == Sides::kTensorCores, [&](int c, int tap) {
    return c < channels ? static_cast<float>(w2[c * 9 + tap]) : 0.f;
  });
  const auto wv_bytes = tiles.Take(), w1_bytes = first.Take(), w2_bytes = second.Take();
  const auto x_bytes = M::Store(x);
  std::vector<unsigned char> d(x_bytes.size(), 0x7f);

  using Shape = PositionShape<C, P>;
  PositionParams p{x_bytes.data(),
                   d.data(),
                   wv_bytes.data(),
                   w1_bytes.data(),
                   w2_bytes.data(),
                   height,
                   width,
                   rows,
                   0,
                   0,
                   1};
  p.strips = StripCount(width, 8 * P, 2);
  p.segments = (height + rows - 1) / rows;
  const int items = p.strips * Shape::kSlices * p.segments;
  Emulator::Instance().Launch((items + 1) / 2, 64, Shape::SharedBytes(2),
                              [&] { PositionBody<C, P, 2>(p); });
  Image got(height, width, C, channels);
  M::Load(d, got);
  ExpectNear(got, expected, /*has_one=*/false);
}

TEST(KernelsTest, Position) {
  TestPosition<32, 4>(8, 40, 6, 31);
  TestPosition<64, 4>(4, 16, 4, 62);
  TestPosition<128, 2>(4, 8, 2, 124);
}

TEST(KernelsTest, AddToSplit) {
  Generator generator(13);
  for (int i = 0; i < 10000; ++i) {
    const double number = Rounded(generator.Draw(1.0)),
                 rest = Rounded(number * 0x1p-12 * std::tanh(generator.Draw(1.0))),
                 term = Rounded(generator.Draw(i % 3 == 0   ? 10.0
                                               : i % 3 == 1 ? 1.0
                                                            : 0.01));
    const auto pair = [](double v) { return HalfPair{HalfPack(0.f, static_cast<float>(v))}; };
    HalfPair sum = pair(number), left = pair(rest);
    AddToSplit(sum, left, pair(term));
    const double exact = number + rest + term, got_sum = HalfHigh(sum.bits);
    // A rest below 2^-14 has no more digits than 2^-24.
    const double largest = std::max({std::abs(number), std::abs(term), std::abs(exact)});
    const double unit = std::max(0x1p-22 * largest, 0x1p-24);
    ASSERT_NEAR(got_sum + HalfHigh(left.bits), exact, unit) << number << " " << rest << " " << term;
    ASSERT_EQ(got_sum, Rounded(got_sum + HalfHigh(left.bits)));
  }
}

// GPUs older than Hopper store matrices pair by pair.
TEST(KernelsTest, StoresBlocksByPairsAsByMatrices) {
  unsigned char by_matrices[512], by_pairs[512];
  Emulator::Instance().Launch(1, 32, 0, [&] {
    HalfVec vec;
    for (int j = 0; j < 4; ++j) vec.pair[j].bits = threadIdx.x * 4 + j;
    StoreBlocks(by_matrices, threadIdx.x, vec);
    StoreBlocksByPairs(by_pairs, threadIdx.x, vec);
  });
  EXPECT_EQ(std::memcmp(by_matrices, by_pairs, sizeof by_pairs), 0);
}

TEST(KernelsTest, StoresProductsByPairsAsByMatrices) {
  unsigned char by_matrices[2048] = {}, by_pairs[2048] = {};
  Emulator::Instance().Launch(1, 32, 0, [&] {
    HalfPair sum[4][4];
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 4; ++i) sum[j][i].bits = (threadIdx.x * 4 + j) * 4 + i + 1;
    }
    const ProductStorer<4> storer(threadIdx.x, 1024);
    for (int i = 0; i < 2; ++i) {
      storer.Store(by_matrices + 512 * i, sum, i);
      storer.StoreByPairs(by_pairs + 512 * i, sum, i);
    }
  });
  EXPECT_EQ(std::memcmp(by_matrices, by_pairs, sizeof by_pairs), 0);
  EXPECT_NE(by_pairs[2047] | by_pairs[2046] | by_pairs[2045] | by_pairs[2044], 0);
}

// Every number: within 1.6e-3 up to 8, relatively beyond.
TEST(KernelsTest, Gelu) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    HalfPair z[1] = {{bits}};
    const double x = 2.0 * HalfLow(bits);
    Gelu(z);
    const double got = HalfLow(z[0].bits);
    if (!std::isfinite(x)) {
      EXPECT_FALSE(std::isfinite(got));
    } else if (x < 65520) {
      EXPECT_NEAR(got, GeluExact(x), 1.6e-3 * std::max(1.0, std::abs(x) / 8)) << x;
    } else {
      EXPECT_TRUE(std::isinf(got)) << x;
    }
  }
}

TEST(KernelsTest, ShortGelu) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    HalfPair z[1] = {{bits}};
    const double x = HalfLow(bits) / kShortGeluScale;
    ShortGelu(z);
    const double got = HalfLow(z[0].bits) / (2.0 * kShortGeluScale);
    const double size = std::abs(x), bound = size <= 0.2 ? 4e-4 : size <= 1.0 ? 1.6e-3 : 5.6e-3;
    if (!std::isfinite(x)) {
      EXPECT_FALSE(std::isfinite(got));
    } else if (x * kShortGeluScale < 32760.0) {
      EXPECT_NEAR(got, GeluExact(x), bound * std::max(1.0, size / 8)) << x;
    } else {
      EXPECT_TRUE(std::isinf(got)) << x;
    }
  }
}

}  // namespace
}  // namespace mstpp::cuda::kernels_testing
