// SPDX-License-Identifier: Apache-2.0
// The whole public API of mstpp: a photograph in, a hyperspectral cube out.
//
//   auto model = mstpp::Model::Default();
//   auto engine = mstpp::Engine(model, {.device = "cpu"});
//   mstpp::Cube cube = engine.Run(mstpp::ReadImage("photo.jpg"));
//   mstpp::WriteCube("photo.mat", cube);
#pragma once

#include "mstpp/cube.h"     // IWYU pragma: export
#include "mstpp/engine.h"   // IWYU pragma: export
#include "mstpp/error.h"    // IWYU pragma: export
#include "mstpp/image.h"    // IWYU pragma: export
#include "mstpp/model.h"    // IWYU pragma: export
#include "mstpp/options.h"  // IWYU pragma: export

namespace mstpp {
const char* Version();  // "0.1.0"
}
