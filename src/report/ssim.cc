// SPDX-License-Identifier: Apache-2.0
// The window slides down: each row is filtered across into the first and second moments of the two
// pictures, eleven such rows are kept and filtered down.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "report/metrics.h"

namespace mstpp {
namespace {

constexpr int kTaps = 11;
constexpr double kDeviation = 1.5;
constexpr double kC1 = 0.01 * 0.01, kC2 = 0.03 * 0.03;

enum Moment { kX, kY, kXX, kYY, kXY, kMoments };
using Moments = std::array<double, kMoments>;
using Taps = std::array<double, kTaps>;

Taps GaussianTaps() {
  Taps taps;
  double sum = 0;
  for (int i = 0; i < kTaps; ++i) {
    const int offset = i - kTaps / 2;
    const double at = offset / kDeviation;
    sum += taps[i] = std::exp(-at * at / 2);
  }
  for (double& tap : taps) tap /= sum;
  return taps;
}

void AddScaled(Moments& sum, double factor, const Moments& moments) {
  for (int m = 0; m < kMoments; ++m) sum[m] += factor * moments[m];
}

double Similarity(const Moments& m) {
  const double xx = m[kXX] - m[kX] * m[kX], yy = m[kYY] - m[kY] * m[kY];
  const double xy = m[kXY] - m[kX] * m[kY];
  return (2 * m[kX] * m[kY] + kC1) * (2 * xy + kC2) /
         ((m[kX] * m[kX] + m[kY] * m[kY] + kC1) * (xx + yy + kC2));
}

class BandSsim {
 public:
  BandSsim(const TensorView& cube, const TensorView& expected)
      : cube_(cube), expected_(expected), products_(static_cast<size_t>(cube.w)) {
    for (auto& row : rows_) row.resize(static_cast<size_t>(cube.w - kTaps + 1));
  }

  // The sum over all positions of the window.
  double Sum(int64_t band) {
    double sum = 0;
    for (int64_t y = 0; y < cube_.h; ++y) {
      FilterAcross(band, y);
      if (y + 1 < kTaps) continue;
      for (size_t x = 0; x < rows_[0].size(); ++x) {
        Moments moments{};
        for (int i = 0; i < kTaps; ++i) {
          AddScaled(moments, taps_[i], rows_[(y + 1 + i) % kTaps][x]);
        }
        sum += Similarity(moments);
      }
    }
    return sum;
  }

  double positions() const {
    return static_cast<double>(rows_[0].size()) * static_cast<double>(cube_.h - kTaps + 1);
  }

 private:
  void FilterAcross(int64_t band, int64_t y) {
    const auto at = [&](const TensorView& v, int64_t x) {
      const double value = v.data[band * v.stride_c + y * v.stride_h + x * v.stride_w];
      return std::clamp(value, 0., 1.);
    };
    for (int64_t x = 0; x < cube_.w; ++x) {
      const double a = at(cube_, x), b = at(expected_, x);
      products_[x] = {a, b, a * a, b * b, a * b};
    }
    std::vector<Moments>& row = rows_[y % kTaps];
    for (size_t x = 0; x < row.size(); ++x) {
      row[x] = {};
      for (int i = 0; i < kTaps; ++i) AddScaled(row[x], taps_[i], products_[x + i]);
    }
  }

  const TensorView& cube_;
  const TensorView& expected_;
  const Taps taps_ = GaussianTaps();
  std::vector<Moments> products_;
  std::array<std::vector<Moments>, kTaps> rows_;
};

}  // namespace

double Ssim(const TensorView& cube, const TensorView& expected) {
  if (cube.h < kTaps || cube.w < kTaps) return std::numeric_limits<double>::quiet_NaN();
  BandSsim ssim(cube, expected);
  double sum = 0;
  for (int64_t band = 0; band < cube.c; ++band) sum += ssim.Sum(band);
  return sum / ssim.positions() / static_cast<double>(cube.c);
}

}  // namespace mstpp
