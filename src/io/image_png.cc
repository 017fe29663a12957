// SPDX-License-Identifier: Apache-2.0
// PNG through libspng. Colours follow the PNG specification's order: cICP, iCCP, sRGB, gAMA and
// cHRM; a picture with none of them is taken as sRGB.
#include <fmt/format.h>
#include <spng.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "io/exif.h"
#include "io/image_reader.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

using Bytes = std::span<const uint8_t>;

constexpr uint64_t kExpansion = 1100;             // deflate's most is 1032
constexpr size_t kChunkLimit = size_t{32} << 20;  // inflated profiles, texts

struct ContextDeleter {
  void operator()(spng_ctx* context) const { spng_ctx_free(context); }
};

// The body of the first chunk of a type.
std::optional<Bytes> FindChunk(Bytes png, std::string_view type) {
  Bytes rest = png.subspan(8);
  while (rest.size() >= 12) {
    const size_t length = size_t{rest[0]} << 24 | rest[1] << 16 | rest[2] << 8 | rest[3];
    if (length > rest.size() - 12) break;
    if (std::equal(type.begin(), type.end(), rest.begin() + 4)) return rest.subspan(8, length);
    rest = rest.subspan(12 + length);
  }
  return std::nullopt;
}

class PngReader {
 public:
  explicit PngReader(const EncodedImage& file);
  DecodedImage Read();

 private:
  void Check(int status) const;
  template <typename Chunk>
  std::optional<Chunk> Get(const char* type, int (*get)(spng_ctx*, Chunk*)) const;
  template <typename T>
  void DecodePixels(int format, Image* image);
  template <typename T>
  void PutOpaqueRow(const T* rgba, int64_t y, Image* image) const;
  ColorProfile Profile() const;
  ColorProfile ProfileOfPrimaries() const;
  int Orientation() const;

  const EncodedImage& file_;
  std::unique_ptr<spng_ctx, ContextDeleter> context_;
  spng_ihdr header_{};
};

PngReader::PngReader(const EncodedImage& file) : file_(file), context_(spng_ctx_new(0)) {
  if (context_ == nullptr) throw std::bad_alloc();
  // Left to itself the library drops ancillary chunks that are broken, and a dropped profile means
  // wrong colours.
  Check(spng_set_crc_action(context_.get(), SPNG_CRC_ERROR, SPNG_CRC_ERROR));
  Check(spng_set_chunk_limits(context_.get(), kChunkLimit, kChunkLimit));
  Check(spng_set_png_buffer(context_.get(), file.bytes.data(), file.bytes.size()));
}

void PngReader::Check(int status) const {
  if (status == SPNG_EMEM) throw std::bad_alloc();
  if (status != SPNG_OK) {
    throw Error(ErrorCode::kCorrupt, file_.name,
                fmt::format("{}; copy the file again, or save it anew from an image editor",
                            spng_strerror(status)));
  }
}

template <typename Chunk>
std::optional<Chunk> PngReader::Get(const char* type, int (*get)(spng_ctx*, Chunk*)) const {
  Chunk chunk{};
  const int status = get(context_.get(), &chunk);
  if (status == SPNG_OK) return chunk;
  if (status != SPNG_ECHUNKAVAIL) Check(status);
  if (FindChunk(file_.bytes, type)) {
    throw Error(
        ErrorCode::kCorrupt, file_.name,
        fmt::format("its {} chunk is broken; save the picture anew from an image editor", type));
  }
  return std::nullopt;
}

template <typename T>
void PngReader::PutOpaqueRow(const T* rgba, int64_t y, Image* image) const {
  for (int64_t x = 0; x < image->width; ++x) {
    if (rgba[4 * x + 3] != std::numeric_limits<T>::max()) ThrowTransparent(file_.name);
  }
  PutRow(rgba, 4, y, image);
}

template <typename T>
void PngReader::DecodePixels(int format, Image* image) {
  const size_t row_samples = size_t{4} * header_.width;
  const bool interlaced = header_.interlace_method != SPNG_INTERLACE_NONE;
  const size_t rows = interlaced ? header_.height : 1;
  const auto rgba = std::make_unique_for_overwrite<T[]>(row_samples * rows);
  if (interlaced) {
    Check(spng_decode_image(context_.get(), rgba.get(), row_samples * rows * sizeof(T), format,
                            SPNG_DECODE_TRNS));
    for (size_t y = 0; y < rows; ++y) PutOpaqueRow(rgba.get() + y * row_samples, y, image);
    return;
  }
  Check(spng_decode_image(context_.get(), nullptr, 0, format,
                          SPNG_DECODE_TRNS | SPNG_DECODE_PROGRESSIVE));
  for (int64_t y = 0; y < image->height; ++y) {
    const int status = spng_decode_row(context_.get(), rgba.get(), row_samples * sizeof(T));
    const bool last = y + 1 == image->height;
    if (status != (last ? SPNG_EOI : SPNG_OK))
      Check(status == SPNG_OK ? SPNG_EIDAT_STREAM : status);
    PutOpaqueRow(rgba.get(), y, image);
  }
}

// gAMA and cHRM alone. Encoders write them for sRGB too (1 / 2.2 and Rec. 709's primaries), so
// within their usual rounding they mean sRGB.
ColorProfile PngReader::ProfileOfPrimaries() const {
  const auto gamma = Get<uint32_t>("gAMA", spng_get_gama_int);
  const auto chrm = Get<spng_chrm>("cHRM", spng_get_chrm);
  const bool usual_gamma = !gamma || std::abs(static_cast<double>(*gamma) - 45455) < 500;
  Chromaticities xy;
  bool usual_primaries = true;
  if (chrm) {
    const Chromaticities srgb;
    xy = {chrm->white_point_x, chrm->white_point_y, chrm->red_x,  chrm->red_y,
          chrm->green_x,       chrm->green_y,       chrm->blue_x, chrm->blue_y};
    const auto near = [](double a, double b) { return std::abs(a - b) < 0.002; };
    usual_primaries = near(xy.white_x, srgb.white_x) && near(xy.white_y, srgb.white_y) &&
                      near(xy.red_x, srgb.red_x) && near(xy.red_y, srgb.red_y) &&
                      near(xy.green_x, srgb.green_x) && near(xy.green_y, srgb.green_y) &&
                      near(xy.blue_x, srgb.blue_x) && near(xy.blue_y, srgb.blue_y);
  }
  if (usual_gamma && usual_primaries) return {};
  const std::optional<double> exponent = gamma ? std::optional<double>(1e5 / *gamma) : std::nullopt;
  return ColorProfile::FromPrimaries(file_.name, xy, exponent);
}

ColorProfile PngReader::Profile() const {
  if (const auto cicp = FindChunk(file_.bytes, "cICP")) {
    // Rec. 709 primaries, sRGB curve, RGB, full range: sRGB in ITU-T H.273's numbers.
    constexpr uint8_t kSrgb[] = {1, 13, 0, 1};
    if (!std::equal(cicp->begin(), cicp->end(), std::begin(kSrgb), std::end(kSrgb))) {
      throw Error(
          ErrorCode::kUnsupported, file_.name,
          "its colours are of a high dynamic range or wide gamut kind (cICP chunk); convert "
          "it to sRGB in an image editor");
    }
    return {};
  }
  if (const auto icc = Get<spng_iccp>("iCCP", spng_get_iccp)) {
    return ColorProfile::FromIcc(
        file_.name, {reinterpret_cast<const uint8_t*>(icc->profile), icc->profile_len});
  }
  if (Get<uint8_t>("sRGB", spng_get_srgb)) return {};
  return ProfileOfPrimaries();
}

int PngReader::Orientation() const {
  const auto exif = Get<spng_exif>("eXIf", spng_get_exif);
  if (!exif) return 1;
  return ParseExif({reinterpret_cast<const uint8_t*>(exif->data), exif->length}).orientation;
}

DecodedImage PngReader::Read() {
  Check(spng_get_ihdr(context_.get(), &header_));
  // Palettes come in 1 to 8 bits a pixel, colours in 3 or 6 bytes.
  const bool palette = header_.color_type == SPNG_COLOR_TYPE_INDEXED;
  const bool wide = header_.bit_depth == 16;
  CheckSize(file_, header_.width, header_.height,
            palette ? 1
            : wide  ? 6
                    : 3,
            palette ? kExpansion * (8 / std::min<int>(header_.bit_depth, 8)) : kExpansion);
  if (header_.color_type == SPNG_COLOR_TYPE_GRAYSCALE ||
      header_.color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA) {
    ThrowGrey(file_.name);
  }
  Image image = MakeImage(file_, header_.width, header_.height, wide ? 65535 : 255);
  if (wide) {
    DecodePixels<uint16_t>(SPNG_FMT_RGBA16, &image);
  } else {
    DecodePixels<uint8_t>(SPNG_FMT_RGBA8, &image);
  }
  Check(spng_decode_chunks(context_.get()));  // to the end: EXIF may follow the pixels
  Get<spng_trns>("tRNS", spng_get_trns);      // a broken one would have meant opaque
  return {std::move(image), Profile(), Orientation()};
}

}  // namespace

DecodedImage ReadPng(const EncodedImage& file) { return PngReader(file).Read(); }

}  // namespace mstpp
