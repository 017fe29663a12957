// SPDX-License-Identifier: Apache-2.0
// What the picture readers share. Each turns the bytes of one file into counts as they are stored
// and says what has still to be done to them; ReadImage does it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "io/color_profile.h"
#include "mstpp/image.h"

namespace mstpp {

// What a picture may ask for, checked before anything is allocated for its pixels. The libraries
// beneath have no such budgets of their own.
struct ImageLimits {
  int64_t pixels = int64_t{1} << 30;
};

struct EncodedImage {
  std::string name;  // for messages
  std::span<const uint8_t> bytes;
  ImageLimits limits;
};

struct DecodedImage {
  Image image;           // counts as stored
  ColorProfile profile;  // what the counts mean
  int orientation = 1;   // EXIF's number for how the rows and columns lie; others than 1..8 mean 1
};

// Each throws Error (kCorrupt, kUnsupported).
DecodedImage ReadJpeg(const EncodedImage& file);
DecodedImage ReadPng(const EncodedImage& file);
DecodedImage ReadTiff(const EncodedImage& file);

// ReadImage for a file in memory; `name` stands for its path.
Image ReadImageFromMemory(const std::string& name, std::span<const uint8_t> bytes,
                          const ImageLimits& limits = {});

// Refuses pictures without pixels, above the pixel budget, and of so many that a file of that size
// cannot hold them (`expansion`: the most bytes of samples that the format makes of one byte).
void CheckSize(const EncodedImage& file, uint64_t width, uint64_t height, uint64_t bytes_per_pixel,
               uint64_t expansion);

// An image of zeros; the size is one that CheckSize let through.
Image MakeImage(const EncodedImage& file, int64_t width, int64_t height, float white);

// The refusals that several formats share.
[[noreturn]] void ThrowGrey(const std::string& name);
[[noreturn]] void ThrowTransparent(const std::string& name);
[[noreturn]] void ThrowCmyk(const std::string& name);

// Spreads the first three of `samples` interleaved samples a pixel over the image's planes.
template <typename T>
void PutRow(const T* row, int samples, int64_t y, Image* image) {
  for (int64_t channel = 0; channel < 3; ++channel) {
    float* out = image->data.data() + (channel * image->height + y) * image->width;
    for (int64_t x = 0; x < image->width; ++x) {
      out[x] = static_cast<float>(row[x * samples + channel]);
    }
  }
}

}  // namespace mstpp
