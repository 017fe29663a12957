// SPDX-License-Identifier: Apache-2.0
// What a file is, by its first bytes.
#pragma once

#include <string>

namespace mstpp::cli {

enum class Content { kPicture, kTiff, kNpy, kCube, kOther };

// kTiff may be a picture or a cube, kNpy a tensor or a cube, kCube is HDF5, MATLAB or an ENVI
// header. A file that cannot be read is kOther: whoever reads it next will say why.
Content ContentOf(const std::string& path);

// ".tif" of "scan.TIF".
std::string LowerExtension(const std::string& path);

}  // namespace mstpp::cli
