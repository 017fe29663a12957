// SPDX-License-Identifier: Apache-2.0
// The portable kernels' device code on the CPU (cuda_emulator.h) against float64. Needs the CUDA
// headers, no GPU.
#define MSTPP_EMULATE_CUDA
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cuda/kernels/portable.cuh"

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

  Floats taps_padded(9 * hidden_stride, 0.0f), bias_padded = bias, y(x.size(), NAN);
  for (int tap = 0; tap < 9; ++tap) {
    std::copy_n(&taps[tap * hidden], hidden, &taps_padded[tap * hidden_stride]);
  }
  bias_padded.resize(hidden_stride, 0.0f);
  const Floats weight1 = Pack(w1, hidden, channels), weight2 = Pack(w2, channels, hidden);
  const FeedForwardParams<float> p{{x.data(), images, height, width, stride},
                                   y.data(),
                                   weight1.data(),
                                   bias_padded.data(),
                                   taps_padded.data(),
                                   weight2.data(),
                                   channels,
                                   hidden_stride};
  using Shape = FeedForwardShape<kC>;
  const int blocks = images * ((height + Shape::kRows - 1) / Shape::kRows) *
                     ((width + Shape::kColumns - 1) / Shape::kColumns);
  Emulator::Instance().Launch(blocks, Shape::kThreads, Shape::kSharedBytes,
                              [&] { TileFeedForward<kTerms, kC, float>(p).Run(); });
  ExpectNear(y, expected, channels, tolerance);
}

TEST(PortableKernelsTest, FeedForward) {
  TestFeedForward<3, 32>(2, 11, 21, 31, 1e-6);
  TestFeedForward<1, 32>(1, 8, 16, 5, 2e-3);
  TestFeedForward<3, 64>(1, 9, 5, 62, 1e-6);
  TestFeedForward<3, 128>(1, 4, 18, 70, 1e-6);
}

// y = GELU(conv(x) + bias) + residual with 4 x 4 taps and stride 2: every option of the product.
template <int kTerms, int kN>
void TestProduct(int images, int height, int width, int inputs, int outputs, double tolerance) {
  Generator generator;
  const Floats x = generator.DrawMap(images * 4 * height * width, inputs);
  const int pixels = images * height * width, in = Stride(inputs), out = Stride(outputs);
  const Floats residual = generator.DrawMap(pixels, outputs), bias = generator.Draw(outputs, 0.5);
  const Floats w = generator.Draw(static_cast<size_t>(outputs) * 16 * in, 1 / std::sqrt(16 * in));
  std::vector<double> expected(residual.begin(), residual.end());
  for (int p = 0; p < pixels; ++p) {
    const int image = p / height / width, row = p / width % height, column = p % width;
    for (int o = 0; o < outputs; ++o) {
      double sum = bias[o];
      for (int tap = 0; tap < 16; ++tap) {
        const int r = 2 * row - 1 + tap / 4, q = 2 * column - 1 + tap % 4;
        if (r < 0 || q < 0 || r >= 2 * height || q >= 2 * width) continue;
        const float* at = &x[(static_cast<size_t>(image * 2 * height + r) * 2 * width + q) * in];
        for (int c = 0; c < inputs; ++c) {
          sum += static_cast<double>(w[(static_cast<size_t>(o) * 16 + tap) * in + c]) * at[c];
        }
      }
      expected[static_cast<size_t>(p) * out + o] += GeluExact(sum);
    }
  }
  Floats y(residual.size(), NAN), bias_padded = bias;
  bias_padded.resize(out, 0.0f);
  const Floats packed = Pack(w, outputs, 16 * in);
  const LoadNeighbours<float, 4, 2> loader{{x.data(), images, 2 * height, 2 * width, in}};
  const WriteMap<float> writer{
      {y.data(), images, height, width, out}, residual.data(), bias_padded.data(), 1};
  const ProductSize size{images, height, width, 16 * in, out};
  const int blocks = (pixels + kProductPixels - 1) / kProductPixels * ((out + kN - 1) / kN);
  Emulator::Instance().Launch(blocks, kProductPixels, ProductShape<kN>::kSharedBytes, [&] {
    PixelProduct<kTerms, kN>(size, packed.data(), loader, writer);
  });
  ExpectNear(y, expected, outputs, tolerance);
}

TEST(PortableKernelsTest, Product) {
  TestProduct<3, 64>(2, 7, 11, 16, 70, 1e-6);
  TestProduct<3, 32>(1, 12, 12, 31, 31, 1e-6);
  TestProduct<1, 32>(1, 3, 5, 5, 10, 2e-3);
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

}  // namespace
}  // namespace mstpp::cuda::portable
