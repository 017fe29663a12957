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
//
// Upright: the turn in EXIF (or TIFF's own tag) is applied.
// In sRGB: colours that the file says are others (an ICC profile, PNG's gamma and primaries, a
// camera's mark for Adobe RGB) are converted by relative colorimetric intent, and those outside
// sRGB clipped; a profile that means sRGB, or none, leaves every count as it is. Float TIFFs are
// used as they are, also beyond 0..1.
// Whole: a file that is cut short or damaged is an error, also where its library would only warn.
//
// Refused: grey, CMYK, alpha or extra channels that are not opaque everywhere, NaN, raw files,
// TIFFs of several full pictures, wide-gamut or high dynamic range PNGs (cICP), more than 2^30
// pixels.
//
// Throws Error (kNotFound, kIo, kCorrupt, kUnsupported, kOutOfMemory).
Image ReadImage(const std::string& path);

}  // namespace mstpp
