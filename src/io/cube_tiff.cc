// SPDX-License-Identifier: Apache-2.0
// Writes a cube as one TIFF image of float32 with a sample for each band, the samples in planes of
// their own (PlanarConfiguration 2), and the metadata as JSON in ImageDescription.
// cube_tiff_read.cc reads it.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "io/cube_formats.h"
#include "io/metadata.h"
#include "io/tiff_file.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

constexpr int64_t kStripBytes = 1 << 18;

template <typename... Values>
void Set(const TiffFile& tiff, uint32_t tag, Values... values) {
  if (TIFFSetField(tiff.get(), tag, values...) != 1) tiff.Throw(ErrorCode::kIo, "cannot write");
}

void SetTags(const TiffFile& tiff, const Cube& cube, uint32_t rows_per_strip) {
  Set(tiff, TIFFTAG_IMAGEWIDTH, static_cast<uint32_t>(cube.width));
  Set(tiff, TIFFTAG_IMAGELENGTH, static_cast<uint32_t>(cube.height));
  Set(tiff, TIFFTAG_SAMPLESPERPIXEL, static_cast<uint32_t>(cube.bands));
  Set(tiff, TIFFTAG_BITSPERSAMPLE, 32U);
  Set(tiff, TIFFTAG_SAMPLEFORMAT, static_cast<uint32_t>(SAMPLEFORMAT_IEEEFP));
  Set(tiff, TIFFTAG_PLANARCONFIG, static_cast<uint32_t>(PLANARCONFIG_SEPARATE));
  Set(tiff, TIFFTAG_PHOTOMETRIC, static_cast<uint32_t>(PHOTOMETRIC_MINISBLACK));
  Set(tiff, TIFFTAG_COMPRESSION, static_cast<uint32_t>(COMPRESSION_NONE));
  Set(tiff, TIFFTAG_ROWSPERSTRIP, rows_per_strip);
  if (cube.bands > 1) {
    // One sample is the grey of MINISBLACK; the others are extra ones of no meaning to TIFF.
    const std::vector<uint16_t> extra(static_cast<size_t>(cube.bands - 1), EXTRASAMPLE_UNSPECIFIED);
    Set(tiff, TIFFTAG_EXTRASAMPLES, static_cast<uint32_t>(extra.size()), extra.data());
  }
  Set(tiff, TIFFTAG_IMAGEDESCRIPTION, MetadataToText(cube, -1).c_str());
}

}  // namespace

void WriteTiffCube(const std::string& path, const Cube& cube) {
  static_assert(std::endian::native == std::endian::little,
                "numbers are written as they lie in memory, little-endian");
  if (cube.bands > std::numeric_limits<uint16_t>::max() ||
      std::max(cube.width, cube.height) > std::numeric_limits<int32_t>::max()) {
    throw Error(ErrorCode::kInvalidArgument, path,
                "too many bands, rows or columns for TIFF; write .mat, .npy or ENVI");
  }
  const int64_t row_bytes = cube.width * static_cast<int64_t>(sizeof(float));
  const int64_t rows_per_strip = std::clamp<int64_t>(kStripBytes / row_bytes, 1, cube.height);
  const int64_t strips = (cube.height + rows_per_strip - 1) / rows_per_strip;

  // What is not numbers: 16 bytes a strip in the tables, the tags, the description.
  const uint64_t bytes = cube.data.size() * sizeof(float);
  const uint64_t other = static_cast<uint64_t>(strips * cube.bands) * 16 + (1 << 20);
  const bool big = bytes + other > std::numeric_limits<uint32_t>::max();

  AtomicFile file(path);
  TiffFile tiff(path, file.fd(), big);
  SetTags(tiff, cube, static_cast<uint32_t>(rows_per_strip));
  const float* next = cube.data.data();
  uint32_t strip = 0;
  for (int64_t band = 0; band < cube.bands; ++band) {
    for (int64_t row = 0; row < cube.height; row += rows_per_strip) {
      const int64_t count = std::min(rows_per_strip, cube.height - row) * cube.width;
      const int64_t size = count * static_cast<int64_t>(sizeof(float));
      // libtiff changes the numbers only where it has to swap their bytes.
      if (TIFFWriteEncodedStrip(tiff.get(), strip++, const_cast<float*>(next), size) != size) {
        tiff.Throw(ErrorCode::kIo, "cannot write");
      }
      next += count;
    }
  }
  tiff.Finish();
  file.Commit();
}

}  // namespace mstpp
