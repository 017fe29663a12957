// SPDX-License-Identifier: Apache-2.0
#include "io/exif.h"

#include <libexif/exif-data.h>

#include <limits>
#include <memory>
#include <new>
#include <string_view>
#include <vector>

namespace mstpp {
namespace {

struct ExifDeleter {
  void operator()(ExifData* data) const { exif_data_unref(data); }
};

constexpr std::string_view kHeader("Exif\0\0", 6);

}  // namespace

ExifInfo ParseExif(std::span<const uint8_t> tiff) {
  ExifInfo info;
  if (tiff.size() > std::numeric_limits<unsigned>::max() - kHeader.size()) return info;
  std::vector<uint8_t> block(kHeader.begin(), kHeader.end());
  block.insert(block.end(), tiff.begin(), tiff.end());
  const std::unique_ptr<ExifData, ExifDeleter> data(exif_data_new());
  if (data == nullptr) throw std::bad_alloc();
  // Otherwise tags that the file lacks are made up.
  exif_data_unset_option(data.get(), EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
  exif_data_load_data(data.get(), block.data(), static_cast<unsigned>(block.size()));

  const ExifEntry* orientation =
      exif_content_get_entry(data->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
  if (orientation != nullptr && orientation->format == EXIF_FORMAT_SHORT &&
      orientation->size >= 2) {
    info.orientation = exif_get_short(orientation->data, exif_data_get_byte_order(data.get()));
  }
  const ExifEntry* index =
      exif_content_get_entry(data->ifd[EXIF_IFD_INTEROPERABILITY], EXIF_TAG_INTEROPERABILITY_INDEX);
  if (index != nullptr && index->size >= 3) {
    info.adobe_rgb =
        std::string_view(reinterpret_cast<const char*>(index->data), 3) == std::string_view("R03");
  }
  return info;
}

}  // namespace mstpp
