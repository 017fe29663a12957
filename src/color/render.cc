// SPDX-License-Identifier: Apache-2.0
#include "color/render.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "color/observer.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

// Beyond these the observer sees too little for held ends to matter much.
constexpr double kMustStartNm = 430, kMustEndNm = 670;

// One weight a band for each of red, green and blue.
using BandWeights = std::vector<std::array<double, 3>>;

[[noreturn]] void ThrowInvalid(const Cube& cube, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, cube.provenance.source, what);
}

void CheckCube(const Cube& cube, double white) {
  const auto size = static_cast<double>(cube.width) * static_cast<double>(cube.height) *
                    static_cast<double>(cube.bands);
  if (cube.width <= 0 || cube.height <= 0 || cube.bands <= 0 ||
      static_cast<double>(cube.data.size()) != size) {
    ThrowInvalid(cube, fmt::format("a cube of {} bands, {} x {} with {} values", cube.bands,
                                   cube.width, cube.height, cube.data.size()));
  }
  if (cube.wavelengths_nm.size() != static_cast<size_t>(cube.bands)) {
    ThrowInvalid(cube, fmt::format("{} wavelengths for {} bands: without a wavelength for each "
                                   "band, its colours are unknown",
                                   cube.wavelengths_nm.size(), cube.bands));
  }
  for (const double nm : cube.wavelengths_nm) {
    if (!std::isfinite(nm)) ThrowInvalid(cube, "a wavelength is not a number");
  }
  if (!(white > 0)) ThrowInvalid(cube, fmt::format("white must be positive, not {}", white));
}

// Bands in ascending order of wavelength.
std::vector<size_t> SortedBands(const Cube& cube) {
  const std::vector<double>& nm = cube.wavelengths_nm;
  std::vector<size_t> order(nm.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return nm[a] < nm[b]; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (nm[order[i]] == nm[order[i - 1]]) {
      ThrowInvalid(cube, fmt::format("two bands have the wavelength {} nm", nm[order[i]]));
    }
  }
  return order;
}

// What a unit of light at the observer's i-th wavelength adds to linear sRGB, relative to white.
std::array<std::array<double, 3>, kObserver.size()> SrgbOfObserver() {
  std::array<std::array<double, 3>, kObserver.size()> srgb;
  for (int channel = 0; channel < 3; ++channel) {
    double sum = 0;
    for (size_t i = 0; i < kObserver.size(); ++i) {
      srgb[i][channel] = std::inner_product(kObserver[i].begin(), kObserver[i].end(),
                                            kXyzToSrgb[channel].begin(), 0.0);
      sum += srgb[i][channel];
    }
    for (auto& value : srgb) value[channel] /= sum;
  }
  return srgb;
}

// Moves the observer's weights onto the cube's bands: interpolating a spectrum linearly and then
// weighting it is the same as weighting its bands by these.
BandWeights ObserverWeights(const Cube& cube) {
  const std::vector<double>& nm = cube.wavelengths_nm;
  const std::vector<size_t> order = SortedBands(cube);
  if (nm[order.front()] > kMustStartNm || nm[order.back()] < kMustEndNm) {
    ThrowInvalid(cube, fmt::format("its bands from {} to {} nm do not cover {} to {} nm, so its "
                                   "colours are unknown; choose three bands for a false-colour "
                                   "picture",
                                   nm[order.front()], nm[order.back()], kMustStartNm, kMustEndNm));
  }
  BandWeights weights(nm.size(), {0, 0, 0});
  const auto srgb = SrgbOfObserver();
  for (size_t i = 0; i < srgb.size(); ++i) {
    const double at = kObserverFirstNm + kObserverStepNm * static_cast<double>(i);
    const auto above =
        std::lower_bound(order.begin(), order.end(), at,
                         [&](size_t band, double value) { return nm[band] < value; });
    const size_t high = above == order.end() ? order.back() : *above;
    const size_t low = above == order.begin() ? order.front() : *(above - 1);
    const double share =
        high == low ? 1 : std::clamp((at - nm[low]) / (nm[high] - nm[low]), 0., 1.);
    for (int channel = 0; channel < 3; ++channel) {
      weights[low][channel] += (1 - share) * srgb[i][channel];
      weights[high][channel] += share * srgb[i][channel];
    }
  }
  return weights;
}

float EncodeSrgb(double linear) {
  if (!(linear > 0)) return 0;  // NaN too
  if (linear >= 1) return 255;
  const double encoded =
      linear <= 0.0031308 ? 12.92 * linear : 1.055 * std::pow(linear, 1 / 2.4) - 0.055;
  return static_cast<float>(std::round(encoded * 255));
}

Image Render(const Cube& cube, const BandWeights& weights, double white) {
  Image image;
  image.width = cube.width;
  image.height = cube.height;
  image.source = cube.provenance.source;
  image.data.resize(static_cast<size_t>(3 * cube.pixels()));
  std::vector<double> light(static_cast<size_t>(cube.width));
  for (int64_t y = 0; y < cube.height; ++y) {
    for (int64_t channel = 0; channel < 3; ++channel) {
      std::fill(light.begin(), light.end(), 0.0);
      for (int64_t band = 0; band < cube.bands; ++band) {
        const double weight = weights[band][channel] / white;
        if (weight == 0) continue;
        const float* in = cube.data.data() + (band * cube.height + y) * cube.width;
        for (int64_t x = 0; x < cube.width; ++x) light[x] += weight * in[x];
      }
      float* out = image.data.data() + (channel * cube.height + y) * cube.width;
      std::transform(light.begin(), light.end(), out, EncodeSrgb);
    }
  }
  return image;
}

}  // namespace

Image RenderSrgb(const Cube& cube, double white) {
  CheckCube(cube, white);
  return Render(cube, ObserverWeights(cube), white);
}

Image FalseColor(const Cube& cube, double red_nm, double green_nm, double blue_nm, double white) {
  CheckCube(cube, white);
  const std::vector<double>& nm = cube.wavelengths_nm;
  const auto [first, last] = std::minmax_element(nm.begin(), nm.end());
  BandWeights weights(nm.size(), {0, 0, 0});
  const std::array<double, 3> wanted = {red_nm, green_nm, blue_nm};
  for (int channel = 0; channel < 3; ++channel) {
    const double at = wanted[channel];
    if (!(at >= *first && at <= *last)) {
      ThrowInvalid(cube, fmt::format("{} nm is outside its bands, {} to {} nm", at, *first, *last));
    }
    const auto nearest = std::min_element(nm.begin(), nm.end(), [&](double a, double b) {
      return std::abs(a - at) < std::abs(b - at);
    });
    weights[nearest - nm.begin()][channel] = 1;
  }
  return Render(cube, weights, white);
}

}  // namespace mstpp
