// SPDX-License-Identifier: Apache-2.0
// What `mstpp info` says of a cube.
#pragma once

#include <string>

#include "console.h"
#include "mstpp/cube.h"

namespace mstpp::cli {

// By content, and by the ending where a format has no mark of its own (ENVI's data) or the file is
// too broken to show it.
bool LooksLikeCube(const std::string& path);

void TellCube(Console& console, const std::string& path, const Cube& cube);
Json CubeToJson(const std::string& path, const Cube& cube);

}  // namespace mstpp::cli
