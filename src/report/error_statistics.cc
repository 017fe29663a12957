// SPDX-License-Identifier: Apache-2.0
#include "report/error_statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mstpp {

void ErrorStatistics::Add(float value, float expected) {
  ++count_;
  if (!std::isfinite(value) || !std::isfinite(expected)) {
    ++not_finite_;
    return;
  }
  const double v = value, e = expected, error = std::abs(v - e);
  max_ = std::max(max_, error);
  largest_ = std::max(largest_, std::abs(e));
  sum_ += error;
  error_square_ += error * error;
  value_square_ += v * v;
  expected_square_ += e * e;
  product_ += v * e;
}

void ErrorStatistics::Add(const TensorView& values, const TensorView& expected) {
  const auto at = [](const TensorView& view, int64_t n, int64_t c, int64_t y, int64_t x) {
    return view.data[n * view.stride_n + c * view.stride_c + y * view.stride_h + x * view.stride_w];
  };
  for (int64_t n = 0; n < values.n; ++n) {
    for (int64_t y = 0; y < values.h; ++y) {
      for (int64_t x = 0; x < values.w; ++x) {
        for (int64_t c = 0; c < values.c; ++c) {
          Add(at(values, n, c, y, x), at(expected, n, c, y, x));
        }
      }
    }
  }
}

double ErrorStatistics::max() const {
  return not_finite_ > 0 ? std::numeric_limits<double>::infinity() : max_;
}

double ErrorStatistics::mean() const {
  const int64_t finite = count_ - not_finite_;
  return finite > 0 ? sum_ / static_cast<double>(finite) : 0;
}

double ErrorStatistics::relative() const {
  if (error_square_ == 0) return 0;
  return std::sqrt(error_square_ / expected_square_);  // infinite if all expected values are 0
}

double ErrorStatistics::cosine() const {
  if (value_square_ == 0 && expected_square_ == 0) return 1;
  if (value_square_ == 0 || expected_square_ == 0) return 0;
  return std::clamp(product_ / std::sqrt(value_square_) / std::sqrt(expected_square_), -1., 1.);
}

}  // namespace mstpp
