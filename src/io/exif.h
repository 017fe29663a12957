// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace mstpp {

struct ExifInfo {
  int orientation = 1;
  bool adobe_rgb = false;  // cameras mark Adobe RGB so (DCF's "R03") instead of with a profile
};

// `tiff` is EXIF data from its byte order mark on. What cannot be read keeps its default.
ExifInfo ParseExif(std::span<const uint8_t> tiff);

}  // namespace mstpp
