// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cpu/kernels.h"

namespace mstpp::cpu {

Panels::Panels(size_t rows, size_t columns)
    : rows_(rows),
      width_(PanelWidth()),
      count_((columns + width_ - 1) / width_),
      data_(rows_ * width_ * count_) {}

void Panels::Zero() { std::fill_n(data_.data(), data_.size(), 0.0f); }

AlignedBuffer PackDepthwise(const Tensor& weight) {
  const auto channels = static_cast<size_t>(weight.shape[0]);
  const size_t panel = PanelWidth();
  const size_t lanes = panel / 2;
  AlignedBuffer packed((channels + panel - 1) / panel * panel * 9);
  for (size_t c = 0; c < channels; ++c) {
    for (size_t tap = 0; tap < 9; ++tap) {
      packed.data()[(c / lanes * 9 + tap) * lanes + c % lanes] = weight.data[c * 9 + tap];
    }
  }
  return packed;
}

}  // namespace mstpp::cpu
