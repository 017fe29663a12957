// SPDX-License-Identifier: Apache-2.0
// What the tests of the fused kernels share: feature maps in float64 and as the kernels have them,
// and the equations of what several blocks do. Device code runs on the CPU (cuda_emulator.h), so
// MSTPP_EMULATE_CUDA must be defined.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cuda/kernels/gram.cuh"
#include "cuda/kernels/lanes.cuh"
#include "cuda/pack.h"

namespace mstpp::cuda::kernels_testing {

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

inline double Rounded(double value) { return HalfLow(HalfPack(static_cast<float>(value), 0.f)); }

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
inline std::vector<Image> Factors(std::vector<Image> images) {
  for (Image& image : images) {
    for (double& v : image.data) v = Rounded(v);
  }
  return images;
}

// || a - b || / || b || over the network's channels, and that the last channel is 1.
inline void ExpectNear(const Image& got, const Image& expected, bool has_one = true,
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
inline void ExpectNear(const std::vector<Image>& got, const std::vector<Image>& expected,
                       Maps maps) {
  for (size_t i = 0; i < got.size(); ++i) {
    ExpectNear(got[i], expected[i], true, maps == Maps::kSplit ? 0x1p-20 : 4e-3);
  }
}

inline constexpr auto kVecs = Packer::Lanes::kVecs, kBlocks = Packer::Lanes::kBlocks;

inline double GeluExact(double x) { return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0))); }

inline Image DepthwiseReference(const Image& x, const Doubles& w) {  // [channel][tap]
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
inline Image Product(const Image& x, const Doubles& w, int C, int outputs) {
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

}  // namespace mstpp::cuda::kernels_testing
