// SPDX-License-Identifier: Apache-2.0
#include "report/heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace mstpp {
namespace {

// Lightness rises evenly, so that the map also reads in grey.
constexpr std::array<std::array<float, 3>, 5> kColors{
    {{0, 0, 0}, {50, 20, 130}, {190, 40, 90}, {250, 160, 30}, {255, 255, 255}}};

std::array<float, 3> ColorOf(double share) {
  constexpr int kLast = static_cast<int>(kColors.size()) - 1;
  if (!(share < 1)) return kColors[kLast];
  const double at = std::max(share, 0.) * kLast;
  const int below = static_cast<int>(at);
  const auto part = static_cast<float>(at - below);
  std::array<float, 3> color;
  for (int i = 0; i < 3; ++i) {
    color[i] = kColors[below][i] + part * (kColors[below + 1][i] - kColors[below][i]);
  }
  return color;
}

double PixelError(const TensorView& values, const TensorView& expected, int64_t y, int64_t x) {
  double greatest = 0;
  for (int64_t c = 0; c < values.c; ++c) {
    const double value =
        values.data[c * values.stride_c + y * values.stride_h + x * values.stride_w];
    const double error = std::abs(
        value -
        expected.data[c * expected.stride_c + y * expected.stride_h + x * expected.stride_w]);
    if (!(error <= greatest)) greatest = error;
    if (std::isnan(error)) return error;
  }
  return greatest;
}

}  // namespace

Image ErrorHeatMap(const TensorView& values, const TensorView& expected, double greatest) {
  Image image;
  image.width = values.w;
  image.height = values.h;
  image.data.resize(static_cast<size_t>(3 * image.pixels()));
  for (int64_t y = 0; y < values.h; ++y) {
    for (int64_t x = 0; x < values.w; ++x) {
      const double error = PixelError(values, expected, y, x);
      const auto color = ColorOf(error == 0 ? 0 : error / greatest);
      for (int64_t c = 0; c < 3; ++c) {
        image.data[(c * image.height + y) * image.width + x] = color[c];
      }
    }
  }
  return image;
}

}  // namespace mstpp
