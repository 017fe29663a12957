// SPDX-License-Identifier: Apache-2.0
// feed_forward, and that of warpgroups: see cuda_kernels_test.cc.
#define MSTPP_EMULATE_CUDA
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cuda/kernels/feed_forward.cuh"
#include "cuda/kernels/warpgroup_feed_forward.cuh"
#include "cuda/kernels/warpgroup_strip_feed_forward.cuh"
#include "cuda_kernels_testing.h"

namespace mstpp::cuda::kernels_testing {
namespace {

// x + d + M x + bias, products of rounded factors.
Image Attended(const Image& x, const Image& d, const Doubles& m, const Doubles& bias) {
  Image x1 = Product(Factors({x})[0], m, x.C, x.channels);
  for (int y = 0; y < x.height; ++y) {
    for (int q = 0; q < x.width; ++q) {
      for (int c = 0; c < x.channels; ++c) {
        x1.at(y, q, c) += x.get(y, q, c) + d.get(y, q, c) + bias[c];
      }
    }
  }
  return x1;
}

struct FeedForwardWeights {
  Doubles m, bias, w1, b1, taps, w2;
};

// Of x1.
Image FeedForwardReference(const Image& x1, const FeedForwardWeights& w) {
  const int channels = x1.channels, hidden = 4 * channels;
  Image normed(x1.height, x1.width, x1.C, channels);
  for (int y = 0; y < x1.height; ++y) {
    for (int q = 0; q < x1.width; ++q) {
      double mean = 0, variance = 0;
      for (int c = 0; c < channels; ++c) mean += x1.get(y, q, c) / channels;
      for (int c = 0; c < channels; ++c) {
        variance += (x1.get(y, q, c) - mean) * (x1.get(y, q, c) - mean) / channels;
      }
      for (int c = 0; c < channels; ++c) {
        normed.at(y, q, c) = (x1.get(y, q, c) - mean) / std::sqrt(variance + 1e-5);
      }
    }
  }
  Image h = Product(normed, w.w1, 4 * x1.C, hidden);
  for (int y = 0; y < x1.height; ++y) {
    for (int q = 0; q < x1.width; ++q) {
      for (int c = 0; c < hidden; ++c) h.at(y, q, c) = GeluExact(h.get(y, q, c) + w.b1[c]);
    }
  }
  h = DepthwiseReference(h, w.taps);
  for (double& e : h.data) e = GeluExact(e);
  return Product(h, w.w2, x1.C, channels);
}

// The same as the kernels want them: padded to C channels, with the biases in the column of the
// last one, W1 without its rows' means.
struct PaddedFeedForward {
  const FeedForwardWeights& w;
  int channels, C;
  float scale;  // of what GELU takes; it gives twice that

  float Matrix(int o, int i) const {
    if (o >= channels) return 0.f;
    return static_cast<float>(i == C - 1 ? w.bias[o] : i < channels ? w.m[o * channels + i] : 0.0);
  }
  float First(int o, int i) const {
    if (o >= 4 * channels) return 0.f;
    double mean = 0;
    for (int k = 0; k < channels; ++k) mean += w.w1[o * channels + k] / channels;
    return scale * static_cast<float>(i == C - 1     ? w.b1[o]
                                      : i < channels ? w.w1[o * channels + i] - mean
                                                     : 0.0);
  }
  float Tap(int c, int tap) const {
    return c < 4 * channels ? 0.5f * static_cast<float>(w.taps[c * 9 + tap]) : 0.f;
  }
  float Second(int o, int i) const {
    const int hidden = 4 * channels;
    if (o >= channels || i >= hidden) return 0.f;
    return static_cast<float>(w.w2[o * hidden + i]) / (2.0f * scale);
  }
};

// The kernel's output.
template <int C, int P, Maps kMaps, Products kProducts = Products::kWarps>
std::vector<Image> RunFeedForward(const std::vector<Image>& x, const std::vector<Image>& d,
                                  const FeedForwardWeights& w, int rows) {
  using M = Memory;
  using Shape = FeedForwardShape<C, P, kMaps, kProducts>;
  const int channels = x[0].channels, height = x[0].height, width = x[0].width,
            images = static_cast<int>(x.size());
  const PaddedFeedForward padded{w, channels, C, kGeluScale};
  Packer matrix = Packer(), first = Packer(), depthwise = Packer(), second = Packer();
  for (int image = 0; image < images; ++image) {
    if (Shape::kWarpgroup) {
      matrix.Bricks(C, C, [&](int o, int i) { return padded.Matrix(o, i); });
    } else {
      matrix.Tiles(C, kBlocks, C, kBlocks, [&](int o, int i) { return padded.Matrix(o, i); });
    }
  }
  first.Tiles(4 * C, kVecs, C, kBlocks, [&](int o, int i) { return padded.First(o, i); });
  const auto tap = [&](int c, int tap) { return padded.Tap(c, tap); };
  if (BandsFeedForward(C, kMaps)) {
    depthwise.BandedDepthwise(4 * C, tap);
  } else {
    depthwise.Depthwise(4 * C, kFeedForwardSides == Sides::kTensorCores, tap);
  }
  if (Shape::kWarpgroup) {
    second.VecBricks(C, 4 * C, [&](int o, int i) { return padded.Second(o, i); });
  } else {
    second.Tiles(C, kBlocks, 4 * C, kVecs, [&](int o, int i) { return padded.Second(o, i); });
  }
  const auto matrix_bytes = matrix.Take(), first_bytes = first.Take(),
             depthwise_bytes = depthwise.Take(), second_bytes = second.Take();
  const auto x_bytes = M::Store(x, kMaps), d_bytes = M::Store(d, Maps::kHalf);
  std::vector<unsigned char> out(x_bytes.size(), 0x7f);

  FeedForwardParams p{.x = x_bytes.data(),
                      .d = d_bytes.data(),
                      .out = out.data(),
                      .matrix = matrix_bytes.data(),
                      .weight1 = first_bytes.data(),
                      .depthwise = depthwise_bytes.data(),
                      .weight2 = second_bytes.data(),
                      .reciprocal_channels = 1.0f / static_cast<float>(channels),
                      .height = height,
                      .width = width,
                      .rows = rows,
                      .strips = StripCount(width, 8 * P, 1),
                      .segments = (height + rows - 1) / rows,
                      .images = images,
                      .rests = d_bytes.size()};
  Emulator::Instance().Launch(p.strips * p.segments * images, Shape::kWarps * 32,
                              Shape::kSharedBytes, [&] {
                                if constexpr (Shape::kWarpgroup) {
                                  WarpgroupStripFeedForward(p).Run();
                                } else {
                                  FeedForward<C, P, kMaps>(p).Run();
                                }
                              });
  std::vector<Image> got = x;
  M::Load(out, kMaps, got);
  return got;
}

// The same of the kernel for warpgroups, in `blocks` blocks.
template <int C>
std::vector<Image> RunWarpgroupFeedForward(const std::vector<Image>& x, const std::vector<Image>& d,
                                           const FeedForwardWeights& w, int blocks) {
  using M = Memory;
  using Shape = WarpgroupFeedForwardShape<C>;
  const int channels = x[0].channels, height = x[0].height, width = x[0].width,
            images = static_cast<int>(x.size());
  const PaddedFeedForward padded{w, channels, C, kShortGeluScale};
  Packer matrix, weights, taps;
  for (int image = 0; image < images; ++image) {
    matrix.Bricks(C, C, [&](int o, int i) { return padded.Matrix(o, i); });
  }
  for (int begin = 0; begin < 4 * C; begin += Shape::kHidden) {
    weights.Bricks(Shape::kHidden, C, [&](int o, int i) { return padded.First(begin + o, i); });
    weights.Bricks(C, Shape::kHidden, [&](int o, int i) { return padded.Second(o, begin + i); });
  }
  taps.Taps(4 * C, [&](int c, int tap) { return padded.Tap(c, tap); });
  const auto matrix_bytes = matrix.Take(), weight_bytes = weights.Take(), tap_bytes = taps.Take(),
             x_bytes = M::Store(x, Maps::kHalf), d_bytes = M::Store(d, Maps::kHalf);
  std::vector<unsigned char> out(x_bytes.size(), 0x7f);
  const WarpgroupFeedForwardParams p{.x = x_bytes.data(),
                                     .d = d_bytes.data(),
                                     .out = out.data(),
                                     .matrix = matrix_bytes.data(),
                                     .weights = weight_bytes.data(),
                                     .depthwise = tap_bytes.data(),
                                     .reciprocal_channels = 1.0f / static_cast<float>(channels),
                                     .height = height,
                                     .width = width,
                                     .strips = (width + Shape::kColumns - 1) / Shape::kColumns,
                                     .segments = (height + Shape::kRows - 1) / Shape::kRows,
                                     .images = images,
                                     .x_boxes = {x_bytes.data(), C, height, width},
                                     .d_boxes = {d_bytes.data(), C, height, width}};
  Emulator::Instance().Launch(blocks, Shape::kThreads, Shape::kSharedBytes,
                              [&] { WarpgroupFeedForward<C>(p).Run(); });
  std::vector<Image> got = x;
  M::Load(out, Maps::kHalf, got);
  return got;
}

std::vector<Image> DrawD(Generator& generator, const std::vector<Image>& x) {
  auto d =
      Memory::DrawBatch(generator, x[0].height, x[0].width, x[0].C, x[0].channels, Maps::kHalf);
  for (Image& image : d) {
    for (size_t i = image.C - 1; i < image.data.size(); i += image.C) image.data[i] = 0.0;
  }
  return d;
}

// `run` is given x, d and weights.
template <int C, Maps kMaps, class F>
void TestFeedForwardOf(int height, int width, int channels, const F& run) {
  Generator generator(2);
  const int hidden = 4 * channels;
  const auto x = Memory::DrawBatch(generator, height, width, C, channels, kMaps);
  const auto d = DrawD(generator, x);
  FeedForwardWeights w;
  w.m = generator.Draw(channels * channels, 0.5 / std::sqrt(channels));
  w.bias = generator.Draw(channels, 0.3);
  w.b1 = generator.Draw(hidden, 0.3);
  w.w1 = generator.Draw(hidden * channels, 1.0 / std::sqrt(channels));
  w.taps = generator.Draw(hidden * 9, 0.33);
  w.w2 = generator.Draw(channels * hidden, 0.5 / std::sqrt(hidden));
  const auto got = run(x, d, w);
  for (size_t image = 0; image < x.size(); ++image) {
    const Image x1 = Attended(x[image], d[image], w.m, w.bias);
    Image expected = FeedForwardReference(x1, w);
    for (size_t i = 0; i < expected.data.size(); ++i) expected.data[i] += x1.data[i];
    ExpectNear(got[image], expected);
  }
}

template <int C, int P, Maps kMaps, Products kProducts = Products::kWarps>
void TestFeedForward(int height, int width, int rows, int channels) {
  TestFeedForwardOf<C, kMaps>(height, width, channels, [&](auto& x, auto& d, auto& w) {
    return RunFeedForward<C, P, kMaps, kProducts>(x, d, w, rows);
  });
}
template <int C>
void TestWarpgroupFeedForward(int height, int width, int channels, int blocks) {
  TestFeedForwardOf<C, Maps::kHalf>(height, width, channels, [&](auto& x, auto& d, auto& w) {
    return RunWarpgroupFeedForward<C>(x, d, w, blocks);
  });
}

// A feed-forward network that gives the same halves everywhere: every output one hidden channel,
// which its bias alone decides. So nothing but x1 and the sum is rounded.
template <int C, int P>
void TestSplitResidual(int height, int width, int rows, int channels) {
  Generator generator(12);
  const int hidden = 4 * channels;
  const auto x = Memory::DrawBatch(generator, height, width, C, channels, Maps::kSplit);
  const auto d = DrawD(generator, x);
  FeedForwardWeights w;
  w.m = generator.DrawWeights(channels * channels, 0.5 / std::sqrt(channels));
  w.bias = generator.DrawWeights(channels, 0.3);
  w.b1 = generator.DrawWeights(hidden, 2.0);
  w.w1.assign(hidden * channels, 0.0);
  w.taps.assign(hidden * 9, 0.0);
  w.w2.assign(channels * hidden, 0.0);
  for (int c = 0; c < hidden; ++c) w.taps[c * 9 + 4] = 2.0;
  Doubles given(channels);
  for (int c = 0; c < channels; ++c) {
    const int from = c * 37 % hidden;
    w.w2[c * hidden + from] = c % 2 == 0 ? 1.0 : -1.0;
    HalfPair z[1] = {{HalfPack(kGeluScale * static_cast<float>(w.b1[from]), 0.f)}};
    Gelu(z);  // times 2, and halved for the second
    Gelu(z);
    given[c] = w.w2[c * hidden + from] * HalfLow(z[0].bits);
  }
  const auto got = RunFeedForward<C, P, Maps::kSplit>(x, d, w, rows);
  for (size_t image = 0; image < x.size(); ++image) {
    Image expected = Attended(x[image], d[image], w.m, w.bias);
    for (int y = 0; y < height; ++y) {
      for (int q = 0; q < width; ++q) {
        for (int c = 0; c < channels; ++c) expected.at(y, q, c) += given[c];
      }
    }
    ExpectNear(got[image], expected, true, 0x1p-20);
  }
}

TEST(KernelsTest, FeedForward) {
  TestFeedForward<32, 4, Maps::kHalf>(8, 40, 4, 31);
  TestFeedForward<32, 4, Maps::kHalf>(5, 70, 4, 31);  // a strip all inside
  TestFeedForward<64, 4, Maps::kHalf>(4, 16, 2, 62);
  TestFeedForward<128, 2, Maps::kHalf>(4, 16, 4, 124);
}

TEST(KernelsTest, FeedForwardByWarpgroup) {
  constexpr Products kProducts = Products::kWarpgroup;
  TestFeedForward<32, 4, Maps::kHalf, kProducts>(8, 40, 4, 31);
  TestFeedForward<32, 4, Maps::kHalf, kProducts>(5, 70, 4, 31);
  TestFeedForward<32, 4, Maps::kHalf, kProducts>(1, 1, 2, 31);
  TestFeedForward<32, 4, Maps::kHalf, kProducts>(19, 33, 6, 31);
}

TEST(KernelsTest, WarpgroupFeedForward) {
  TestWarpgroupFeedForward<64>(11, 20, 62, 3);
  TestWarpgroupFeedForward<128>(3, 5, 124, 9);
  TestWarpgroupFeedForward<128>(9, 18, 124, 3);
}

TEST(KernelsTest, SplitFeedForward) {
  TestFeedForward<32, 4, Maps::kSplit>(4, 40, 4, 31);
  TestFeedForward<32, 4, Maps::kSplit>(3, 70, 4, 31);
  TestFeedForward<64, 4, Maps::kSplit>(4, 16, 2, 62);
  TestFeedForward<128, 2, Maps::kSplit>(2, 16, 2, 124);
}

TEST(KernelsTest, SplitResidual) {
  TestSplitResidual<32, 4>(8, 40, 4, 31);
  TestSplitResidual<64, 4>(5, 40, 2, 62);
  TestSplitResidual<128, 2>(6, 20, 4, 124);
}

}  // namespace
}  // namespace mstpp::cuda::kernels_testing
