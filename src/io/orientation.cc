// SPDX-License-Identifier: Apache-2.0
#include "io/orientation.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace mstpp {
namespace {

// Where the stored pixel for output (y, x) lies: origin + y * row_step + x * column_step.
struct Walk {
  int64_t origin, row_step, column_step;
};

Walk WalkFor(int orientation, int64_t width, int64_t height) {
  const int64_t right = width - 1, bottom = (height - 1) * width;
  switch (orientation) {
    case 2:
      return {right, width, -1};
    case 3:
      return {bottom + right, -width, -1};
    case 4:
      return {bottom, -width, 1};
    case 5:
      return {0, 1, width};
    case 6:
      return {bottom, 1, -width};
    case 7:
      return {bottom + right, -1, -width};
    default:  // 8
      return {right, -1, width};
  }
}

// In squares, so that a transposition touches each cache line once.
void TurnPlane(const float* in, const Walk& walk, int64_t width, int64_t height, float* out) {
  constexpr int64_t kSide = 32;
  for (int64_t top = 0; top < height; top += kSide) {
    for (int64_t left = 0; left < width; left += kSide) {
      for (int64_t y = top; y < std::min(top + kSide, height); ++y) {
        const int64_t row = walk.origin + y * walk.row_step;
        for (int64_t x = left; x < std::min(left + kSide, width); ++x) {
          out[y * width + x] = in[row + x * walk.column_step];
        }
      }
    }
  }
}

}  // namespace

void ApplyOrientation(int orientation, Image* image) {
  if (orientation < 2 || orientation > 8) return;
  const Walk walk = WalkFor(orientation, image->width, image->height);
  if (orientation >= 5) std::swap(image->width, image->height);
  std::vector<float> plane(static_cast<size_t>(image->pixels()));
  for (int64_t channel = 0; channel < image->channels; ++channel) {
    float* data = image->data.data() + channel * image->pixels();
    TurnPlane(data, walk, image->width, image->height, plane.data());
    std::copy(plane.begin(), plane.end(), data);
  }
}

}  // namespace mstpp
