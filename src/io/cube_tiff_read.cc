// SPDX-License-Identifier: Apache-2.0
// Reads cubes from TIFF: one image with a sample for each band, in planes or interleaved, or one
// image of one sample for each band; strips or tiles; any compression that libtiff has.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "io/cube_formats.h"
#include "io/input_file.h"
#include "io/metadata.h"
#include "io/tiff_file.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

constexpr int64_t kMaxImages = 4096;

// How the numbers of one image lie in the file. Strips are tiles as wide as the image.
struct Layout {
  int64_t width = 0, height = 0, samples = 0;
  int64_t tile_width = 0, tile_height = 0;
  int bits = 0, sample_format = 0;
  bool interleaved = false, tiled = false;
  bool operator==(const Layout&) const = default;

  int64_t samples_each() const { return interleaved ? samples : 1; }  // in a tile's pixel
  int64_t tile_bytes() const { return tile_width * tile_height * samples_each() * bits / 8; }
};

bool Readable(const Layout& layout) {
  switch (layout.sample_format) {
    case SAMPLEFORMAT_IEEEFP:
      return layout.bits == 32 || layout.bits == 64;
    case SAMPLEFORMAT_UINT:
    case SAMPLEFORMAT_INT:
      return layout.bits == 8 || layout.bits == 16 || layout.bits == 32;
    default:
      return false;
  }
}

template <typename T>
void Gather(const uint8_t* bytes, int64_t step, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes + i * step * static_cast<int64_t>(sizeof(T)), sizeof(T));
    out[i] = static_cast<float>(value);
  }
}

// Every step-th number, as the layout's type.
void Gather(const Layout& layout, const uint8_t* bytes, int64_t step, int64_t count, float* out) {
  switch (layout.sample_format * 100 + layout.bits) {
    case SAMPLEFORMAT_IEEEFP * 100 + 32:
      return Gather<float>(bytes, step, count, out);
    case SAMPLEFORMAT_IEEEFP * 100 + 64:
      return Gather<double>(bytes, step, count, out);
    case SAMPLEFORMAT_UINT * 100 + 8:
      return Gather<uint8_t>(bytes, step, count, out);
    case SAMPLEFORMAT_UINT * 100 + 16:
      return Gather<uint16_t>(bytes, step, count, out);
    case SAMPLEFORMAT_UINT * 100 + 32:
      return Gather<uint32_t>(bytes, step, count, out);
    case SAMPLEFORMAT_INT * 100 + 8:
      return Gather<int8_t>(bytes, step, count, out);
    case SAMPLEFORMAT_INT * 100 + 16:
      return Gather<int16_t>(bytes, step, count, out);
    case SAMPLEFORMAT_INT * 100 + 32:
      return Gather<int32_t>(bytes, step, count, out);
    default:
      throw Error(ErrorCode::kInternal, "TIFF", "a number type that Readable did not refuse");
  }
}

class TiffReader {
 public:
  explicit TiffReader(const std::string& path) : file_(path), tiff_(file_) {}

  Cube Read() {
    const Layout layout = ReadLayout();
    const int64_t images = CountImages(layout);
    const int64_t bands = std::max(layout.samples, images);
    CheckSize(layout, images);
    Cube cube;
    Allocate(path(), bands, layout.height, layout.width, &cube);
    ReadDescription(&cube);
    tile_.resize(static_cast<size_t>(layout.tile_bytes()));
    for (int64_t image = 0; image < images; ++image) {
      if (image > 0) tiff_.Next();
      ReadImage(layout, cube.data.data() + image * cube.pixels());
    }
    return cube;
  }

 private:
  const std::string& path() const { return file_.path(); }

  [[noreturn]] void Unsupported(const std::string& what) const {
    throw Error(ErrorCode::kUnsupported, path(), what);
  }

  // Of the current image.
  Layout ReadLayout() const {
    Layout layout;
    layout.width = tiff_.Tag<uint32_t>(TIFFTAG_IMAGEWIDTH, 0);
    layout.height = tiff_.Tag<uint32_t>(TIFFTAG_IMAGELENGTH, 0);
    layout.samples = tiff_.Tag<uint16_t>(TIFFTAG_SAMPLESPERPIXEL, 1);
    layout.bits = tiff_.Tag<uint16_t>(TIFFTAG_BITSPERSAMPLE, 1);
    layout.sample_format = tiff_.Tag<uint16_t>(TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_UINT);
    layout.interleaved =
        layout.samples > 1 && tiff_.Tag<uint16_t>(TIFFTAG_PLANARCONFIG, 1) == PLANARCONFIG_CONTIG;
    layout.tiled = TIFFIsTiled(tiff_.get()) != 0;
    if (layout.tiled) {
      layout.tile_width = tiff_.Tag<uint32_t>(TIFFTAG_TILEWIDTH, 0);
      layout.tile_height = tiff_.Tag<uint32_t>(TIFFTAG_TILELENGTH, 0);
    } else {
      layout.tile_width = layout.width;
      layout.tile_height =
          std::min<int64_t>(tiff_.Tag<uint32_t>(TIFFTAG_ROWSPERSTRIP, 1), layout.height);
    }
    const auto photometric = tiff_.Tag<uint16_t>(TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK);
    if (photometric != PHOTOMETRIC_MINISBLACK && photometric != PHOTOMETRIC_RGB) {
      Unsupported("a picture, not a cube: its samples are no plain numbers");
    }
    if (!Readable(layout)) {
      Unsupported(fmt::format("numbers of {} bits, sample format {}; save it as float32",
                              layout.bits, layout.sample_format));
    }
    if (layout.width < 1 || layout.height < 1 || layout.samples < 1 || layout.tile_width < 1 ||
        layout.tile_height < 1) {
      throw Error(ErrorCode::kCorrupt, path(), "an image, strip or tile of no size");
    }
    return layout;
  }

  // All must be alike; smaller copies for viewers are not counted.
  int64_t CountImages(const Layout& first) {
    int64_t images = 1;
    while (TIFFLastDirectory(tiff_.get()) == 0) {
      if (images == kMaxImages) Unsupported(fmt::format("more than {} images", kMaxImages));
      tiff_.Next();
      const auto kind = tiff_.Tag<uint32_t>(TIFFTAG_SUBFILETYPE, 0);
      if ((kind & FILETYPE_REDUCEDIMAGE) != 0) break;
      if (first.samples > 1) Unsupported("several images of several samples each");
      if (ReadLayout() != first) Unsupported("its images are of different sizes or types");
      ++images;
    }
    if (TIFFSetDirectory(tiff_.get(), 0) != 1) {
      tiff_.Throw(ErrorCode::kCorrupt, "cannot read image 1");
    }
    return images;
  }

  // Refuses sizes that the bytes of the file cannot fill, before anything is allocated for them.
  void CheckSize(const Layout& layout, int64_t images) const {
    const bool compressed =
        tiff_.Tag<uint16_t>(TIFFTAG_COMPRESSION, COMPRESSION_NONE) != COMPRESSION_NONE;
    // Above what Deflate and LZW can do. Tiles may stand out over the edges.
    const uint64_t ratio = compressed ? 2048 : 1;
    const uint64_t most = file_.size() * ratio;
    const auto bytes_each = static_cast<uint64_t>(layout.bits / 8);
    const uint64_t count =
        CubeElements(path(), std::max(layout.samples, images), layout.height, layout.width);
    const uint64_t tile =
        CubeElements(path(), layout.samples_each(), layout.tile_height, layout.tile_width);
    if (count > most / bytes_each || tile > most / bytes_each) {
      throw Error(ErrorCode::kCorrupt, path(),
                  fmt::format("{} numbers of {} bits are too many for a file of {} bytes", count,
                              layout.bits, file_.size()));
    }
  }

  void ReadDescription(Cube* cube) const {
    const char* text = nullptr;
    if (TIFFGetField(tiff_.get(), TIFFTAG_IMAGEDESCRIPTION, &text) == 1 && text != nullptr) {
      MetadataFromForeignText(text, path(), cube);
    }
  }

  // The current image, its samples into planes from `out` on.
  void ReadImage(const Layout& layout, float* out) {
    const int64_t planes = layout.interleaved ? 1 : layout.samples;
    for (int64_t plane = 0; plane < planes; ++plane) {
      for (int64_t y = 0; y < layout.height; y += layout.tile_height) {
        for (int64_t x = 0; x < layout.width; x += layout.tile_width) {
          ReadTile(layout, x, y, plane);
          Place(layout, x, y, out + plane * layout.width * layout.height);
        }
      }
    }
  }

  void ReadTile(const Layout& layout, int64_t x, int64_t y, int64_t plane) {
    const auto column = static_cast<uint32_t>(x), row = static_cast<uint32_t>(y);
    const auto sample = static_cast<uint16_t>(plane);
    const int64_t rows = std::min(layout.tile_height, layout.height - y);
    const int64_t wanted =
        layout.tiled ? layout.tile_bytes() : layout.tile_bytes() / layout.tile_height * rows;
    const int64_t got =
        layout.tiled
            ? TIFFReadEncodedTile(tiff_.get(), TIFFComputeTile(tiff_.get(), column, row, 0, sample),
                                  tile_.data(), wanted)
            : TIFFReadEncodedStrip(tiff_.get(), TIFFComputeStrip(tiff_.get(), row, sample),
                                   tile_.data(), wanted);
    if (got != wanted) {
      tiff_.Throw(ErrorCode::kCorrupt, fmt::format("cannot read row {} of plane {}", y, plane));
    }
  }

  // Copies the tile's part that lies in the image.
  void Place(const Layout& layout, int64_t x, int64_t y, float* out) const {
    const int64_t columns = std::min(layout.tile_width, layout.width - x);
    const int64_t rows = std::min(layout.tile_height, layout.height - y);
    const int64_t step = layout.samples_each();
    const int64_t number = layout.bits / 8;
    for (int64_t sample = 0; sample < step; ++sample) {
      float* const plane = out + sample * layout.width * layout.height;
      for (int64_t row = 0; row < rows; ++row) {
        Gather(layout, tile_.data() + (row * layout.tile_width * step + sample) * number, step,
               columns, plane + (y + row) * layout.width + x);
      }
    }
  }

  InputFile file_;
  TiffFile tiff_;
  std::vector<uint8_t> tile_;
};

}  // namespace

Cube ReadTiffCube(const std::string& path) { return TiffReader(path).Read(); }

}  // namespace mstpp
