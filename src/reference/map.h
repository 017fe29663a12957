// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace mstpp::reference {

// A feature map in float64, height x width x channels.
struct Map {
  int64_t height = 0, width = 0, channels = 0;
  std::vector<double> data;

  Map() = default;
  Map(int64_t h, int64_t w, int64_t c)
      : height(h), width(w), channels(c), data(static_cast<size_t>(h * w * c)) {}

  int64_t pixels() const { return height * width; }
  double* pixel(int64_t i) { return data.data() + i * channels; }
  const double* pixel(int64_t i) const { return data.data() + i * channels; }
  double* at(int64_t y, int64_t x) { return pixel(y * width + x); }
  const double* at(int64_t y, int64_t x) const { return pixel(y * width + x); }
  bool Contains(int64_t y, int64_t x) const { return y >= 0 && y < height && x >= 0 && x < width; }
};

}  // namespace mstpp::reference
