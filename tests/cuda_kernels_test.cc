// SPDX-License-Identifier: Apache-2.0
// The fused kernels' device code on the CPU (cuda_emulator.h) against the blocks' equations
// in float64. Needs the CUDA headers, no GPU.
#define MSTPP_EMULATE_CUDA
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cuda/kernels/attention_matrix.cuh"
#include "cuda/kernels/conv3x3.cuh"
#include "cuda/kernels/downsample.cuh"
#include "cuda/kernels/feed_forward.cuh"
#include "cuda/kernels/gram.cuh"
#include "cuda/kernels/image_conv.cuh"
#include "cuda/kernels/position.cuh"
#include "cuda/kernels/upsample_fuse.cuh"
#include "cuda/kernels/warpgroup_feed_forward.cuh"
#include "cuda/pack.h"

namespace mstpp::cuda {
namespace {

using Doubles = std::vector<double>;

// A feature map of C channels, of which the last is 1 and those from `channels` on are 0.
struct Image {
  int height, width, C, channels;
  Doubles data;
  Image(int h, int w, int c, int n) : height(h), width(w), C(c), channels(n) {
    data.assign(static_cast<size_t>(h) * w * c, 0.0);
  }
  double& at(int y, int x, int c) { return data[(static_cast<size_t>(y) * width + x) * C + c]; }
  double get(int y, int x, int c) const {
    if (y < 0 || x < 0 || y >= height || x >= width) return 0.0;
    return data[(static_cast<size_t>(y) * width + x) * C + c];
  }
};

double Rounded(double value) { return HalfLow(HalfPack(static_cast<float>(value), 0.f)); }

class Generator {
 public:
  explicit Generator(unsigned seed) : engine_(seed) {}
  double Draw(double deviation) { return deviation * normal_(engine_); }
  Doubles Draw(size_t count, double deviation) {
    Doubles values(count);
    for (double& v : values) v = Draw(deviation);
    return values;
  }
  // Halves.
  Doubles DrawWeights(size_t count, double deviation) {
    Doubles values(count);
    for (double& v : values) v = Rounded(Draw(deviation));
    return values;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<double> normal_;
};

// Feature maps of halves, or split.
struct Memory {
  static void Put(unsigned char* to, double value) {
    const uint32_t bits = HalfPack(static_cast<float>(value), 0.f);
    std::memcpy(to, &bits, 2);
  }
  static double Get(const unsigned char* from) {
    uint16_t bits;
    std::memcpy(&bits, from, 2);
    return HalfLow(bits);
  }
  static std::vector<unsigned char> Store(const Image& image) {
    std::vector<unsigned char> bytes(image.data.size() * 2);
    for (size_t i = 0; i < image.data.size(); ++i) Put(&bytes[i * 2], image.data[i]);
    return bytes;
  }
  static void Load(const std::vector<unsigned char>& bytes, Image& image) {
    for (size_t i = 0; i < image.data.size(); ++i) image.data[i] = Get(&bytes[i * 2]);
  }

  // A batch: its numbers, then if they are split all their rests.
  static std::vector<unsigned char> Store(const std::vector<Image>& images, Maps maps) {
    std::vector<unsigned char> bytes;
    for (int part = 0; part < (maps == Maps::kSplit ? 2 : 1); ++part) {
      for (Image image : images) {
        if (part == 1) {
          for (double& v : image.data) v -= Rounded(v);
        }
        const auto more = Store(image);
        bytes.insert(bytes.end(), more.begin(), more.end());
      }
    }
    return bytes;
  }
  static void Load(const std::vector<unsigned char>& bytes, Maps maps, std::vector<Image>& images) {
    size_t at = 0;
    for (int part = 0; part < (maps == Maps::kSplit ? 2 : 1); ++part) {
      for (Image& image : images) {
        for (double& v : image.data) {
          v = (part == 1 ? v : 0.0) + Get(&bytes[at]);
          at += 2;
        }
      }
    }
  }

  // Random, already rounded as stored.
  static Image Draw(Generator& generator, int h, int w, int C, int channels,
                    Maps maps = Maps::kHalf) {
    Image image(h, w, C, channels);
    for (int y = 0; y < h; ++y) {
      for (int x = 0; x < w; ++x) {
        for (int c = 0; c < channels; ++c) {
          const double value = generator.Draw(1.0) + 0.3, rounded = Rounded(value);
          image.at(y, x, c) = rounded + (maps == Maps::kSplit ? Rounded(value - rounded) : 0.0);
        }
        image.at(y, x, C - 1) = 1.0;
      }
    }
    return image;
  }
  static std::vector<Image> DrawBatch(Generator& generator, int h, int w, int C, int channels,
                                      Maps maps) {
    std::vector<Image> images;
    for (int i = 0; i < kImages; ++i) {
      images.push_back(Draw(generator, h, w, C, channels, maps));
    }
    return images;
  }
  static constexpr int kImages = 2;
};

// As factors of products.
std::vector<Image> Factors(std::vector<Image> images) {
  for (Image& image : images) {
    for (double& v : image.data) v = Rounded(v);
  }
  return images;
}

// || a - b || / || b || over the network's channels, and that the last channel is 1.
void ExpectNear(const Image& got, const Image& expected, bool has_one = true,
                double tolerance = 4e-3) {
  double error = 0, norm = 0;
  for (int y = 0; y < got.height; ++y) {
    for (int x = 0; x < got.width; ++x) {
      for (int c = 0; c < got.channels; ++c) {
        const double d = got.get(y, x, c) - expected.get(y, x, c);
        ASSERT_TRUE(std::isfinite(d)) << y << " " << x << " " << c;
        error += d * d;
        norm += expected.get(y, x, c) * expected.get(y, x, c);
      }
      for (int c = got.channels; c < got.C; ++c) {
        ASSERT_EQ(got.get(y, x, c), has_one && c == got.C - 1 ? 1.0 : 0.0)
            << y << " " << x << " " << c;
      }
    }
  }
  EXPECT_LT(std::sqrt(error / norm), tolerance);
}
// The results of products with rounded factors: of split maps no more is lost than sums in FP32 and
// the rests' digits allow, where halves alone are off by 2e-4.
void ExpectNear(const std::vector<Image>& got, const std::vector<Image>& expected, Maps maps) {
  for (size_t i = 0; i < got.size(); ++i) {
    ExpectNear(got[i], expected[i], true, maps == Maps::kSplit ? 0x1p-20 : 4e-3);
  }
}

constexpr auto kVecs = Packer::Lanes::kVecs, kBlocks = Packer::Lanes::kBlocks;

double GeluExact(double x) { return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0))); }

Image DepthwiseReference(const Image& x, const Doubles& w) {  // [channel][tap]
  Image y(x.height, x.width, x.C, x.channels);
  for (int r = 0; r < x.height; ++r) {
    for (int q = 0; q < x.width; ++q) {
      for (int c = 0; c < x.channels; ++c) {
        for (int tap = 0; tap < 9; ++tap) {
          y.at(r, q, c) += w[c * 9 + tap] * x.get(r + tap / 3 - 1, q + tap % 3 - 1, c);
        }
      }
    }
  }
  return y;
}

// y[o] = sum of w[o][i] x[i], channels only.
Image Product(const Image& x, const Doubles& w, int C, int outputs) {
  Image y(x.height, x.width, C, outputs);
  for (int r = 0; r < x.height; ++r) {
    for (int q = 0; q < x.width; ++q) {
      for (int o = 0; o < outputs; ++o) {
        for (int i = 0; i < x.channels; ++i) {
          y.at(r, q, o) += w[o * x.channels + i] * x.get(r, q, i);
        }
      }
    }
  }
  return y;
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
template <int C, int P, Maps kMaps>
std::vector<Image> RunFeedForward(const std::vector<Image>& x, const std::vector<Image>& d,
                                  const FeedForwardWeights& w, int rows) {
  using M = Memory;
  const int channels = x[0].channels, height = x[0].height, width = x[0].width,
            images = static_cast<int>(x.size());
  const PaddedFeedForward padded{w, channels, C, kGeluScale};
  Packer matrix = Packer(), first = Packer(), depthwise = Packer(), second = Packer();
  for (int image = 0; image < images; ++image) {
    matrix.Tiles(C, kBlocks, C, kBlocks, [&](int o, int i) { return padded.Matrix(o, i); });
  }
  first.Tiles(4 * C, kVecs, C, kBlocks, [&](int o, int i) { return padded.First(o, i); });
  const auto tap = [&](int c, int tap) { return padded.Tap(c, tap); };
  if (BandsFeedForward(C, kMaps)) {
    depthwise.BandedDepthwise(4 * C, tap);
  } else {
    depthwise.Depthwise(4 * C, kFeedForwardSides == Sides::kTensorCores, tap);
  }
  second.Tiles(C, kBlocks, 4 * C, kVecs, [&](int o, int i) { return padded.Second(o, i); });
  const auto matrix_bytes = matrix.Take(), first_bytes = first.Take(),
             depthwise_bytes = depthwise.Take(), second_bytes = second.Take();
  const auto x_bytes = M::Store(x, kMaps), d_bytes = M::Store(d, Maps::kHalf);
  std::vector<unsigned char> out(x_bytes.size(), 0x7f);

  using Shape = FeedForwardShape<C, P, kMaps>;
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
                              Shape::kSharedBytes, [&] { FeedForward<C, P, kMaps>(p).Run(); });
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

template <int C, int P, Maps kMaps>
void TestFeedForward(int height, int width, int rows, int channels) {
  TestFeedForwardOf<C, kMaps>(height, width, channels, [&](auto& x, auto& d, auto& w) {
    return RunFeedForward<C, P, kMaps>(x, d, w, rows);
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

TEST(KernelsTest, PackerSaysWhetherWeightsAreHalves) {
  for (const float largest : {65504.f, 65519.f, 65520.f, -1e9f, INFINITY}) {
    Packer packer;
    packer.Rows(16, Packer::Order::kQuads, 16, Packer::Order::kQuads,
                [&](int o, int i) { return o == 3 && i == 5 ? largest : 1.f; });
    EXPECT_EQ(packer.finite(), largest == 65504.f || largest == 65519.f) << largest;
  }
  EXPECT_EQ(HalfRest(1.0f + 0x1p-12f), 0x1p-12f);
}

TEST(KernelsTest, Position) {
  TestPosition<32, 4>(8, 40, 6, 31);
  TestPosition<64, 4>(4, 16, 4, 62);
  TestPosition<128, 2>(4, 8, 2, 124);
}

TEST(KernelsTest, FeedForward) {
  TestFeedForward<32, 4, Maps::kHalf>(8, 40, 4, 31);
  TestFeedForward<32, 4, Maps::kHalf>(5, 70, 4, 31);  // a strip all inside
  TestFeedForward<64, 4, Maps::kHalf>(4, 16, 2, 62);
  TestFeedForward<128, 2, Maps::kHalf>(4, 16, 4, 124);
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

// That the parts which a kernel left of S give the S of the halves in the maps that it wrote.
template <int C, GramParts kParts>
void ExpectGram(const std::vector<unsigned char>& y, int pixels,
                const std::vector<float>& partials) {
  constexpr int kPartFloats = Gram16Shape<C>::kAllTiles * 128;
  const int blocks = static_cast<int>(partials.size()) / kPartFloats / Memory::kImages;
  std::vector<float> s(Memory::kImages * C * C, NAN);
  const GramReduceParams p{partials.data(), s.data(), blocks, C * C, Memory::kImages};
  Emulator::Instance().Launch(kReduceBlocks<C> * p.images, kReduceThreads, kReduceThreads * 16,
                              [&] { Gram16ReduceBody<C, kParts>(p); });
  for (int image = 0; image < Memory::kImages; ++image) {
    Doubles expected(C * C, 0.0), pixel(C);
    for (int q = 0; q < pixels; ++q) {
      for (int c = 0; c < C; ++c) {
        pixel[c] = Memory::Get(&y[((static_cast<size_t>(image) * pixels + q) * C + c) * 2]);
      }
      for (int i = 0; i < C; ++i) {
        for (int j = 0; j < C; ++j) expected[i * C + j] += pixel[i] * pixel[j];
      }
    }
    for (int i = 0; i < C * C; ++i) {
      ASSERT_NEAR(s[image * C * C + i], expected[i], 1e-5 * pixels)
          << image << " " << i / C << " " << i % C;
    }
  }
}
// Parts of S, and nothing in them yet.
template <int C>
std::vector<float> NoParts(int count) {
  return std::vector<float>(static_cast<size_t>(count) * Gram16Shape<C>::kAllTiles * 128, NAN);
}

// Of n channels, weights [output][input][tap]; `one`: the last channel of all stays 1.
std::vector<unsigned char> PackConv3x3(const Doubles& w, int n, bool one) {
  Packer packer;
  for (int first = 0; first < 32; first += 16) {
    for (int tap = 0; tap < 9; ++tap) {
      packer.Rows(16, Packer::Order::kQuads, 32, Packer::Order::kVecs, [&](int o, int i) {
        o += first;
        if (o == 31 && i == 31) return tap == 4 && one ? 1.f : 0.f;
        return o < n && i < n ? static_cast<float>(w[(o * n + i) * 9 + tap]) : 0.f;
      });
    }
  }
  return packer.Take();
}

// Dense convolutions, weights [output][input][tap].
template <Maps kMaps>
void TestConv3x3(int height, int width, int rows, bool with_residual) {
  using M = Memory;
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
  const auto weight = PackConv3x3(w, n, !with_residual);
  const auto x_bytes = M::Store(images, kMaps), r_bytes = M::Store(residuals, kMaps);
  std::vector<unsigned char> y(x_bytes.size(), 0x7f);
  using Shape = ConvShape<kMaps>;
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
                              [&] { Conv3x3<false, kMaps>(p).Run(); });
  std::vector<Image> got = expected;
  M::Load(y, kMaps, got);
  ExpectNear(got, expected, kMaps);

  // The same with S on the way.
  if (!with_residual) {
    auto partials = NoParts<32>(blocks);
    p.partials = partials.data();
    std::vector<unsigned char> same(y.size(), 0x7f);
    p.y = same.data();
    Emulator::Instance().Launch(blocks, Shape::kThreads, Shape::kSharedBytes,
                                [&] { Conv3x3<false, kMaps, CubeWriter, true>(p).Run(); });
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
                                  [&] { Conv3x3<true, kMaps>(p).Run(); });
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
  TestConv3x3<Maps::kHalf>(8, 24, 3, false);
  TestConv3x3<Maps::kHalf>(8, 72, 8, true);
  TestConv3x3<Maps::kHalf>(4, 40, 1, true);
  TestConv3x3<Maps::kHalf>(4, 32, 2, false);
  TestConv3x3<Maps::kHalf>(5, 44, 1, false);
}

// A cube of halves has the bits of one of floats, rounded; nothing is written behind a picture's.
template <Maps kMaps>
void TestHalfCube(int channels, int height, int width, int rows, int h, int w) {
  using M = Memory;
  constexpr int kImages = 2;
  Generator generator(7);
  // The pictures below one another.
  const auto x = M::Store(M::Draw(generator, kImages * height, width, 32, channels));
  const auto residual = M::Store(
      std::vector{M::Draw(generator, kImages * height, width, 32, channels, kMaps)}, kMaps);
  const auto weight =
      PackConv3x3(generator.Draw(channels * channels * 9, 0.06), channels, /*one=*/false);
  using Shape = ConvShape<kMaps>;
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
  run(floats.data(), w, [&] { Conv3x3<true, kMaps>(p).Run(); });
  constexpr uint16_t kUnwritten = 0x7abc;
  std::vector<uint16_t> halves(count * HalfRow(w) + 8, kUnwritten);
  run(halves.data(), HalfRow(w), [&] { Conv3x3<true, kMaps, HalfCubeWriter>(p).Run(); });
  for (size_t row = 0; row < count; ++row) {
    for (int q = 0; q < w; ++q) {
      ASSERT_EQ(halves[row * HalfRow(w) + q], HalfPack(floats[row * w + q], 0.f))
          << row / h << " " << row % h << " " << q;
    }
  }
  for (int i = 0; i < 8; ++i) ASSERT_EQ(halves[count * HalfRow(w) + i], kUnwritten);
}

TEST(KernelsTest, HalfCube) {
  TestHalfCube<Maps::kHalf>(31, 8, 40, 3, 8, 40);
  TestHalfCube<Maps::kHalf>(31, 8, 72, 8, 5, 67);
  TestHalfCube<Maps::kHalf>(29, 8, 32, 2, 7, 25);
  TestHalfCube<Maps::kHalf>(25, 8, 8, 8, 1, 1);
  TestHalfCube<Maps::kSplit>(31, 8, 72, 8, 5, 67);
}

TEST(KernelsTest, SplitConv3x3) {
  TestConv3x3<Maps::kSplit>(8, 72, 8, true);
  TestConv3x3<Maps::kSplit>(4, 40, 1, true);
  TestConv3x3<Maps::kSplit>(5, 32, 2, false);
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

template <int C, Maps kMaps>
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
  Packer packer;
  for (int first = 0; first < 2 * C; first += 16) {
    for (int tap = 0; tap < 16; ++tap) {
      packer.Rows(16, Packer::Order::kQuads, C, Packer::Order::kVecs, [&](int o, int i) {
        o += first;
        if (o == 2 * C - 1 && i == C - 1) return tap == 5 ? 1.f : 0.f;
        return o < n && i < channels ? static_cast<float>(w[(o * channels + i) * 16 + tap]) : 0.f;
      });
    }
  }
  const auto weight = packer.Take(), x_bytes = M::Store(images, kMaps);
  auto y = M::Store(expected, kMaps);
  std::fill(y.begin(), y.end(), 0x7f);
  using Shape = DownsampleShape<C>;
  DownsampleParams p{x_bytes.data(), y.data(), weight.data(), height, width, rows, 0, 0,
                     M::kImages};
  p.strips = (width / 2 + Shape::kColumns - 1) / Shape::kColumns;
  p.segments = (height / 2 + rows - 1) / rows;
  Emulator::Instance().Launch(p.strips * p.segments * Shape::kParts * M::kImages, Shape::kThreads,
                              Shape::kSharedBytes, [&] { Downsample<C, kMaps>(p).Run(); });
  std::vector<Image> got = expected;
  M::Load(y, kMaps, got);
  ExpectNear(got, expected, kMaps);

  // The same with S on the way.
  if constexpr (C == 32) {
    const int parts = (height / 2 + part_rows - 1) / part_rows;
    auto partials = NoParts<2 * C>(p.strips * parts * M::kImages);
    p.partials = partials.data();
    p.part_rows = part_rows;
    std::vector<unsigned char> same(y.size(), 0x7f);
    p.y = same.data();
    Emulator::Instance().Launch(p.strips * p.segments * M::kImages, Shape::kThreads,
                                Shape::kGramSharedBytes,
                                [&] { Downsample<C, kMaps, true>(p).Run(); });
    EXPECT_EQ(same, y);
    ExpectGram<2 * C, GramParts::kQuads>(y, height / 2 * (width / 2), partials);

    // The same bits wherever segments begin.
    auto again = NoParts<2 * C>(p.strips * parts * M::kImages);
    p.partials = again.data();
    p.rows = part_rows;
    p.segments = parts;
    Emulator::Instance().Launch(p.strips * p.segments * M::kImages, Shape::kThreads,
                                Shape::kGramSharedBytes,
                                [&] { Downsample<C, kMaps, true>(p).Run(); });
    EXPECT_EQ(again, partials);
  }
}

TEST(KernelsTest, Downsample) {
  TestDownsample<32, Maps::kHalf>(16, 72, 3, 3, 31);
  TestDownsample<32, Maps::kHalf>(4, 64, 1, 1, 31);
  TestDownsample<32, Maps::kHalf>(14, 84, 6, 2, 31);
  TestDownsample<32, Maps::kHalf>(12, 24, 4, 1, 31);
  TestDownsample<64, Maps::kHalf>(12, 24, 4, 4, 62);
  TestDownsample<64, Maps::kHalf>(4, 68, 1, 1, 62);
}

TEST(KernelsTest, SplitDownsample) {
  TestDownsample<32, Maps::kSplit>(10, 72, 3, 3, 31);
  TestDownsample<64, Maps::kSplit>(6, 24, 2, 2, 62);
}

template <int C, Maps kMaps>
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
  constexpr auto kVecs = Packer::Order::kVecs;
  for (int phase = 0; phase < 4; ++phase) {
    weight.Rows(C, kVecs, 2 * C, kVecs, [&](int o, int i) {
      return o < channels && i < 2 * channels
                 ? static_cast<float>(w[(phase * channels + o) * 2 * channels + i])
                 : 0.f;
    });
  }
  skip_weight.Rows(C, kVecs, C, kVecs, [&](int o, int i) {
    if (i == C - 1) return o == C - 1 ? 1.f : o < channels ? static_cast<float>(bias[o]) : 0.f;
    return o < channels && i < channels ? static_cast<float>(f[o * channels + i]) : 0.f;
  });
  const auto w_bytes = weight.Take(), s_bytes = skip_weight.Take();
  const auto x_bytes = M::Store(images, kMaps), skip_bytes = M::Store(skips, kMaps);
  std::vector<unsigned char> y(skip_bytes.size(), 0x7f);
  using Shape = UpsampleFuseShape<C>;
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
  Emulator::Instance().Launch(p.strips * p.segments * M::kImages, Shape::kThreads,
                              Shape::kSharedBytes, [&] { UpsampleFuse<C, kMaps>(p).Run(); });
  std::vector<Image> got = expected;
  M::Load(y, kMaps, got);
  ExpectNear(got, expected, kMaps);

  // The same with S on the way.
  const int parts = (height + part_rows - 1) / part_rows;
  auto partials = NoParts<C>(p.strips * parts * M::kImages);
  p.partials = partials.data();
  p.part_rows = part_rows;
  std::vector<unsigned char> same(y.size(), 0x7f);
  p.y = same.data();
  Emulator::Instance().Launch(p.strips * p.segments * M::kImages, Shape::kThreads,
                              Shape::kGramSharedBytes,
                              [&] { UpsampleFuse<C, kMaps, true>(p).Run(); });
  EXPECT_EQ(same, y);
  ExpectGram<C, GramParts::kVecs>(y, 4 * height * width, partials);

  // The same bits wherever segments begin.
  auto again = NoParts<C>(p.strips * parts * M::kImages);
  p.partials = again.data();
  p.rows = part_rows;
  p.segments = parts;
  Emulator::Instance().Launch(p.strips * p.segments * M::kImages, Shape::kThreads,
                              Shape::kGramSharedBytes,
                              [&] { UpsampleFuse<C, kMaps, true>(p).Run(); });
  EXPECT_EQ(again, partials);
}

TEST(KernelsTest, UpsampleFuse) {
  TestUpsampleFuse<32, Maps::kHalf>(7, 20, 5, 5, 31);
  TestUpsampleFuse<64, Maps::kHalf>(7, 20, 6, 2, 62);
  TestUpsampleFuse<64, Maps::kHalf>(2, 16, 1, 1, 62);
}

TEST(KernelsTest, SplitUpsampleFuse) {
  TestUpsampleFuse<32, Maps::kSplit>(3, 20, 2, 2, 31);
  TestUpsampleFuse<64, Maps::kSplit>(3, 20, 2, 2, 62);
}

template <int C>
void TestGram(int pixels, int blocks) {
  Generator generator(7);
  const Image x = Memory::Draw(generator, 1, pixels, C, C - C / 32);
  const auto bytes = Memory::Store(x);
  std::vector<float> partials(static_cast<size_t>(blocks) * C * C, NAN), s(C * C, NAN);
  const GramParams p{bytes.data(), partials.data(), pixels, blocks, 1};
  using Shape = Gram16Shape<C>;
  Emulator::Instance().Launch(blocks, Shape::kWarps * 32, Shape::kSharedBytes,
                              [&] { Gram16<C>(p).Run(); });
  const GramReduceParams r{partials.data(), s.data(), blocks, C * C, 1};
  Emulator::Instance().Launch(kReduceBlocks<C>, kReduceThreads, kReduceThreads * 16,
                              [&] { Gram16ReduceBody<C, GramParts::kRead>(r); });
  for (int i = 0; i < C; ++i) {
    for (int j = 0; j < C; ++j) {
      double sum = 0;
      for (int q = 0; q < pixels; ++q) sum += x.get(0, q, i) * x.get(0, q, j);
      ASSERT_NEAR(s[i * C + j], sum, 1e-5 * pixels) << i << " " << j;
    }
  }
}

TEST(KernelsTest, Gram) {
  TestGram<32>(200, 2);
  TestGram<64>(136, 2);
  TestGram<128>(40, 1);
}

template <MatrixForm kForm>
void RunAttentionMatrix(const AttentionParams& p, int blocks) {
  const int threads = AttentionMatrixThreads(p.channels);
  const int shared_bytes = AttentionShape(p.channels, p.heads, p.C, threads).size * 4;
  Emulator::Instance().Launch(blocks, threads, shared_bytes, [&] {
    if (threads == kAttentionThreads) {
      AttentionMatrixBody<kForm, kAttentionThreads>(p);
    } else {
      AttentionMatrixBody<kForm, kManyAttentionThreads>(p);
    }
  });
}

void TestAttentionMatrix(int heads, int width, int C) {
  const int n = heads * width, stride = (n + 3) / 4 * 4;
  Generator generator(8);
  const int pixels = 500;
  const Doubles x = generator.Draw(pixels * n, 1.0);
  const Doubles wq = generator.Draw(n * n, 0.2), wk = generator.Draw(n * n, 0.2),
                wv = generator.Draw(n * n, 0.2), wp = generator.Draw(n * n, 0.2);
  const std::vector<float> rescale = {3.0f, 5.0f, 2.0f, 4.0f};
  std::vector<float> bias(n, 0.5f), s(C * C, 0.f), logits(AttentionFloats(n, heads), NAN);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int p = 0; p < pixels; ++p) sum += x[p * n + i] * x[p * n + j];
      s[i * C + j] = static_cast<float>(sum);
    }
  }
  const auto matrix = [&](const Doubles& w, bool transposed) {
    std::vector<float> padded(n * stride + 16, 0.f);
    for (int o = 0; o < n; ++o) {
      for (int i = 0; i < n; ++i) {
        padded[transposed ? i * stride + o : o * stride + i] = static_cast<float>(w[o * n + i]);
      }
    }
    return padded;
  };
  const auto q = matrix(wq, true), k = matrix(wk, true), v = matrix(wv, false),
             pr = matrix(wp, true);
  std::vector<float> plain(C * C, NAN);
  std::vector<uint16_t> tiles(C * C, 0x7e00), bricks = tiles;  // NaN
  AttentionParams p{.s = s.data(),
                    .wq = q.data(),
                    .wk = k.data(),
                    .wv = v.data(),
                    .wproj = pr.data(),
                    .rescale = rescale.data(),
                    .bias = bias.data(),
                    .logits = logits.data(),
                    .matrix = plain.data(),
                    .channels = n,
                    .heads = heads,
                    .C = C,
                    .images = 1,
                    .stride = stride};
  const int shared_bytes = AttentionShape(n, heads, C, kAttentionThreads).size * 4;
  Emulator::Instance().Launch(AttentionLogitsBlocks(n, heads), kAttentionThreads, shared_bytes,
                              [&] { AttentionLogitsBody(p); });
  RunAttentionMatrix<MatrixForm::kPlain>(p, C / kAttentionRows);
  p.matrix = tiles.data();
  RunAttentionMatrix<MatrixForm::kHalfTiles>(p, C / kAttentionRows);
  p.matrix = bricks.data();
  RunAttentionMatrix<MatrixForm::kHalfBricks>(p, C / kAttentionRows);

  // As published: queries and keys of every pixel.
  const auto project = [&](const Doubles& w) {
    Doubles y(pixels * n, 0.0);
    for (int a = 0; a < pixels; ++a) {
      for (int o = 0; o < n; ++o) {
        for (int i = 0; i < n; ++i) y[a * n + o] += w[o * n + i] * x[a * n + i];
      }
    }
    return y;
  };
  const Doubles queries = project(wq), keys = project(wk);
  Doubles expected(n * n, 0.0);
  for (int h = 0; h < heads; ++h) {
    for (int i = 0; i < width; ++i) {
      Doubles logits(width);
      double largest = -1e30;
      for (int j = 0; j < width; ++j) {
        double dot = 0, qq = 0, kk = 0;
        for (int a = 0; a < pixels; ++a) {
          const double qa = queries[a * n + h * width + j], ka = keys[a * n + h * width + i];
          dot += qa * ka;
          qq += qa * qa;
          kk += ka * ka;
        }
        logits[j] = rescale[h] * dot / std::sqrt(qq * kk);
        largest = std::max(largest, logits[j]);
      }
      double sum = 0;
      for (double& l : logits) sum += l = std::exp(l - largest);
      for (int o = 0; o < n; ++o) {
        for (int j = 0; j < width; ++j) {
          for (int c = 0; c < n; ++c) {
            expected[o * n + c] +=
                wp[o * n + h * width + i] * logits[j] / sum * wv[(h * width + j) * n + c];
          }
        }
      }
    }
  }
  for (int o = 0; o < C; ++o) {
    for (int c = 0; c < C; ++c) {
      const double wanted = o < n && c < n ? expected[o * n + c] : 0.0;
      ASSERT_NEAR(plain[(c / 16 * C + o) * 16 + c % 16], wanted, 1e-5) << o << " " << c;
      const double tile = o < n && c == C - 1 ? 0.5 : wanted;
      ASSERT_NEAR(HalfLow(tiles[TileWeight(o, c, C / 32)]), tile, 1e-3) << o << " " << c;
      ASSERT_EQ(bricks[BrickWeight(o, c, C)], tiles[TileWeight(o, c, C / 32)]) << o << " " << c;
    }
  }
}

TEST(KernelsTest, AttentionMatrix) {
  TestAttentionMatrix(2, 31, 64);
  TestAttentionMatrix(4, 31, 128);
  TestAttentionMatrix(1, 70, 96);  // the softmax in two parts, beside a staged factor
}

// Rows of the softmax longer than the product's parts have room for.
TEST(KernelsTest, SoftmaxOfManyBands) {
  const int n = 520, pixels = 20;
  Generator generator(11);
  const Doubles x = generator.Draw(pixels * n, 1.0);
  std::vector<float> s(n * n), w(n * n, 0.f), logits(AttentionFloats(n, 1), NAN);
  std::vector<float> matrix((n + 15) / 16 * 16 * n, NAN);
  for (int i = 0; i < n; ++i) {
    w[i * n + i] = 1.0f;  // queries, keys and values are the channels themselves
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int p = 0; p < pixels; ++p) sum += x[p * n + i] * x[p * n + j];
      s[i * n + j] = static_cast<float>(sum);
    }
  }
  const float rescale = 4.0f;
  const AttentionParams p{.s = s.data(),
                          .wq = w.data(),
                          .wk = w.data(),
                          .wv = w.data(),
                          .wproj = w.data(),
                          .rescale = &rescale,
                          .bias = nullptr,
                          .logits = logits.data(),
                          .matrix = matrix.data(),
                          .channels = n,
                          .heads = 1,
                          .C = n,
                          .images = 1,
                          .stride = n};
  const int shared_bytes = AttentionShape(n, 1, n, kAttentionThreads).size * 4, blocks = 3;
  Emulator::Instance().Launch(AttentionLogitsBlocks(n, 1), kAttentionThreads, shared_bytes,
                              [&] { AttentionLogitsBody(p); });
  RunAttentionMatrix<MatrixForm::kPlain>(p, blocks);
  for (int i = 0; i < blocks * kAttentionRows; ++i) {
    Doubles expected(n);
    double sum = 0;
    for (int j = 0; j < n; ++j) {
      const double norms = std::sqrt(static_cast<double>(s[i * n + i]) * s[j * n + j]);
      sum += expected[j] = std::exp(rescale * s[i * n + j] / norms);
    }
    for (int j = 0; j < n; ++j) {
      ASSERT_NEAR(matrix[(j / 16 * n + i) * 16 + j % 16], expected[j] / sum, 1e-6);
    }
  }
}

}  // namespace
}  // namespace mstpp::cuda
