// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mstpp {

// A picture, or any planar float array of the network's input channels.
struct Image {
  int64_t width = 0;
  int64_t height = 0;
  int64_t channels = 3;     // pictures: red, green, blue in this order
  float white = 255.0f;     // the count that means full scale: 255, 65535, or 1 for float data
  std::vector<float> data;  // planar, channels x height x width, counts from 0 to `white`
  std::string source;       // where it came from, for metadata and messages

  int64_t pixels() const { return width * height; }
};

// Reads a JPEG, PNG (8 or 16 bit, palette) or TIFF (8 or 16 bit, float) by content, not by name.
// The EXIF turn is applied and an ICC profile other than sRGB is converted to sRGB. Grey pictures,
// CMYK, and pictures with an alpha channel that is not opaque everywhere are refused.
// Throws Error (kNotFound, kIo, kCorrupt, kUnsupported).
Image ReadImage(const std::string& path);

}  // namespace mstpp
