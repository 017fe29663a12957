// SPDX-License-Identifier: Apache-2.0
#include "engine/scaling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mstpp/error.h"

namespace mstpp {
namespace {

std::string Where(const Image& image) { return image.source.empty() ? "image" : image.source; }

// One NaN would spread over the whole cube through the attention.
void CheckFinite(const Image& image) {
  const auto bad =
      std::find_if(image.data.begin(), image.data.end(), [](float x) { return !std::isfinite(x); });
  if (bad == image.data.end()) return;
  const int64_t i = bad - image.data.begin();
  throw Error(
      ErrorCode::kInvalidArgument, Where(image),
      fmt::format("channel {} at x = {}, y = {} is {}; counts must be finite", i / image.pixels(),
                  i % image.width, i % image.pixels() / image.width, *bad));
}

ScalingRange ScaleMinMax(const Image& image, float* out) {
  const auto [least, greatest] = std::minmax_element(image.data.begin(), image.data.end());
  const float min = *least, range = *greatest - *least;
  if (range == 0.0f) {
    std::fill_n(out, image.data.size(), 0.0f);
  } else {
    std::transform(image.data.begin(), image.data.end(), out,
                   [=](float x) { return (x - min) / range; });
  }
  return {*least, *greatest};
}

ScalingRange ScaleUnit(const Image& image, float* out) {
  const float white = image.white;
  if (!(white > 0.0f) || !std::isfinite(white)) {
    throw Error(ErrorCode::kInvalidArgument, Where(image),
                fmt::format("white is {}; it must be the count of full scale", white));
  }
  std::transform(image.data.begin(), image.data.end(), out, [=](float x) { return x / white; });
  return {0.0, white};
}

}  // namespace

ScalingRange ScaleImage(const Image& image, Scaling scaling, float* out) {
  CheckFinite(image);
  switch (scaling) {
    case Scaling::kMinMax:
      return ScaleMinMax(image, out);
    case Scaling::kUnit:
      return ScaleUnit(image, out);
    case Scaling::kNone:
      std::copy(image.data.begin(), image.data.end(), out);
      return {};
    case Scaling::kFromWeights:
      break;
  }
  throw Error(ErrorCode::kInternal, "ScaleImage", "the scaling was not resolved");
}

}  // namespace mstpp
