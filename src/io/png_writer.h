// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "mstpp/image.h"

namespace mstpp {

// Writes an sRGB picture of three channels: 8 bits a sample if its white is 255, 16 if 65535.
// Counts are rounded and clipped to 0..white; NaN becomes 0. The file appears whole or not at all.
// Throws Error (kInvalidArgument, kIo).
void WritePng(const std::string& path, const Image& image);

}  // namespace mstpp
