// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "mstpp/cube.h"

namespace mstpp {

// The cube with one band at each of `wavelengths_nm`, by linear interpolation between its own; as
// it is if they are the same to a hundredth of a nanometre. A cube that does not say its
// wavelengths is taken to have these, if it has as many bands. Throws Error (kInvalidArgument)
// naming the cube's source if it has other bands and one of the two has no wavelengths, or if its
// own do not reach from the first to the last wanted one.
Cube AtWavelengths(Cube cube, int bands, const std::vector<double>& wavelengths_nm);

}  // namespace mstpp
