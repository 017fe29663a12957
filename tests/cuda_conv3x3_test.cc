// SPDX-License-Identifier: Apache-2.0
// The 3 x 3 convolutions, from the picture and to the cube too: see cuda_kernels_test.cc.
#define MSTPP_EMULATE_CUDA
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cuda/kernels/conv3x3.cuh"
#include "cuda/kernels/image_conv.cuh"
#include "cuda/kernels/warpgroup_conv3x3.cuh"
#include "cuda_kernels_testing.h"

namespace mstpp::cuda::kernels_testing {
namespace {

// The kernel's two forms.
template <Maps kOfMaps>
struct WarpConv {
  static constexpr Maps kMaps = kOfMaps;
  static constexpr auto kOrder = Packer::Order::kVecs;
  using Shape = ConvShape<kMaps>;
  template <bool kCube, class Writer = CubeWriter, bool kGram = false>
  using Kernel = Conv3x3<kCube, kMaps, Writer, kGram>;
};
struct WarpgroupConv {
  static constexpr Maps kMaps = Maps::kHalf;
  static constexpr auto kOrder = Packer::Order::kPlain;
  using Shape = WarpgroupConvShape;
  template <bool kCube, class Writer = CubeWriter, bool kGram = false>
  using Kernel = WarpgroupConv3x3<kCube, Writer, kGram>;
};

// Of n channels, weights [output][input][tap]; `one`: the last channel of all stays 1.
std::vector<unsigned char> PackConv3x3(const Doubles& w, int n, bool one, Packer::Order order) {
  Packer packer;
  for (int first = 0; first < 32; first += 16) {
    for (int tap = 0; tap < 9; ++tap) {
      packer.Rows(16, Packer::Order::kQuads, 32, order, [&](int o, int i) {
        o += first;
        if (o == 31 && i == 31) return tap == 4 && one ? 1.f : 0.f;
        return o < n && i < n ? static_cast<float>(w[(o * n + i) * 9 + tap]) : 0.f;
      });
    }
  }
  return packer.Take();
}

// Dense convolutions, weights [output][input][tap].
template <class Conv>
void TestConv3x3(int height, int width, int rows, bool with_residual) {
  using M = Memory;
  constexpr Maps kMaps = Conv::kMaps;
  const int n = 31;
  Generator generator(3);
  const auto images = M::DrawBatch(generator, height, width, 32, n, kMaps);
  const auto residuals = M::DrawBatch(generator, height, width, 32, n, kMaps);
  const auto factors = Factors(images);
  const Doubles w = generator.DrawWeights(n * n * 9, 0.06);
  std::vector<Image> expected(M::kImages, Image(height, width, 32, n));
  for (int image = 0; image < M::kImages; ++image) {
    for (int y = 0; y < height; ++y) {
      for (int q = 0; q < width; ++q) {
        for (int o = 0; o < n; ++o) {
          double sum = with_residual ? residuals[image].get(y, q, o) : 0.0;
          for (int i = 0; i < n; ++i) {
            for (int tap = 0; tap < 9; ++tap) {
              sum += w[(o * n + i) * 9 + tap] *
                     factors[image].get(y + tap / 3 - 1, q + tap % 3 - 1, i);
            }
          }
          expected[image].at(y, q, o) = sum;
        }
      }
    }
  }
  const auto weight = PackConv3x3(w, n, !with_residual, Conv::kOrder);
  const auto x_bytes = M::Store(images, kMaps), r_bytes = M::Store(residuals, kMaps);
  std::vector<unsigned char> y(x_bytes.size(), 0x7f);
  using Shape = typename Conv::Shape;
  ConvParams p{.x = x_bytes.data(),
               .residual = with_residual ? r_bytes.data() : nullptr,
               .y = y.data(),
               .weight = weight.data(),
               .partials = nullptr,
               .io = nullptr,
               .channels = n,
               .height = height,
               .width = width,
               .rows = rows,
               .strips = (width + Shape::kColumns - 1) / Shape::kColumns,
               .segments = (height + rows - 1) / rows,
               .images = M::kImages};
  const int blocks = p.strips * p.segments * M::kImages;
  Emulator::Instance().Launch(blocks, Shape::kThreads, Shape::kSharedBytes,
                              [&] { typename Conv::template Kernel<false>(p).Run(); });
  std::vector<Image> got = expected;
  M::Load(y, kMaps, got);
  ExpectNear(got, expected, kMaps);

  // The same with S on the way.
  if (!with_residual) {
    auto partials = NoParts<32>(blocks);
    p.partials = partials.data();
    std::vector<unsigned char> same(y.size(), 0x7f);
    p.y = same.data();
    Emulator::Instance().Launch(blocks, Shape::kThreads, Shape::kSharedBytes, [&] {
      typename Conv::template Kernel<false, CubeWriter, true>(p).Run();
    });
    EXPECT_EQ(same, y);
    ExpectGram<32, GramParts::kQuads>(y, height * width, partials);
  }

  // The same into a cube, cropped: channels first, with rows of odd and of even length, and last.
  const int h = height - 1;
  for (const int q_count : {width - 3, width / 4 * 4 - 2}) {
    for (const bool channels_last : {false, true}) {
      const int64_t size = static_cast<int64_t>(n) * h * q_count;
      std::vector<float> cube(M::kImages * size + 1, NAN);
      NetworkIo io = {};
      io.cube = cube.data();
      io.cube_height = h;
      io.cube_width = q_count;
      const int64_t strides[4] = {size, channels_last ? 1 : static_cast<int64_t>(h) * q_count,
                                  channels_last ? q_count * n : q_count, channels_last ? n : 1};
      std::copy_n(strides, 4, io.cube_stride);
      p.io = &io;
      Emulator::Instance().Launch(blocks, Shape::kThreads, Shape::kSharedBytes,
                                  [&] { typename Conv::template Kernel<true>(p).Run(); });
      for (int i = 0; i < M::kImages * n; ++i) {
        const int image = i / n, o = i % n;
        for (int r = 0; r < h; ++r) {
          for (int q = 0; q < q_count; ++q) {
            ASSERT_NEAR(cube[image * size + o * strides[1] + r * strides[2] + q * strides[3]],
                        expected[image].get(r, q, o), 1e-5)
                << image << " " << o << " " << r << " " << q;
          }
        }
      }
      ASSERT_TRUE(std::isnan(cube.back()));
    }
  }
}

TEST(KernelsTest, Conv3x3) {
  TestConv3x3<WarpConv<Maps::kHalf>>(8, 24, 3, false);
  TestConv3x3<WarpConv<Maps::kHalf>>(8, 72, 8, true);
  TestConv3x3<WarpConv<Maps::kHalf>>(4, 40, 1, true);
  TestConv3x3<WarpConv<Maps::kHalf>>(4, 32, 2, false);
  TestConv3x3<WarpConv<Maps::kHalf>>(5, 44, 1, false);
}

// A cube of halves has the bits of one of floats, rounded; nothing is written behind a picture's.
template <class Conv>
void TestHalfCube(int channels, int height, int width, int rows, int h, int w) {
  using M = Memory;
  constexpr Maps kMaps = Conv::kMaps;
  constexpr int kImages = 2;
  Generator generator(7);
  // The pictures below one another.
  const auto x = M::Store(M::Draw(generator, kImages * height, width, 32, channels));
  const auto residual = M::Store(
      std::vector{M::Draw(generator, kImages * height, width, 32, channels, kMaps)}, kMaps);
  const auto weight = PackConv3x3(generator.Draw(channels * channels * 9, 0.06), channels,
                                  /*one=*/false, Conv::kOrder);
  using Shape = typename Conv::Shape;
  NetworkIo io = {};
  io.cube_height = h;
  io.cube_width = w;
  const ConvParams p{.x = x.data(),
                     .residual = residual.data(),
                     .y = nullptr,
                     .weight = weight.data(),
                     .partials = nullptr,
                     .io = &io,
                     .channels = channels,
                     .height = height,
                     .width = width,
                     .rows = rows,
                     .strips = (width + Shape::kColumns - 1) / Shape::kColumns,
                     .segments = (height + rows - 1) / rows,
                     .images = kImages};
  const auto run = [&](void* cube, int64_t row, auto conv) {
    io.cube = cube;
    const int64_t strides[4] = {channels * h * row, h * row, row, 1};
    std::copy_n(strides, 4, io.cube_stride);
    Emulator::Instance().Launch(p.strips * p.segments * p.images, Shape::kThreads,
                                Shape::kSharedBytes, conv);
  };
  const size_t count = static_cast<size_t>(kImages) * channels * h;
  std::vector<float> floats(count * w, NAN);
  run(floats.data(), w, [&] { typename Conv::template Kernel<true>(p).Run(); });
  constexpr uint16_t kUnwritten = 0x7abc;
  std::vector<uint16_t> halves(count * HalfRow(w) + 8, kUnwritten);
  run(halves.data(), HalfRow(w),
      [&] { typename Conv::template Kernel<true, HalfCubeWriter>(p).Run(); });
  for (size_t row = 0; row < count; ++row) {
    for (int q = 0; q < w; ++q) {
      ASSERT_EQ(halves[row * HalfRow(w) + q], HalfPack(floats[row * w + q], 0.f))
          << row / h << " " << row % h << " " << q;
    }
  }
  for (int i = 0; i < 8; ++i) ASSERT_EQ(halves[count * HalfRow(w) + i], kUnwritten);
}

TEST(KernelsTest, HalfCube) {
  TestHalfCube<WarpConv<Maps::kHalf>>(31, 8, 40, 3, 8, 40);
  TestHalfCube<WarpConv<Maps::kHalf>>(31, 8, 72, 8, 5, 67);
  TestHalfCube<WarpConv<Maps::kHalf>>(29, 8, 32, 2, 7, 25);
  TestHalfCube<WarpConv<Maps::kHalf>>(25, 8, 8, 8, 1, 1);
  TestHalfCube<WarpConv<Maps::kSplit>>(31, 8, 72, 8, 5, 67);
}

TEST(KernelsTest, Conv3x3ByWarpgroup) {
  TestConv3x3<WarpgroupConv>(8, 24, 3, false);
  TestConv3x3<WarpgroupConv>(8, 72, 8, true);
  TestConv3x3<WarpgroupConv>(4, 40, 1, true);
  TestConv3x3<WarpgroupConv>(4, 32, 2, false);
  TestConv3x3<WarpgroupConv>(5, 44, 1, false);
  TestConv3x3<WarpgroupConv>(21, 36, 20, false);
  TestConv3x3<WarpgroupConv>(23, 34, 22, true);
  TestHalfCube<WarpgroupConv>(31, 8, 72, 8, 5, 67);
  TestHalfCube<WarpgroupConv>(29, 8, 32, 2, 7, 25);
}

TEST(KernelsTest, SplitConv3x3) {
  TestConv3x3<WarpConv<Maps::kSplit>>(8, 72, 8, true);
  TestConv3x3<WarpConv<Maps::kSplit>>(4, 40, 1, true);
  TestConv3x3<WarpConv<Maps::kSplit>>(5, 32, 2, false);
}

template <Maps kMaps>
void TestImageConv(bool reflect, bool channels_last) {
  using M = Memory;
  const int h = 13, w = 69, height = 16, width = 72, n = 31;
  Generator generator(4);
  std::vector<float> picture(M::kImages * 3 * h * w);
  for (float& v : picture) v = static_cast<float>(generator.Draw(1.0));
  const Doubles weights = generator.Draw(n * 27, 0.2);
  NetworkIo io = {};
  io.image = picture.data();
  const int64_t strides[4] = {3 * h * w, channels_last ? 1 : h * w, channels_last ? 3 * w : w,
                              channels_last ? 3 : 1};
  std::copy_n(strides, 4, io.image_stride);
  io.height = h;
  io.width = w;
  io.reflect = reflect;
  std::vector<Image> expected(M::kImages, Image(height, width, 32, n));
  for (int image = 0; image < M::kImages; ++image) {
    Image padded(height, width, 3, 3);
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        if (!reflect && (y >= h || x >= w)) continue;
        const int from_y = y < h ? y : 2 * h - 2 - y, from_x = x < w ? x : 2 * w - 2 - x;
        for (int c = 0; c < 3; ++c) {
          padded.at(y, x, c) = picture[image * strides[0] + c * strides[1] + from_y * strides[2] +
                                       from_x * strides[3]];
        }
      }
    }
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        for (int o = 0; o < n; ++o) {
          for (int i = 0; i < 27; ++i) {
            expected[image].at(y, x, o) +=
                weights[o * 27 + i] * padded.get(y + i / 3 / 3 - 1, x + i / 3 % 3 - 1, i % 3);
          }
        }
      }
    }
  }
  const auto weight_at = [&](int o, int i) {
    const int dy = i / 16, dx = i % 16 / 4, channel = i % 4;
    if (channel == 3) return o == 31 && dy == 1 && dx == 1 ? 1.f : 0.f;
    return o < n && dx < 3 ? static_cast<float>(weights[o * 27 + (dy * 3 + dx) * 3 + channel])
                           : 0.f;
  };
  Packer packer;
  packer.Rows(32, Packer::Order::kVecs, 48, Packer::Order::kQuads, weight_at);
  packer.Rows(32, Packer::Order::kVecs, 48, Packer::Order::kQuads,
              [&](int o, int i) { return HalfRest(weight_at(o, i)); });
  const auto weight = packer.Take();
  auto y = M::Store(expected, kMaps);
  std::fill(y.begin(), y.end(), 0x7f);
  using Shape = ImageConvShape<kMaps>;
  ImageConvParams p{.io = &io,
                    .y = y.data(),
                    .weight = weight.data(),
                    .in_channels = 3,
                    .height = height,
                    .width = width,
                    .strips = (width + Shape::kColumns - 1) / Shape::kColumns,
                    .segments = (height + Shape::kRows - 1) / Shape::kRows,
                    .images = M::kImages};
  Emulator::Instance().Launch(p.strips * p.segments * M::kImages, Shape::kWarps * 32,
                              Shape::kSharedBytes, [&] { ImageConvBody<kMaps>(p); });
  std::vector<Image> got = expected;
  M::Load(y, kMaps, got);
  ExpectNear(got, expected, kMaps);
}

TEST(KernelsTest, ImageConv) {
  for (const bool reflect : {false, true}) {
    for (const bool channels_last : {false, true}) {
      TestImageConv<Maps::kHalf>(reflect, channels_last);
    }
  }
}

TEST(KernelsTest, SplitImageConv) {
  TestImageConv<Maps::kSplit>(true, false);
  TestImageConv<Maps::kSplit>(false, true);
}

}  // namespace
}  // namespace mstpp::cuda::kernels_testing
