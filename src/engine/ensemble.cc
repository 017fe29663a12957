// SPDX-License-Identifier: Apache-2.0
#include "engine/ensemble.h"

#include <algorithm>
#include <limits>

namespace mstpp {

VariantLayout::VariantLayout(const Variant& variant, int64_t height, int64_t width)
    : picture_height_(height),
      picture_width_(width),
      height_(variant.transpose ? width : height),
      width_(variant.transpose ? height : width) {
  const int64_t step_y = variant.transpose ? 1 : width;
  const int64_t step_x = variant.transpose ? height : 1;
  stride_y_ = variant.flip_y ? -step_y : step_y;
  stride_x_ = variant.flip_x ? -step_x : step_x;
  origin_ =
      (variant.flip_y ? (height - 1) * step_y : 0) + (variant.flip_x ? (width - 1) * step_x : 0);
}

// In square tiles: a transpose by whole rows would miss the cache at every value.
template <typename Visit>
void VariantLayout::ForEach(int64_t channels, Visit visit) const {
  constexpr int64_t kTile = 32;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t y0 = 0; y0 < picture_height_; y0 += kTile) {
      for (int64_t x0 = 0; x0 < picture_width_; x0 += kTile) {
        const int64_t y1 = std::min(y0 + kTile, picture_height_);
        const int64_t x1 = std::min(x0 + kTile, picture_width_);
        for (int64_t y = y0; y < y1; ++y) {
          const int64_t i = c * plane() + y * picture_width_;
          const int64_t j = c * plane() + origin_ + y * stride_y_;
          for (int64_t x = x0; x < x1; ++x) visit(i + x, j + x * stride_x_);
        }
      }
    }
  }
}

void VariantLayout::Turn(int64_t channels, const float* picture, float* turned) const {
  ForEach(channels, [=](int64_t i, int64_t j) { turned[j] = picture[i]; });
}

EnsembleReduction::EnsembleReduction(Ensemble ensemble, int64_t size, float* result,
                                     std::vector<float>& storage)
    : ensemble_(ensemble) {
  smallest_.back() = result;
  if (ensemble_ == Ensemble::kMean) {
    std::fill_n(result, size, 0.0f);
    return;
  }
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  storage.assign(3 * static_cast<size_t>(size), kInfinity);
  std::fill_n(result, size, kInfinity);
  for (int k = 0; k < 3; ++k) smallest_[k] = storage.data() + k * size;
}

void EnsembleReduction::Add(const VariantLayout& layout, int64_t channels, const float* turned) {
  if (ensemble_ == Ensemble::kMean) {
    float* sum = smallest_.back();
    constexpr float kShare = 1.0f / kEnsembleVariants.size();
    layout.ForEach(channels, [=](int64_t i, int64_t j) { sum[i] += kShare * turned[j]; });
    return;
  }
  layout.ForEach(channels, [=, smallest = smallest_](int64_t i, int64_t j) {
    float value = turned[j];
    for (float* plane : smallest) {
      const float least = std::min(plane[i], value);
      value = std::max(plane[i], value);
      plane[i] = least;
    }
  });
}

}  // namespace mstpp
