// SPDX-License-Identifier: Apache-2.0
// The portable kernels' device code on the CPU (cuda_emulator.h) against float64. Needs the CUDA
// headers, no GPU.
#define MSTPP_EMULATE_CUDA
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <new>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "core/half.h"
#include "cuda/groups.h"
#include "cuda/kernels/portable_conv.cuh"
#include "cuda/kernels/portable_feed_forward.cuh"
#include "cuda/kernels/portable_gram.cuh"
#include "cuda/kernels/portable_position.cuh"
#include "cuda/kernels/portable_product.cuh"
#include "cuda/memory_plan.h"
#include "cuda/pack.h"
#include "cuda/views.h"
#include "mstpp/error.h"
#include "mstpp/model.h"

namespace mstpp::cuda::portable {
namespace {

using Floats = std::vector<float>;

int Stride(int channels) { return (channels + kSlab - 1) / kSlab * kSlab; }

class Generator {
 public:
  Floats Draw(size_t count, double deviation) {
    Floats values(count);
    for (float& v : values) v = static_cast<float>(deviation * normal_(engine_));
    return values;
  }
  // A feature map: zeros from `channels` on.
  Floats DrawMap(int pixels, int channels) {
    Floats map(static_cast<size_t>(pixels) * Stride(channels), 0.0f);
    for (int p = 0; p < pixels; ++p) {
      for (int c = 0; c < channels; ++c) {
        map[static_cast<size_t>(p) * Stride(channels) + c] =
            static_cast<float>(normal_(engine_) + 0.3);
      }
    }
    return map;
  }

 private:
  std::mt19937 engine_{1};
  std::normal_distribution<double> normal_;
};

// weights [outputs][inputs] as the products want them.
Floats Pack(const Floats& weights, int outputs, int inputs) {
  const int n = Stride(outputs), k = Stride(inputs);
  Floats packed(static_cast<size_t>(n) * k, 0.0f);
  for (int o = 0; o < outputs; ++o) {
    for (int i = 0; i < inputs; ++i) {
      packed[(i / kSlab * n + o) * kSlab + i % kSlab] = weights[o * inputs + i];
    }
  }
  return packed;
}

double GeluExact(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

TEST(PortableKernelsTest, Gelu) {
  for (int i = -120000; i <= 120000; ++i) {
    const float x = static_cast<float>(i) * 1e-4f, size = std::abs(x);
    ASSERT_NEAR(Gelu(x), GeluExact(x), 1e-7f * size) << x;
  }
  EXPECT_EQ(Gelu(-3e38f), 0.0f);
  EXPECT_EQ(Gelu(3e38f), 3e38f);
}

// || got - expected || / || expected ||, of the channels that there are; zeros behind.
void ExpectNear(const Floats& got, const std::vector<double>& expected, int channels,
                double tolerance) {
  const int stride = Stride(channels);
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (static_cast<int>(i % stride) >= channels) {
      ASSERT_EQ(got[i], 0.0f) << i;
      continue;
    }
    ASSERT_TRUE(std::isfinite(got[i])) << i;
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  EXPECT_LE(std::sqrt(error / norm), tolerance);
}

template <int kTerms, int kC>
void TestFeedForward(int images, int height, int width, int channels, double tolerance) {
  Generator generator;
  const int hidden = 4 * channels, stride = Stride(channels), hidden_stride = Stride(hidden);
  const int pixels = images * height * width;
  const Floats x = generator.DrawMap(pixels, channels);
  const Floats w1 = generator.Draw(hidden * channels, 1 / std::sqrt(channels));
  const Floats w2 = generator.Draw(channels * hidden, 1 / std::sqrt(hidden));
  const Floats bias = generator.Draw(hidden, 0.3), taps = generator.Draw(9 * hidden, 0.33);

  std::vector<double> h(static_cast<size_t>(pixels) * hidden);
  for (int p = 0; p < pixels; ++p) {
    const float* at = &x[static_cast<size_t>(p) * stride];
    double mean = 0, variance = 0;
    for (int c = 0; c < channels; ++c) mean += at[c] / static_cast<double>(channels);
    for (int c = 0; c < channels; ++c) variance += (at[c] - mean) * (at[c] - mean) / channels;
    for (int o = 0; o < hidden; ++o) {
      double sum = bias[o];
      for (int c = 0; c < channels; ++c) {
        sum += w1[o * channels + c] * (at[c] - mean) / std::sqrt(variance + 1e-5);
      }
      h[static_cast<size_t>(p) * hidden + o] = GeluExact(sum);
    }
  }
  std::vector<double> expected(x.begin(), x.end());
  for (int p = 0; p < pixels; ++p) {
    const int image = p / height / width, row = p / width % height, column = p % width;
    for (int o = 0; o < hidden; ++o) {
      double sum = 0;
      for (int tap = 0; tap < 9; ++tap) {
        const int r = row + tap / 3 - 1, q = column + tap % 3 - 1;
        if (r < 0 || q < 0 || r >= height || q >= width) continue;
        sum += taps[tap * hidden + o] *
               h[(static_cast<size_t>(image * height + r) * width + q) * hidden + o];
      }
      const double g = GeluExact(sum);
      for (int c = 0; c < channels; ++c) {
        expected[static_cast<size_t>(p) * stride + c] += w2[c * hidden + o] * g;
      }
    }
  }

  Floats y(x.size(), NAN);
  const Floats depthwise = DepthwiseAndBias(
      hidden_stride, [&](int o, int tap) { return taps[tap * hidden + o]; }, bias);
  using Shape = FeedForwardShape<kTerms, kC>;
  const Floats weight1 = FirstFactors(Shape::kParts, hidden_stride, kC, [&](int o, int i) {
    return o < hidden && i < channels ? w1[o * channels + i] : 0.0f;
  });
  const Floats weight2 = SecondFactors(Shape::kParts, kC, hidden_stride, [&](int o, int i) {
    return o < channels && i < hidden ? w2[o * hidden + i] : 0.0f;
  });
  const FeedForwardParams<float> p{{x.data(), images, height, width, stride},
                                   y.data(),
                                   weight1.data(),
                                   depthwise.data(),
                                   weight2.data(),
                                   channels,
                                   hidden_stride};
  const int blocks = Tile::Count(images, height, width);
  Emulator::Instance().Launch(blocks, Shape::kThreads, Shape::kSharedBytes,
                              [&] { TileFeedForward<kTerms, kC, float>(p).Run(); });
  ExpectNear(y, expected, channels, tolerance);
}

TEST(PortableKernelsTest, FeedForward) {
  TestFeedForward<3, 32>(2, 11, 21, 31, 1e-6);
  TestFeedForward<1, 32>(1, 8, 16, 5, 2e-3);
  TestFeedForward<3, 64>(1, 3, 7, 40, 1e-6);
  TestFeedForward<3, 64>(1, 9, 5, 62, 1e-6);
  TestFeedForward<1, 64>(1, 9, 17, 62, 2e-3);
  TestFeedForward<3, 128>(1, 4, 18, 70, 1e-6);
  TestFeedForward<1, 128>(1, 5, 7, 124, 2e-3);
}

// The same numbers as if the kernel split them, and no others.
TEST(PackTest, FactorsAreSplitAsByTheKernel) {
  const Floats w = Generator().Draw(16 * 32, 1.0);
  const auto weight = [&](int o, int i) { return w[o * 32 + i]; };
  for (const Floats& packed :
       {FirstFactors(2, 16, 32, weight),
        SecondFactors(2, 32, 16, [&](int o, int i) { return weight(i, o); })}) {
    Floats sums, expected = w;
    for (size_t i = 0; i < packed.size(); ++i) {
      if (i / 128 % 2 != 0) continue;
      sums.push_back(packed[i] + packed[i + 128]);
      SplitFactor<3, 1> split;
      split.Set(0, sums.back());
      EXPECT_EQ(AsUint(packed[i]), split.big[0] & kTf32Mask);
      EXPECT_EQ(AsUint(packed[i + 128]), split.small[0]);
    }
    std::sort(sums.begin(), sums.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(sums, expected);
  }
}

// y = GELU(conv(x) + bias) + residual, kSize x kSize taps with stride kStride.
template <int kTerms, int kN, int kSize, int kStride>
void TestConv(int images, int height, int width, int inputs, int outputs, double tolerance) {
  constexpr int kTaps = kSize * kSize;
  Generator generator;
  const int in_height = kStride * height, in_width = kStride * width;
  const Floats x = generator.DrawMap(images * in_height * in_width, inputs);
  const int pixels = images * height * width, in = Stride(inputs), out = Stride(outputs);
  const Floats residual = generator.DrawMap(pixels, outputs), bias = generator.Draw(outputs, 0.5);
  const Floats w =
      generator.Draw(static_cast<size_t>(outputs) * kTaps * in, 1 / std::sqrt(kTaps * in));
  std::vector<double> expected(residual.begin(), residual.end());
  for (int p = 0; p < pixels; ++p) {
    const int image = p / height / width, row = p / width % height, column = p % width;
    for (int o = 0; o < outputs; ++o) {
      double sum = bias[o];
      for (int tap = 0; tap < kTaps; ++tap) {
        const int r = kStride * row - 1 + tap / kSize, q = kStride * column - 1 + tap % kSize;
        if (r < 0 || q < 0 || r >= in_height || q >= in_width) continue;
        const float* at = &x[(static_cast<size_t>(image * in_height + r) * in_width + q) * in];
        for (int c = 0; c < inputs; ++c) {
          sum += static_cast<double>(w[(static_cast<size_t>(o) * kTaps + tap) * in + c]) * at[c];
        }
      }
      expected[static_cast<size_t>(p) * out + o] += GeluExact(sum);
    }
  }
  Floats y(residual.size(), NAN), bias_padded = bias;
  bias_padded.resize(out, 0.0f);
  const Floats packed = Pack(w, outputs, kTaps * in);
  const Map<const float> map{x.data(), images, in_height, in_width, in};
  const WriteMap<float> writer{
      {y.data(), images, height, width, out}, residual.data(), bias_padded.data(), 1};
  const ProductSize size{images, height, width, kTaps * in, out};
  using Shape = ConvShape<kTerms, kN, kSize, kStride>;
  const int blocks = Tile::Count(images, height, width) * ((out + kN - 1) / kN);
  Emulator::Instance().Launch(blocks, Shape::kThreads, Shape::kSharedBytes, [&] {
    TileConv<kTerms, kN, kSize, kStride>(size, map, packed.data(), writer);
  });
  ExpectNear(y, expected, outputs, tolerance);
}

TEST(PortableKernelsTest, Conv) {
  TestConv<3, 32, 3, 1>(2, 9, 19, 31, 31, 1e-6);
  TestConv<3, 64, 3, 1>(1, 5, 3, 3, 70, 1e-6);
  TestConv<3, 64, 4, 2>(2, 4, 17, 31, 70, 1e-6);
  TestConv<1, 32, 4, 2>(1, 9, 5, 40, 10, 2e-3);
}

// y = conv(x) + residual into a map and, cropped, into cubes: floats in any layout, and halves. All
// have the same bits, but for the halves' rounding.
TEST(PortableKernelsTest, WritesCubes) {
  constexpr int kImages = 2, kHeight = 11, kWidth = 35, kBands = 31, kStrideOut = 32;
  constexpr int kPixels = kImages * kHeight * kWidth, kH = 9, kW = 29;
  Generator generator;
  const Floats x = generator.DrawMap(kPixels, kBands), r = generator.DrawMap(kPixels, kBands);
  const Floats w = Pack(generator.Draw(kBands * 9 * kStrideOut, 0.06), kBands, 9 * kStrideOut);
  const Map<const float> map{x.data(), kImages, kHeight, kWidth, kStrideOut};
  const Map<const float> residual{r.data(), kImages, kHeight, kWidth, kStrideOut};
  const ProductSize size{kImages, kHeight, kWidth, 9 * kStrideOut, kStrideOut};
  const auto run = [&](const auto& writer) {
    using Shape = ConvShape<3, 32, 3, 1>;
    Emulator::Instance().Launch(Tile::Count(kImages, kHeight, kWidth), Shape::kThreads,
                                Shape::kSharedBytes,
                                [&] { TileConv<3, 32, 3, 1>(size, map, w.data(), writer); });
  };
  Floats y(x.size(), NAN);
  run(WriteMap<float>{{y.data(), kImages, kHeight, kWidth, kStrideOut}, r.data(), nullptr, 0});

  NetworkIo io = {};
  io.cube_height = kH;
  io.cube_width = kW;
  const auto test = [&](auto none, const std::array<int64_t, 4>& strides, auto rounded) {
    using Element = decltype(none);
    std::vector<Element> cube(static_cast<size_t>(strides[0]) * kImages + 1, none);
    io.cube = cube.data() + 1;  // of odd address
    std::copy_n(strides.begin(), 4, io.cube_stride);
    run(WriteCube<float, Element>{&io, residual, kBands});
    int64_t written = 0;
    for (const Element& e : cube) written += std::memcmp(&e, &none, sizeof none) != 0;
    EXPECT_EQ(written, kImages * kBands * kH * kW);
    for (int p = 0; p < kPixels; ++p) {
      const int image = p / kWidth / kHeight, row = p / kWidth % kHeight, q = p % kWidth;
      for (int c = 0; c < kBands && row < kH && q < kW; ++c) {
        const Element got =
            cube[1 + image * strides[0] + c * strides[1] + row * strides[2] + q * strides[3]];
        const Element wanted = rounded(y[static_cast<size_t>(p) * kStrideOut + c]);
        ASSERT_EQ(std::memcmp(&got, &wanted, sizeof got), 0) << p << " " << c;
      }
    }
  };
  const auto as_float = [](float v) { return v; };
  const auto as_half = [](float v) { return Half{static_cast<uint16_t>(HalfPack(v, 0.0f))}; };
  const auto planes = [](int64_t row) {
    return std::array<int64_t, 4>{kBands * kH * row, kH * row, row, 1};
  };
  const std::array<int64_t, 4> pixels = {kBands * kH * kW, 1, kBands * kW, kBands};
  test(12345.0f, planes(kW), as_float);
  test(12345.0f, pixels, as_float);
  test(Half{0x7abc}, planes(HalfRow(kW)), as_half);
  test(Half{0x7abc}, planes(kW), as_half);
  test(Half{0x7abc}, pixels, as_half);
}

// y = x + X W' + b + d, LN(x) W' with GELU, and the hidden half of a feed-forward network.
template <int kTerms, int kN, class Loader, class Writer>
void RunProduct(const ProductSize& size, const Floats& weights, const Loader& loader,
                const Writer& writer) {
  Emulator::Instance().Launch(
      size.groups * size.BlocksOfGroup(kN), kProductPixels, ProductShape<kN>::kSharedBytes,
      [&] { PixelProduct<kTerms, kN>(size, weights.data(), loader, writer); });
}

TEST(PortableKernelsTest, Product) {
  const int images = 2, height = 5, width = 17, inputs = 40, outputs = 70;
  const int pixels = images * height * width, in = Stride(inputs), out = Stride(outputs);
  Generator generator;
  const Floats x = generator.DrawMap(pixels, inputs), w = generator.Draw(outputs * inputs, 0.2);
  const Floats taps = generator.Draw(9 * in, 0.33), weights = Pack(w, outputs, inputs);
  const Floats residual = generator.DrawMap(pixels, outputs),
               d = generator.DrawMap(pixels, outputs);
  Floats bias = generator.Draw(outputs, 0.5), y(residual.size(), NAN);
  bias.resize(out, 0.0f);
  const Map<const float> map{x.data(), images, height, width, in};
  const Map<float> to{y.data(), images, height, width, out};
  const ProductSize size{images, height, width, in, out};
  // sum over i of w[o][i] input(pixel, i)
  const auto expect = [&](auto input, auto finish) {
    std::vector<double> expected(y.size());
    for (int p = 0; p < pixels; ++p) {
      for (int o = 0; o < outputs; ++o) {
        double sum = 0;
        for (int i = 0; i < inputs; ++i) sum += w[o * inputs + i] * input(p, i);
        expected[static_cast<size_t>(p) * out + o] = finish(sum, p * out + o, o);
      }
    }
    ExpectNear(y, expected, outputs, 1e-6);
  };

  RunProduct<3, 64>(size, weights, LoadPixel<float>{map},
                    WriteAttention<float>{to,
                                          {residual.data(), images, height, width, out},
                                          {d.data(), images, height, width, out},
                                          bias.data()});
  expect([&](int p, int i) { return x[p * in + i]; },
         [&](double sum, int at, int o) { return sum + residual[at] + d[at] + bias[o]; });

  RunProduct<3, 32>(size, weights, LoadNormalised<float>{map, inputs},
                    WriteMap<float>{to, nullptr, bias.data(), 1});
  expect(
      [&](int p, int i) {
        double mean = 0, variance = 0;
        for (int c = 0; c < inputs; ++c) mean += x[p * in + c] / static_cast<double>(inputs);
        for (int c = 0; c < inputs; ++c) {
          variance += (x[p * in + c] - mean) * (x[p * in + c] - mean) / inputs;
        }
        return (x[p * in + i] - mean) / std::sqrt(variance + 1e-5);
      },
      [&](double sum, int, int o) { return GeluExact(sum + bias[o]); });

  RunProduct<3, 64>(size, weights, LoadDepthwiseGelu<float>{map, taps.data()},
                    WriteMap<float>{to, residual.data(), nullptr, 0});
  expect(
      [&](int p, int i) {
        const int image = p / height / width, row = p / width % height, column = p % width;
        double sum = 0;
        for (int tap = 0; tap < 9; ++tap) {
          const int r = row + tap / 3 - 1, q = column + tap % 3 - 1;
          if (r < 0 || q < 0 || r >= height || q >= width) continue;
          sum += static_cast<double>(taps[tap * in + i]) *
                 x[((image * height + r) * width + q) * in + i];
        }
        return GeluExact(sum);
      },
      [&](double sum, int at, int) { return sum + residual[at]; });
}

// Each pixel's four children: from it, with weights of their own, and from the skip.
TEST(PortableKernelsTest, UpsampleFuse) {
  const int height = 5, width = 31, inputs = 20, outputs = 10;
  const int in = Stride(inputs), out = Stride(outputs), pixels = height * width;
  Generator generator;
  const Floats x = generator.DrawMap(pixels, inputs), skip = generator.DrawMap(4 * pixels, outputs);
  Floats bias = generator.Draw(outputs, 0.5), weights, y(4 * pixels * out, NAN);
  bias.resize(out, 0.0f);
  std::vector<double> expected(y.size());
  for (int phase = 0; phase < 4; ++phase) {
    const Floats w = generator.Draw(outputs * inputs, 0.2);
    const Floats f = generator.Draw(outputs * outputs, 0.2);
    for (const Floats& packed : {Pack(w, outputs, inputs), Pack(f, outputs, outputs)}) {
      weights.insert(weights.end(), packed.begin(), packed.end());
    }
    for (int p = 0; p < pixels; ++p) {
      const int child = (2 * (p / width) + phase / 2) * 2 * width + 2 * (p % width) + phase % 2;
      for (int o = 0; o < outputs; ++o) {
        double sum = bias[o];
        for (int i = 0; i < inputs; ++i) {
          sum += static_cast<double>(w[o * inputs + i]) * x[p * in + i];
        }
        for (int i = 0; i < outputs; ++i) {
          sum += static_cast<double>(f[o * outputs + i]) * skip[child * out + i];
        }
        expected[child * out + o] = sum;
      }
    }
  }
  const ProductSize size{1, height, width, in + out, out, 4};
  RunProduct<3, 32>(size, weights,
                    LoadWithSkip<float>{{x.data(), 1, height, width, in},
                                        {skip.data(), 1, 2 * height, 2 * width, out}},
                    WriteChild<float>{{y.data(), 1, 2 * height, 2 * width, out}, bias.data()});
  ExpectNear(y, expected, outputs, 1e-6);
}

TEST(PortableKernelsTest, Position) {
  const int images = 2, height = 9, width = 18, channels = 31, stride = Stride(channels);
  Generator generator;
  const Floats v = generator.DrawMap(images * height * width, channels);
  const Floats taps1 = generator.Draw(9 * stride, 0.33), taps2 = generator.Draw(9 * stride, 0.33);
  const auto depthwise = [&](const std::vector<double>& x, const Floats& taps) {
    std::vector<double> y(x.size());
    for (size_t at = 0; at < x.size(); ++at) {
      const int c = static_cast<int>(at % stride), p = static_cast<int>(at / stride);
      const int image = p / height / width, row = p / width % height, column = p % width;
      for (int tap = 0; tap < 9; ++tap) {
        const int r = row + tap / 3 - 1, q = column + tap % 3 - 1;
        if (r < 0 || q < 0 || r >= height || q >= width) continue;
        y[at] += taps[tap * stride + c] *
                 x[((static_cast<size_t>(image) * height + r) * width + q) * stride + c];
      }
    }
    return y;
  };
  std::vector<double> expected = depthwise({v.begin(), v.end()}, taps1);
  for (double& e : expected) e = GeluExact(e);
  expected = depthwise(expected, taps2);
  Floats d(v.size(), NAN);
  const PositionParams<float> p{
      {v.data(), images, height, width, stride}, taps1.data(), taps2.data(), d.data()};
  using Shape = PositionShape;
  const int blocks = Tile::Count(images, height, width) * (stride / kSlab);
  Emulator::Instance().Launch(blocks, Shape::kThreads, Shape::kSharedBytes,
                              [&] { PositionBody(p); });
  ExpectNear(d, expected, channels, 1e-6);
}

template <int kTile>
void TestGram(int channels, int pixels, int blocks) {
  Generator generator;
  const Floats x = generator.DrawMap(pixels, channels);
  const int stride = Stride(channels);
  Floats partials(static_cast<size_t>(blocks) * stride * stride, NAN);
  const Map<const float> map{x.data(), 1, 1, pixels, stride};
  using Shape = GramSumShape<kTile>;
  Emulator::Instance().Launch(Shape::Tiles(stride) * blocks, Shape::kThreads, Shape::kSharedBytes,
                              [&] { GramSumBody<3, kTile>(map, partials.data(), blocks); });
  for (int i = 0; i < stride; ++i) {
    for (int j = 0; j < stride; ++j) {
      double sum = 0, expected = 0;
      for (int b = 0; b < blocks; ++b) {
        sum += partials[(static_cast<size_t>(b) * stride + i) * stride + j];
      }
      for (int p = 0; p < pixels; ++p) {
        expected += static_cast<double>(x[static_cast<size_t>(p) * stride + i]) *
                    x[static_cast<size_t>(p) * stride + j];
      }
      ASSERT_NEAR(sum, expected, 2e-6 * pixels) << i << " " << j;
    }
  }
}

TEST(PortableKernelsTest, Gram) {
  TestGram<32>(31, 300, 2);
  TestGram<32>(5, 33, 1);
  TestGram<64>(62, 200, 3);
  TestGram<64>(140, 70, 1);
}

TEST(MemoryPlanTest, ValuesLiveFromTheirWriterToTheirLastReader) {
  const mstpp::Graph graph = BuildMstPlusPlus({.stages = 2});
  const int end = static_cast<int>(graph.nodes.size());
  for (const bool taps : {false, true}) {
    const std::vector<Lifetime> lifetimes = ValueLifetimes(
        graph, taps, [](const Value& value) { return static_cast<size_t>(value.channels); });
    std::vector<int> last(graph.values.size(), -1);
    for (int i = 0; i < end; ++i) {
      const Node& node = graph.nodes[i];
      EXPECT_EQ(lifetimes[node.output].first, i);
      for (int used : {node.input, node.extra}) {
        if (used >= 0) last[used] = i;
      }
      last[node.output] = taps ? end : i;
    }
    for (size_t v = 0; v < last.size(); ++v) {
      const bool is_callers =
          static_cast<int>(v) == graph.input || static_cast<int>(v) == graph.output;
      if (taps && static_cast<int>(v) != graph.input) last[v] = end;
      EXPECT_EQ(lifetimes[v].last, last[v]) << v;
      EXPECT_EQ(lifetimes[v].bytes, is_callers ? 0u : graph.values[v].channels) << v;
    }
  }
}

TEST(CudaGroupsTest, HaveTwoMillionPixelsButLeaveBothLanesWork) {
  const auto size_and_lanes = [](int64_t pictures, int64_t pixels) {
    const Groups groups = ChooseGroups(pictures, pixels);
    return std::pair(groups.size, groups.lanes);
  };
  using Pair = std::pair<int64_t, int>;
  constexpr int64_t kPicture = 488 * 512;
  EXPECT_EQ(size_and_lanes(1, kPicture), Pair(1, 1));
  EXPECT_EQ(size_and_lanes(2, kPicture), Pair(1, 2));
  EXPECT_EQ(size_and_lanes(3, kPicture), Pair(2, 2));
  EXPECT_EQ(size_and_lanes(7, kPicture), Pair(4, 2));
  EXPECT_EQ(size_and_lanes(16, kPicture), Pair(8, 2));
  EXPECT_EQ(size_and_lanes(64, kPicture), Pair(8, 2));
  EXPECT_EQ(size_and_lanes(1, 64), Pair(1, 1));
  EXPECT_EQ(size_and_lanes(11, 64), Pair(6, 2));
  EXPECT_EQ(size_and_lanes(1000, 64), Pair(64, 2));
  EXPECT_EQ(size_and_lanes(16, 1 << 21), Pair(1, 2));
  EXPECT_EQ(size_and_lanes(16, int64_t{1} << 40), Pair(1, 2));
}

TEST(CudaGroupsTest, CopiedOnesAreSmallerAndTheLastSmallest) {
  using Sizes = std::vector<int64_t>;
  EXPECT_EQ(CopiedGroups(1, {1, 1}), Sizes{1});
  EXPECT_EQ(CopiedGroups(5, {1, 1}), (Sizes{1, 1, 1, 1, 1}));
  EXPECT_EQ(CopiedGroups(16, {4, 2}), (Sizes{2, 2, 2, 2, 2, 2, 1, 1, 1, 1}));
  EXPECT_EQ(CopiedGroups(16, {8, 2}), (Sizes{2, 2, 2, 2, 2, 2, 1, 1, 1, 1}));
  EXPECT_EQ(CopiedGroups(13, {4, 2}), (Sizes{2, 2, 2, 2, 2, 1, 1, 1}));
  EXPECT_EQ(CopiedGroups(197, {64, 2}),
            (Sizes{16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 8, 8, 5}));
  // A slot's first group is its largest.
  for (int64_t pictures = 1; pictures < 300; ++pictures) {
    for (int64_t size = 1; size <= 64; ++size) {
      const Sizes sizes = CopiedGroups(pictures, {size, pictures > 1 ? 2 : 1});
      EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}), pictures);
      EXPECT_TRUE(std::is_sorted(sizes.rbegin(), sizes.rend())) << pictures << " " << size;
    }
  }
}

TEST(CudaGroupsTest, ShrinkWhileMemoryIsExhausted) {
  const Error exhausted(ErrorCode::kOutOfMemory, "cuda", "exhausted");
  // Fits if no more than `most` pictures are in memory; earlier batches have left one there.
  const auto tried = [&](int64_t most) {
    std::vector<std::pair<int64_t, int>> tries;
    int64_t left = 1;
    const auto run = [&](const Groups& groups) {
      tries.emplace_back(groups.size, groups.lanes);
      if (left + groups.size * groups.lanes > most) throw exhausted;
    };
    RunInGroups(ChooseGroups(16, 488 * 512), run, [&] { left = 0; });
    return tries;
  };
  using Tries = std::vector<std::pair<int64_t, int>>;
  EXPECT_EQ(tried(17), (Tries{{8, 2}}));
  EXPECT_EQ(tried(16), (Tries{{8, 2}, {8, 2}}));
  EXPECT_EQ(tried(3), (Tries{{8, 2}, {8, 2}, {4, 2}, {2, 2}, {1, 2}}));
  EXPECT_EQ(tried(1), (Tries{{8, 2}, {8, 2}, {4, 2}, {2, 2}, {1, 2}, {1, 1}}));
  EXPECT_THROW(tried(0), Error);
}

TEST(CudaGroupsTest, OtherErrorsAreFinalAndClearedAfter) {
  int tries = 0, clears = 0;
  const auto fail_with = [&](const auto& error) {
    RunInGroups(
        {.size = 4, .lanes = 2},
        [&](const Groups&) {
          ++tries;
          throw error;
        },
        [&] { ++clears; });
  };
  EXPECT_THROW(fail_with(Error(ErrorCode::kInternal, "cuda", "lost")), Error);
  EXPECT_THROW(fail_with(std::bad_alloc()), std::bad_alloc);
  EXPECT_EQ(tries, 2);
  EXPECT_EQ(clears, 2);
}

TEST(ViewsTest, CopiesAnyLayout) {
  // Enough rows for several threads; first a cube by pixels, then its planes again.
  const int n = 2, c = 5, h = 300, w = 171;
  const Floats planes = Generator().Draw(static_cast<size_t>(n) * c * h * w, 1.0);
  Floats pixels(planes.size(), NAN), again(planes.size(), NAN);
  const auto by_pixels = MutableTensorView::Nhwc(pixels.data(), n, c, h, w);
  CopyView(TensorView::Nchw(planes.data(), n, c, h, w), by_pixels);
  EXPECT_EQ(pixels[(3 * w + 7) * c + 2], planes[(2 * h + 3) * w + 7]);
  CopyView(TensorView::Nhwc(pixels.data(), n, c, h, w),
           MutableTensorView::Nchw(again.data(), n, c, h, w));
  EXPECT_EQ(again, planes);
}

TEST(ViewsTest, CopiesRowsAndNoOthers) {
  const int n = 3, c = 4, h = 5, w = 7, first = 17, last = 42;
  const Floats planes = Generator().Draw(static_cast<size_t>(n) * c * h * w, 1.0);
  Floats got(planes.size(), NAN);
  CopyRows(TensorView::Nchw(planes.data(), n, c, h, w),
           MutableTensorView::Nchw(got.data(), n, c, h, w), first, last);
  for (int i = 0; i < n * c * h * w; ++i) {
    if (i / w >= first && i / w < last) {
      ASSERT_EQ(got[i], planes[i]) << i;
    } else {
      ASSERT_TRUE(std::isnan(got[i])) << i;
    }
  }
}

// So much that it goes past the caches, in rows that begin and end anywhere in a line of them.
TEST(ViewsTest, CopiesLargeCubes) {
  const int c = 31, h = 400, w = 343, first = 3, last = c * h - 2;
  const int64_t row = HalfRow(w);
  std::vector<uint16_t> halves(static_cast<size_t>(c) * h * row, 0x7e00);  // NaN
  Floats wanted(static_cast<size_t>(c) * h * w, 12345.0f);
  for (int64_t r = 0; r < c * h; ++r) {
    for (int x = 0; x < w; ++x) {
      const float value = static_cast<float>((r * 31 + x) % 2048 - 1024) / 64;
      halves[r * row + x] = ToHalf(value);
      if (r >= first && r < last) wanted[r * w + x] = value;
    }
  }
  for (const int offset : {0, 1, 7}) {
    Floats narrow(wanted.size() + offset, 12345.0f), copied = narrow;
    const auto to = MutableTensorView::Nchw(narrow.data() + offset, 1, c, h, w);
    CopyRows(CubeAt(static_cast<const uint16_t*>(halves.data()), 1, c, h, w), to, first, last);
    EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), narrow.begin() + offset)) << offset;
    CopyRows(TensorView::Nchw(narrow.data() + offset, 1, c, h, w),
             MutableTensorView::Nchw(copied.data() + offset, 1, c, h, w), first, last);
    EXPECT_EQ(copied, narrow) << offset;
  }
}

// What the CUDA headers make of them, of every half; NaNs stay NaNs.
TEST(ViewsTest, WidensEveryHalf) {
  constexpr int kHalves = 1 << 16;
  std::vector<uint16_t> halves(kHalves);
  for (int i = 0; i < kHalves; ++i) halves[i] = static_cast<uint16_t>(i);
  // A row of them, at an address of its own and with an end that is no whole vector; and a column.
  for (const int first : {0, 1, 5}) {
    const int count = kHalves - 2 * first;
    for (const int64_t stride : {1, 3}) {
      Floats floats(static_cast<size_t>(count) * stride + 1, 12345.0f);
      const HalfView from{halves.data() + first, 1, 1, 1, count, 0, 0, 0, 1};
      CopyRows(from, {floats.data(), 1, 1, 1, count, 0, 0, 0, stride}, 0, 1);
      for (int i = 0; i < count; ++i) {
        const auto bits = static_cast<uint16_t>(first + i);
        const float wanted = __half2float(__half(__half_raw{bits})), got = floats[i * stride];
        if (std::isnan(wanted)) {
          ASSERT_TRUE(std::isnan(got)) << bits;
        } else {
          ASSERT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(wanted)) << bits;
          ASSERT_EQ(ToHalf(got), bits);
        }
      }
      EXPECT_EQ(floats.back(), 12345.0f);
    }
  }
}

TEST(ViewsTest, WidensCubesOfAnySizeIntoAnyLayout) {
  const int n = 2, c = 31, h = 70;
  for (const int w : {1, 7, 8, 41, 171}) {
    const int64_t row = HalfRow(w);
    std::vector<uint16_t> halves(static_cast<size_t>(n) * c * h * row, 0x7e00);  // NaN
    const auto value = [&](int64_t plane, int y, int x) {
      return static_cast<float>((plane * 31 + y * 7 + x) % 2048 - 1024) / 64;
    };
    for (int64_t plane = 0; plane < n * c; ++plane) {
      for (int y = 0; y < h; ++y) {
        for (int x = 0; x < w; ++x) halves[(plane * h + y) * row + x] = ToHalf(value(plane, y, x));
      }
    }
    Floats planes(static_cast<size_t>(n) * c * h * w + 1, 12345.0f), pixels = planes;
    const auto from = CubeAt(static_cast<const uint16_t*>(halves.data()), n, c, h, w);
    CopyRows(from, MutableTensorView::Nchw(planes.data(), n, c, h, w), 0, n * c * h);
    CopyRows(from, MutableTensorView::Nhwc(pixels.data(), n, c, h, w), 0, n * c * h);
    EXPECT_EQ(planes.back(), 12345.0f);
    EXPECT_EQ(pixels.back(), 12345.0f);
    for (int64_t plane = 0; plane < n * c; ++plane) {
      for (int y = 0; y < h; ++y) {
        for (int x = 0; x < w; ++x) {
          ASSERT_EQ(planes[(plane * h + y) * w + x], value(plane, y, x));
          ASSERT_EQ(pixels[((plane / c * h + y) * w + x) * c + plane % c], value(plane, y, x));
        }
      }
    }
  }
}

}  // namespace
}  // namespace mstpp::cuda::portable
