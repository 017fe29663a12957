// SPDX-License-Identifier: Apache-2.0
// TIFF through libtiff: 8 or 16-bit unsigned and 32-bit float RGB, and palettes; strips and tiles,
// samples side by side or in planes.
//
// Pages: a file with one picture is read, whatever reduced copies and masks follow it. With several
// full pictures there is no telling which one is meant, so it is refused.
#include <fmt/format.h>
#include <tiffio.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "io/image_reader.h"
#include "io/tiff_memory.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

// Zstandard packs a plain area this far; the others stay well below.
constexpr uint64_t kExpansion = 1 << 15;
constexpr int kMostPages = 64;

// LZMA is not among them: it lets a file of some bytes ask for gigabytes.
constexpr uint16_t kCompressions[] = {
    COMPRESSION_NONE,    COMPRESSION_LZW,  COMPRESSION_PACKBITS, COMPRESSION_ADOBE_DEFLATE,
    COMPRESSION_DEFLATE, COMPRESSION_JPEG, COMPRESSION_ZSTD,
};

// A rectangle of decoded samples at (x, y) of the picture.
struct Block {
  int64_t x, y, width, height;
  int plane;  // which sample it holds, or -1: all of them, interleaved
  const uint8_t* samples;
  int64_t row_bytes;
};

template <typename T>
T Load(const uint8_t* samples, int64_t index) {
  T value;
  std::memcpy(&value, samples + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <typename T>
constexpr float White() {
  return std::is_floating_point_v<T> ? 1.0f : static_cast<float>(std::numeric_limits<T>::max());
}

class TiffReader {
 public:
  explicit TiffReader(const EncodedImage& file);
  DecodedImage Read();

 private:
  [[noreturn]] void ThrowUnsupported(const std::string& what) const;
  void CheckPages() const;
  void CheckKind() const;
  void ReadPalette();
  ColorProfile Profile() const;
  template <typename Put>
  void ForEachBlock(const Put& put);
  template <typename Put>
  void ForEachTile(const Put& put);
  template <typename T>
  void PutBlock(const Block& block, Image* image) const;
  void PutPaletteBlock(const Block& block, Image* image) const;

  const EncodedImage& file_;
  TiffMemory tiff_;
  uint32_t width_ = 0, height_ = 0;
  uint16_t samples_, bits_, format_, photometric_, compression_;
  bool planes_;
  std::array<std::vector<uint8_t>, 3> palette_;
};

TiffReader::TiffReader(const EncodedImage& file) : file_(file), tiff_(file.name, file.bytes) {
  // A profile that libtiff could not load is a warning there and wrong colours here.
  if (tiff_.warning().find("ICC") != std::string::npos) {
    tiff_.ThrowCorrupt("its ICC colour profile is broken");
  }
  width_ = tiff_.Tag<uint32_t>(TIFFTAG_IMAGEWIDTH, 0);
  height_ = tiff_.Tag<uint32_t>(TIFFTAG_IMAGELENGTH, 0);
  samples_ = tiff_.Tag<uint16_t>(TIFFTAG_SAMPLESPERPIXEL, 1);
  bits_ = tiff_.Tag<uint16_t>(TIFFTAG_BITSPERSAMPLE, 1);
  format_ = tiff_.Tag<uint16_t>(TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_UINT);
  photometric_ = tiff_.Tag<uint16_t>(TIFFTAG_PHOTOMETRIC, std::numeric_limits<uint16_t>::max());
  compression_ = tiff_.Tag<uint16_t>(TIFFTAG_COMPRESSION, COMPRESSION_NONE);
  planes_ = tiff_.Tag<uint16_t>(TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG) == PLANARCONFIG_SEPARATE;
}

void TiffReader::ThrowUnsupported(const std::string& what) const {
  throw Error(ErrorCode::kUnsupported, file_.name,
              fmt::format("{}; RGB TIFFs of 8 or 16-bit counts or 32-bit floats are read: convert "
                          "it in an image editor",
                          what));
}

void TiffReader::CheckPages() const {
  constexpr uint32_t kNotAPage = FILETYPE_REDUCEDIMAGE | FILETYPE_MASK;
  void* dng_version = nullptr;
  uint16_t dng_count = 0;
  if (TIFFGetField(tiff_.get(), TIFFTAG_DNGVERSION, &dng_count, &dng_version) == 1 ||
      (tiff_.Tag<uint32_t>(TIFFTAG_SUBFILETYPE, 0) & kNotAPage) != 0) {
    ThrowUnsupported("is a camera's raw file or begins with a thumbnail");
  }
  for (int page = 1; TIFFLastDirectory(tiff_.get()) == 0; ++page) {
    if (page == kMostPages) ThrowUnsupported(fmt::format("has over {} pages", kMostPages));
    if (TIFFReadDirectory(tiff_.get()) == 0) tiff_.ThrowCorrupt("a later page is broken");
    if ((tiff_.Tag<uint32_t>(TIFFTAG_SUBFILETYPE, 0) & kNotAPage) == 0) {
      ThrowUnsupported("holds several pictures, one of which must be cut out");
    }
  }
  if (TIFFSetDirectory(tiff_.get(), 0) == 0) tiff_.ThrowCorrupt("its first page is broken");
}

void TiffReader::CheckKind() const {
  if (std::find(std::begin(kCompressions), std::end(kCompressions), compression_) ==
      std::end(kCompressions)) {
    ThrowUnsupported(fmt::format("is compressed by method {}", compression_));
  }
  switch (photometric_) {
    case PHOTOMETRIC_MINISBLACK:
    case PHOTOMETRIC_MINISWHITE:
      ThrowGrey(file_.name);
    case PHOTOMETRIC_SEPARATED:
      ThrowCmyk(file_.name);
    case PHOTOMETRIC_PALETTE: {
      const bool whole = bits_ == 1 || bits_ == 2 || bits_ == 4 || bits_ == 8;
      if (!whole || samples_ != 1) ThrowUnsupported("has a palette of a rare kind");
      return;
    }
    case PHOTOMETRIC_RGB:
      break;
    case PHOTOMETRIC_YCBCR:
      if (compression_ == COMPRESSION_JPEG) break;
      ThrowUnsupported("holds YCbCr colours");
    default:
      ThrowUnsupported(fmt::format("holds colours of kind {}", photometric_));
  }
  const bool counts = format_ == SAMPLEFORMAT_UINT || format_ == SAMPLEFORMAT_VOID;
  const bool known =
      (counts && (bits_ == 8 || bits_ == 16)) || (format_ == SAMPLEFORMAT_IEEEFP && bits_ == 32);
  if (!known) {
    ThrowUnsupported(fmt::format("has samples of {} bits and format {}", bits_, format_));
  }
  if (samples_ < 3) ThrowUnsupported(fmt::format("has {} samples a pixel", samples_));
}

// The palette is 16-bit by TIFF's definition, but made from 8 bits, whose upper byte it keeps
// however they were widened. Some writers stored the 8 bits as they were.
void TiffReader::ReadPalette() {
  uint16_t* columns[3] = {};
  if (TIFFGetField(tiff_.get(), TIFFTAG_COLORMAP, &columns[0], &columns[1], &columns[2]) != 1) {
    tiff_.ThrowCorrupt("has no palette");
  }
  const size_t size = size_t{1} << bits_;
  bool wide = false;
  for (const uint16_t* column : columns) {
    wide = wide || std::any_of(column, column + size, [](uint16_t v) { return v > 255; });
  }
  for (int channel = 0; channel < 3; ++channel) {
    palette_[channel].resize(size);
    for (size_t i = 0; i < size; ++i) {
      palette_[channel][i] = static_cast<uint8_t>(columns[channel][i] >> (wide ? 8 : 0));
    }
  }
}

ColorProfile TiffReader::Profile() const {
  uint32_t bytes = 0;
  const uint8_t* icc = nullptr;
  if (TIFFGetField(tiff_.get(), TIFFTAG_ICCPROFILE, &bytes, &icc) != 1) return {};
  return ColorProfile::FromIcc(file_.name, {icc, bytes});
}

template <typename Put>
void TiffReader::ForEachTile(const Put& put) {
  TIFF* tiff = tiff_.get();
  const auto width = tiff_.Tag<uint32_t>(TIFFTAG_TILEWIDTH, 0);
  const auto height = tiff_.Tag<uint32_t>(TIFFTAG_TILELENGTH, 0);
  const int64_t pixel_bits = int64_t{bits_} * (planes_ ? 1 : samples_);
  CheckSize(file_, width, height, (pixel_bits + 7) / 8, kExpansion);
  const int64_t row_bytes = (width * pixel_bits + 7) / 8;
  if (TIFFTileSize64(tiff) != static_cast<uint64_t>(row_bytes) * height) {
    ThrowUnsupported("has tiles of a rare layout");
  }
  std::vector<uint8_t> tile(static_cast<size_t>(row_bytes) * height);
  for (int plane = 0; plane < (planes_ ? samples_ : 1); ++plane) {
    for (int64_t y = 0; y < height_; y += height) {
      for (int64_t x = 0; x < width_; x += width) {
        if (TIFFReadTile(tiff, tile.data(), x, y, 0, plane) < 0) {
          tiff_.ThrowCorrupt(fmt::format("its pixels at ({}, {}) are broken", x, y));
        }
        put(Block{x, y, std::min<int64_t>(width, width_ - x),
                  std::min<int64_t>(height, height_ - y), planes_ ? plane : -1, tile.data(),
                  row_bytes});
      }
    }
  }
}

template <typename Put>
void TiffReader::ForEachBlock(const Put& put) {
  TIFF* tiff = tiff_.get();
  if (TIFFIsTiled(tiff) != 0) return ForEachTile(put);
  const int64_t row_bits = int64_t{bits_} * (planes_ ? 1 : samples_) * width_;
  std::vector<uint8_t> row(static_cast<size_t>((row_bits + 7) / 8));
  if (TIFFScanlineSize64(tiff) != row.size()) ThrowUnsupported("has rows of a rare layout");
  for (int plane = 0; plane < (planes_ ? samples_ : 1); ++plane) {
    for (int64_t y = 0; y < height_; ++y) {
      if (TIFFReadScanline(tiff, row.data(), y, plane) < 0) {
        tiff_.ThrowCorrupt(fmt::format("its pixels in row {} are broken", y));
      }
      put(Block{0, y, width_, 1, planes_ ? plane : -1, row.data(), 0});
    }
  }
}

template <typename T>
void TiffReader::PutBlock(const Block& block, Image* image) const {
  const int first = std::max(block.plane, 0);
  const int count = block.plane < 0 ? samples_ : 1;
  for (int64_t y = 0; y < block.height; ++y) {
    const uint8_t* in = block.samples + y * block.row_bytes;
    for (int sample = 0; sample < count; ++sample) {
      const int channel = first + sample;
      float* out = channel < 3 ? image->data.data() + channel * image->pixels() +
                                     (block.y + y) * image->width + block.x
                               : nullptr;
      for (int64_t x = 0; x < block.width; ++x) {
        const auto value = static_cast<float>(Load<T>(in, x * count + sample));
        if (!std::isfinite(value)) {
          throw Error(ErrorCode::kUnsupported, file_.name,
                      fmt::format("holds NaN or infinity at ({}, {}); fill such pixels first",
                                  block.x + x, block.y + y));
        }
        if (out != nullptr) {
          out[x] = value;
        } else if (value != White<T>()) {
          ThrowTransparent(file_.name);
        }
      }
    }
  }
}

void TiffReader::PutPaletteBlock(const Block& block, Image* image) const {
  const int mask = (1 << bits_) - 1;
  for (int64_t y = 0; y < block.height; ++y) {
    const uint8_t* in = block.samples + y * block.row_bytes;
    for (int64_t x = 0; x < block.width; ++x) {
      const int64_t bit = x * bits_;
      const int index = in[bit / 8] >> (8 - bits_ - bit % 8) & mask;
      for (int64_t channel = 0; channel < 3; ++channel) {
        image->data[channel * image->pixels() + (block.y + y) * image->width + block.x + x] =
            palette_[channel][index];
      }
    }
  }
}

DecodedImage TiffReader::Read() {
  CheckPages();
  CheckKind();
  const uint64_t pixel_bits = uint64_t{bits_} * samples_;
  CheckSize(file_, width_, height_, (pixel_bits + 7) / 8, kExpansion);
  const auto orientation = tiff_.Tag<uint16_t>(TIFFTAG_ORIENTATION, ORIENTATION_TOPLEFT);
  if (compression_ == COMPRESSION_JPEG && photometric_ == PHOTOMETRIC_YCBCR) {
    TIFFSetField(tiff_.get(), TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
  }

  tiff_.ForgetMessages();
  const float white = bits_ == 32 ? 1.0f : bits_ == 16 ? 65535.0f : 255.0f;
  Image image = MakeImage(file_, width_, height_, white);
  if (photometric_ == PHOTOMETRIC_PALETTE) {
    ReadPalette();
    ForEachBlock([&](const Block& block) { PutPaletteBlock(block, &image); });
  } else if (bits_ == 8) {
    ForEachBlock([&](const Block& block) { PutBlock<uint8_t>(block, &image); });
  } else if (bits_ == 16) {
    ForEachBlock([&](const Block& block) { PutBlock<uint16_t>(block, &image); });
  } else {
    ForEachBlock([&](const Block& block) { PutBlock<float>(block, &image); });
  }
  // Such as a JPEG stream that was cut short, which libtiff would fill with grey.
  if (!tiff_.warning().empty()) tiff_.ThrowCorrupt("its pixels are broken");
  return {std::move(image), Profile(), orientation};
}

}  // namespace

DecodedImage ReadTiff(const EncodedImage& file) { return TiffReader(file).Read(); }

}  // namespace mstpp
