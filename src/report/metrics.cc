// SPDX-License-Identifier: Apache-2.0
#include "report/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "mstpp/error.h"

namespace mstpp {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

float At(const TensorView& view, int64_t band, int64_t y, int64_t x) {
  return view.data[band * view.stride_c + y * view.stride_h + x * view.stride_w];
}

// visit(value, expected) for every pair.
template <typename Visit>
void ForEach(const TensorView& cube, const TensorView& expected, Visit visit) {
  for (int64_t band = 0; band < cube.c; ++band) {
    for (int64_t y = 0; y < cube.h; ++y) {
      for (int64_t x = 0; x < cube.w; ++x) {
        visit(static_cast<double>(At(cube, band, y, x)),
              static_cast<double>(At(expected, band, y, x)));
      }
    }
  }
}

double Count(const TensorView& view) {
  return static_cast<double>(view.c) * static_cast<double>(view.h) * static_cast<double>(view.w);
}

Spread SpreadOf(std::vector<float>& values) {
  if (values.empty()) return {kNaN, kNaN, kNaN};
  double sum = 0;
  for (const float value : values) sum += value;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  double median = *middle;
  if (values.size() % 2 == 0) {
    median = (median + *std::max_element(values.begin(), middle)) / 2;
  }
  return {sum / static_cast<double>(values.size()), median,
          *std::max_element(middle, values.end())};
}

}  // namespace

TensorView CropBorder(const TensorView& view, int64_t border, const std::string& where) {
  TensorView crop = view;
  crop.h -= 2 * border;
  crop.w -= 2 * border;
  if (crop.h < 1 || crop.w < 1) {
    throw Error(ErrorCode::kInvalidArgument, where,
                fmt::format("nothing is left of {} x {} pixels without {} on each side; use a "
                            "smaller --crop, or --crop 0",
                            view.w, view.h, border));
  }
  crop.data += border * (view.stride_h + view.stride_w);
  return crop;
}

void CheckFinite(const TensorView& view, const std::string& where) {
  int64_t bad = 0;
  ForEach(view, view, [&](double value, double) { bad += std::isfinite(value) ? 0 : 1; });
  if (bad > 0) {
    throw Error(ErrorCode::kInvalidArgument, where,
                fmt::format("{} of {:.0f} values are NaN or infinite", bad, Count(view)));
  }
}

Difference MeasureDifference(const TensorView& cube, const TensorView& expected) {
  Difference difference;
  double error_square = 0, square = 0;
  std::vector<float> errors;
  errors.reserve(static_cast<size_t>(Count(cube)));
  ForEach(cube, expected, [&](double value, double e) {
    errors.push_back(static_cast<float>(std::abs(value - e)));
    error_square += (value - e) * (value - e);
    square += e * e;
  });
  difference.absolute = SpreadOf(errors);
  difference.relative_rms = error_square == 0 ? 0 : std::sqrt(error_square / square);
  errors.clear();
  ForEach(cube, expected, [&](double value, double e) {
    if (e != 0) errors.push_back(static_cast<float>(std::abs(value - e) / std::abs(e)));
  });
  difference.zeros = static_cast<int64_t>(Count(cube)) - static_cast<int64_t>(errors.size());
  difference.relative = SpreadOf(errors);
  return difference;
}

double Rmse(const TensorView& cube, const TensorView& expected) {
  double sum = 0;
  ForEach(cube, expected, [&](double value, double e) { sum += (value - e) * (value - e); });
  return std::sqrt(sum / Count(cube));
}

double Psnr(const TensorView& cube, const TensorView& expected) {
  double sum = 0;
  ForEach(cube, expected, [&](double value, double e) {
    const double error = std::clamp(value, 0., 1.) - std::clamp(e, 0., 1.);
    sum += error * error;
  });
  return -10 * std::log10(sum / Count(cube));
}

double SpectralAngle(const TensorView& cube, const TensorView& expected) {
  double sum = 0;
  int64_t pixels = 0;
  for (int64_t y = 0; y < cube.h; ++y) {
    for (int64_t x = 0; x < cube.w; ++x) {
      double product = 0, square = 0, expected_square = 0;
      for (int64_t band = 0; band < cube.c; ++band) {
        const double value = At(cube, band, y, x), e = At(expected, band, y, x);
        product += value * e;
        square += value * value;
        expected_square += e * e;
      }
      if (square == 0 || expected_square == 0) continue;
      sum += std::acos(std::clamp(product / std::sqrt(square * expected_square), -1., 1.));
      ++pixels;
    }
  }
  return pixels == 0 ? kNaN : sum / static_cast<double>(pixels) * 180 / std::numbers::pi;
}

}  // namespace mstpp
