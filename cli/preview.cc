// SPDX-License-Identifier: Apache-2.0
#include "preview.h"

#include "color/render.h"
#include "io/png_writer.h"

namespace mstpp::cli {

void WritePreview(const std::string& path, const Cube& cube) { WritePng(path, RenderSrgb(cube)); }

}  // namespace mstpp::cli
