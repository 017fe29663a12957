// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "mstpp/engine.h"

namespace mstpp {

// Throws Error (kInvalidArgument) unless both views have data and sides of 1 or more, `output` is
// as large as `input` with `bands` channels and gives every value a place of its own, and the
// memory from the first to the last value of one does not overlap that of the other.
void CheckTensorViews(const TensorView& input, const MutableTensorView& output, int channels,
                      int bands);

// "2 x 3 x 482 x 512"
std::string ShapeText(const TensorView& view);

}  // namespace mstpp
