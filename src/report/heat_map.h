// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mstpp/engine.h"
#include "mstpp/image.h"

namespace mstpp {

// A picture of each pixel's largest absolute error over the bands of two views (n = 1) of one
// shape: black is 0, then blue, red, yellow, and white is `greatest` or more, or an error that is
// not a number.
Image ErrorHeatMap(const TensorView& values, const TensorView& expected, double greatest);

}  // namespace mstpp
