// SPDX-License-Identifier: Apache-2.0
// The official self-ensemble: the network runs on eight flipped and transposed variants of the
// picture, and the results, turned back, are averaged or their median is taken.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "mstpp/options.h"

namespace mstpp {

// Flips and transpose apply in this order; undoing them goes the other way.
struct Variant {
  bool flip_x = false, flip_y = false, transpose = false;
};

// The order of the official code; it fixes the order of summation.
constexpr std::array<Variant, 8> kEnsembleVariants{{
    {false, false, false},
    {false, false, true},
    {false, true, false},
    {false, true, true},
    {true, false, false},
    {true, false, true},
    {true, true, false},
    {true, true, true},
}};

// Where the pixel (y, x) of a height x width picture lies in a plane of its variant.
class VariantLayout {
 public:
  VariantLayout(const Variant& variant, int64_t height, int64_t width);

  int64_t height() const { return height_; }  // of the variant
  int64_t width() const { return width_; }
  int64_t plane() const { return height_ * width_; }

  // Planar arrays: `picture` channels x height x width, `turned` channels x height() x width().
  void Turn(int64_t channels, const float* picture, float* turned) const;

  // Calls visit(i, j) for every value: i its index in the picture, j in the variant.
  template <typename Visit>
  void ForEach(int64_t channels, Visit visit) const;

 private:
  int64_t picture_height_, picture_width_;
  int64_t height_, width_;
  int64_t origin_, stride_y_, stride_x_;
};

// Reduces eight results to one, in `result`, without keeping all eight. Mean: result += value / 8,
// which rounds as the sum divided at the end does. Median: the four smallest values so far are kept
// in order; after eight the largest of them is the lower of the two middle ones, which is what
// torch.median gives.
class EnsembleReduction {
 public:
  // `storage` is working memory that may be used again; it grows to 3 x `size` for the median.
  EnsembleReduction(Ensemble ensemble, int64_t size, float* result, std::vector<float>& storage);

  void Add(const VariantLayout& layout, int64_t channels, const float* turned);

 private:
  Ensemble ensemble_;
  std::array<float*, 4> smallest_{};  // planes in ascending order; the last is `result`
};

}  // namespace mstpp
