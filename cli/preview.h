// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "mstpp/cube.h"

namespace mstpp::cli {

// An sRGB rendering of the cube as PNG. Throws Error.
void WritePreview(const std::string& path, const Cube& cube);

}  // namespace mstpp::cli
