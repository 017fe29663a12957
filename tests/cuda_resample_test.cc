// SPDX-License-Identifier: Apache-2.0
// downsample and upsample_fuse: see cuda_kernels_test.cc.
#define MSTPP_EMULATE_CUDA
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cuda/kernels/warpgroup_downsample.cuh"
#include "cuda/kernels/warpgroup_upsample_fuse.cuh"
#include "cuda_kernels_testing.h"

namespace mstpp::cuda::kernels_testing {
namespace {

// That a kernel whose segments have `rows` rows together gives y with S on the way too, that S is
// that of y's pixels, of C channels, and that its parts are the same bits wherever segments begin.
template <int C, GramParts kParts, int kPartsOfRows = 1, class Params, class F>
void ExpectSameWithGram(Params p, const std::vector<unsigned char>& y, int pixels, int rows,
                        int part_rows, const F& launch) {
  const int parts = (rows + part_rows - 1) / part_rows;
  auto partials = NoParts<C>(p.strips * parts * kPartsOfRows * Memory::kImages);
  p.partials = partials.data();
  p.part_rows = part_rows;
  std::vector<unsigned char> same(y.size(), 0x7f);
  p.y = same.data();
  launch(p);
  EXPECT_EQ(same, y);
  ExpectGram<C, kParts>(y, pixels, partials);

  auto again = NoParts<C>(p.strips * parts * kPartsOfRows * Memory::kImages);
  p.partials = again.data();
  p.rows = part_rows;
  p.segments = parts;
  launch(p);
  EXPECT_EQ(again, partials);
}

template <int C, Maps kMaps, Products kProducts = Products::kWarps>
void TestDownsample(int height, int width, int rows, int part_rows, int channels) {
  using M = Memory;
  Generator generator(5);
  const int n = 2 * channels;
  const auto images = M::DrawBatch(generator, height, width, C, channels, kMaps);
  const auto factors = Factors(images);
  const Doubles w = generator.DrawWeights(n * channels * 16, 0.25 / std::sqrt(channels));
  std::vector<Image> expected(M::kImages, Image(height / 2, width / 2, 2 * C, n));
  for (int image = 0; image < M::kImages; ++image) {
    for (int y = 0; y < height / 2; ++y) {
      for (int q = 0; q < width / 2; ++q) {
        for (int o = 0; o < n; ++o) {
          for (int i = 0; i < channels; ++i) {
            for (int tap = 0; tap < 16; ++tap) {
              expected[image].at(y, q, o) +=
                  w[(o * channels + i) * 16 + tap] *
                  factors[image].get(2 * y - 1 + tap / 4, 2 * q - 1 + tap % 4, i);
            }
          }
        }
      }
    }
  }
  constexpr auto kInputs =
      kProducts == Products::kWarpgroup ? Packer::Order::kPlain : Packer::Order::kVecs;
  Packer packer;
  for (int first = 0; first < 2 * C; first += 16) {
    for (int tap = 0; tap < 16; ++tap) {
      packer.Rows(16, Packer::Order::kQuads, C, kInputs, [&](int o, int i) {
        o += first;
        if (o == 2 * C - 1 && i == C - 1) return tap == 5 ? 1.f : 0.f;
        return o < n && i < channels ? static_cast<float>(w[(o * channels + i) * 16 + tap]) : 0.f;
      });
    }
  }
  const auto weight = packer.Take(), x_bytes = M::Store(images, kMaps);
  auto y = M::Store(expected, kMaps);
  std::fill(y.begin(), y.end(), 0x7f);
  using Shape = DownsampleShape<C, kProducts>;
  DownsampleParams p{x_bytes.data(), y.data(), weight.data(), height, width, rows, 0, 0,
                     M::kImages};
  p.strips = (width / 2 + Shape::kColumns - 1) / Shape::kColumns;
  p.segments = (height / 2 + rows - 1) / rows;
  const auto launch = [&]<bool kGram>(const DownsampleParams& q) {
    Emulator::Instance().Launch(q.strips * q.segments * Shape::kParts * M::kImages, Shape::kThreads,
                                kGram ? Shape::kGramSharedBytes : Shape::kSharedBytes, [&] {
                                  if constexpr (Shape::kWarpgroup) {
                                    WarpgroupDownsample<C, kGram>(q).Run();
                                  } else {
                                    Downsample<C, kMaps, kGram>(q).Run();
                                  }
                                });
  };
  launch.template operator()<false>(p);
  std::vector<Image> got = expected;
  M::Load(y, kMaps, got);
  ExpectNear(got, expected, kMaps);

  if constexpr (C == 32) {
    ExpectSameWithGram<2 * C, GramParts::kQuads>(
        p, y, height / 2 * (width / 2), height / 2, part_rows,
        [&](const auto& q) { launch.template operator()<true>(q); });
  }
}

template <Products kProducts>
void TestHalfDownsample() {
  TestDownsample<32, Maps::kHalf, kProducts>(16, 72, 3, 3, 31);
  TestDownsample<32, Maps::kHalf, kProducts>(4, 64, 1, 1, 31);
  TestDownsample<32, Maps::kHalf, kProducts>(14, 84, 6, 2, 31);
  TestDownsample<32, Maps::kHalf, kProducts>(12, 24, 4, 1, 31);
  TestDownsample<64, Maps::kHalf, kProducts>(12, 24, 4, 4, 62);
  TestDownsample<64, Maps::kHalf, kProducts>(4, 68, 1, 1, 62);
}

TEST(KernelsTest, Downsample) { TestHalfDownsample<Products::kWarps>(); }

TEST(KernelsTest, DownsampleByWarpgroup) { TestHalfDownsample<Products::kWarpgroup>(); }

TEST(KernelsTest, SplitDownsample) {
  TestDownsample<32, Maps::kSplit>(10, 72, 3, 3, 31);
  TestDownsample<64, Maps::kSplit>(6, 24, 2, 2, 62);
}

template <int C, Maps kMaps, Products kProducts = Products::kWarps>
void TestUpsampleFuse(int height, int width, int rows, int part_rows, int channels) {
  using M = Memory;
  Generator generator(6);
  const auto images = M::DrawBatch(generator, height, width, 2 * C, 2 * channels, kMaps);
  const auto skips = M::DrawBatch(generator, 2 * height, 2 * width, C, channels, kMaps);
  const Doubles w = generator.DrawWeights(4 * channels * 2 * channels, 0.7 / std::sqrt(channels));
  const Doubles f = generator.DrawWeights(channels * channels, 1.0 / std::sqrt(channels));
  const Doubles bias = generator.DrawWeights(channels, 0.5);
  std::vector<Image> expected(M::kImages, Image(2 * height, 2 * width, C, channels));
  for (int image = 0; image < M::kImages; ++image) {
    const Image x = Factors(images)[image], skip = Factors(skips)[image];
    for (int y = 0; y < 2 * height; ++y) {
      for (int q = 0; q < 2 * width; ++q) {
        const int phase = 2 * (y % 2) + q % 2;
        for (int o = 0; o < channels; ++o) {
          double sum = bias[o];
          for (int i = 0; i < channels; ++i) sum += f[o * channels + i] * skip.get(y, q, i);
          for (int i = 0; i < 2 * channels; ++i) {
            sum += w[(phase * channels + o) * 2 * channels + i] * x.get(y / 2, q / 2, i);
          }
          expected[image].at(y, q, o) = sum;
        }
      }
    }
  }
  Packer weight = Packer(), skip_weight = Packer();
  constexpr bool kWarpgroup = kProducts == Products::kWarpgroup;
  constexpr auto kOut = kWarpgroup ? Packer::Order::kQuads : Packer::Order::kVecs;
  constexpr auto kIn = kWarpgroup ? Packer::Order::kPlain : Packer::Order::kVecs;
  for (int phase = 0; phase < 4; ++phase) {
    weight.Rows(C, kOut, 2 * C, kIn, [&](int o, int i) {
      return o < channels && i < 2 * channels
                 ? static_cast<float>(w[(phase * channels + o) * 2 * channels + i])
                 : 0.f;
    });
  }
  skip_weight.Rows(C, kOut, C, kIn, [&](int o, int i) {
    if (i == C - 1) return o == C - 1 ? 1.f : o < channels ? static_cast<float>(bias[o]) : 0.f;
    return o < channels && i < channels ? static_cast<float>(f[o * channels + i]) : 0.f;
  });
  const auto w_bytes = weight.Take(), s_bytes = skip_weight.Take();
  const auto x_bytes = M::Store(images, kMaps), skip_bytes = M::Store(skips, kMaps);
  std::vector<unsigned char> y(skip_bytes.size(), 0x7f);
  using Shape = UpsampleFuseShape<C, kProducts>;
  UpsampleFuseParams p{x_bytes.data(),
                       skip_bytes.data(),
                       y.data(),
                       w_bytes.data(),
                       s_bytes.data(),
                       height,
                       width,
                       rows,
                       0,
                       0,
                       M::kImages};
  p.strips = (width + Shape::kColumns - 1) / Shape::kColumns;
  p.segments = (height + rows - 1) / rows;
  const auto launch = [&]<bool kGram>(const UpsampleFuseParams& q) {
    Emulator::Instance().Launch(q.strips * q.segments * M::kImages, Shape::kThreads,
                                kGram ? Shape::kGramSharedBytes : Shape::kSharedBytes, [&] {
                                  if constexpr (kWarpgroup) {
                                    WarpgroupUpsampleFuse<C, kGram>(q).Run();
                                  } else {
                                    UpsampleFuse<C, kMaps, kGram>(q).Run();
                                  }
                                });
  };
  launch.template operator()<false>(p);
  std::vector<Image> got = expected;
  M::Load(y, kMaps, got);
  ExpectNear(got, expected, kMaps);

  ExpectSameWithGram<C, kWarpgroup ? GramParts::kQuads : GramParts::kVecs, kWarpgroup ? 2 : 1>(
      p, y, 4 * height * width, height, part_rows,
      [&](const auto& q) { launch.template operator()<true>(q); });
}

TEST(KernelsTest, UpsampleFuse) {
  TestUpsampleFuse<32, Maps::kHalf>(7, 20, 5, 5, 31);
  TestUpsampleFuse<64, Maps::kHalf>(7, 20, 6, 2, 62);
  TestUpsampleFuse<64, Maps::kHalf>(2, 16, 1, 1, 62);
}

TEST(KernelsTest, UpsampleFuseByWarpgroup) {
  TestUpsampleFuse<32, Maps::kHalf, Products::kWarpgroup>(7, 20, 5, 5, 31);
  TestUpsampleFuse<32, Maps::kHalf, Products::kWarpgroup>(7, 36, 6, 2, 31);
  TestUpsampleFuse<32, Maps::kHalf, Products::kWarpgroup>(2, 32, 1, 1, 31);
  TestUpsampleFuse<64, Maps::kHalf, Products::kWarpgroup>(7, 20, 6, 2, 62);
  TestUpsampleFuse<64, Maps::kHalf, Products::kWarpgroup>(5, 36, 3, 3, 62);
  TestUpsampleFuse<64, Maps::kHalf, Products::kWarpgroup>(2, 16, 1, 1, 62);
}

TEST(KernelsTest, SplitUpsampleFuse) {
  TestUpsampleFuse<32, Maps::kSplit>(3, 20, 2, 2, 31);
  TestUpsampleFuse<64, Maps::kSplit>(3, 20, 2, 2, 62);
}

}  // namespace
}  // namespace mstpp::cuda::kernels_testing
