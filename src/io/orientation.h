// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mstpp/image.h"

namespace mstpp {

// Turns a picture upright: `orientation` is EXIF's number (1..8) for how its rows and columns lie.
// Any other number means 1, as in EXIF's readers everywhere.
void ApplyOrientation(int orientation, Image* image);

}  // namespace mstpp
