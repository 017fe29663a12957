// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "mstpp/image.h"
#include "mstpp/options.h"

namespace mstpp {

// The counts that became 0 and 1; nothing for Scaling::kNone.
struct ScalingRange {
  std::optional<double> min, max;
};

// Writes the scaled picture to `out`, planar. kMinMax maps the least and greatest count of all
// pixels and channels to 0 and 1, in float32 as the official code does; a picture of one constant
// count, 0/0 there, becomes zeros. kUnit divides by `white`. Throws Error (kInvalidArgument) for a
// count that is NaN or infinite, and for a `white` that is not positive.
ScalingRange ScaleImage(const Image& image, Scaling scaling, float* out);

}  // namespace mstpp
