// SPDX-License-Identifier: Apache-2.0
#include "mstpp/image.h"

#include <fmt/format.h>

#include <memory>
#include <new>
#include <string_view>
#include <utility>

#include "io/image_reader.h"
#include "io/input_file.h"
#include "io/orientation.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

using namespace std::string_view_literals;

struct Signature {
  size_t offset;
  std::string_view bytes;
  const char* name;
};

// Files that people take for pictures we read, named so that the message helps.
constexpr Signature kOtherFormats[] = {
    {0, "GIF8"sv, "a GIF"},
    {0, "BM"sv, "a Windows bitmap"},
    {8, "WEBP"sv, "a WebP"},
    {4, "ftyp"sv, "a HEIC, AVIF, CR3 or video file"},
    {0, "\xff\x0a"sv, "a JPEG XL"},
    {4, "JXL "sv, "a JPEG XL"},
    {4, "jP  "sv, "a JPEG 2000"},
    {0, "8BPS"sv, "a Photoshop document"},
    {0, "\x76\x2f\x31\x01"sv, "an OpenEXR"},
    {0, "\x93NUMPY"sv, "a NumPy array"},
    {0, "%PDF"sv, "a PDF"},
};

bool Matches(std::span<const uint8_t> bytes, size_t offset, std::string_view signature) {
  if (bytes.size() < offset + signature.size()) return false;
  return std::string_view(reinterpret_cast<const char*>(bytes.data()) + offset, signature.size()) ==
         signature;
}

using Reader = DecodedImage (*)(const EncodedImage&);

// The reader for a file that begins so; kHeadBytes are enough. Throws Error.
constexpr size_t kHeadBytes = 16;

Reader FindReader(const std::string& name, std::span<const uint8_t> head) {
  const auto starts = [&](std::string_view signature) { return Matches(head, 0, signature); };
  if (starts("\xff\xd8\xff"sv)) return ReadJpeg;
  if (starts("\x89PNG\r\n\x1a\n"sv)) return ReadPng;
  if (starts("II*\0"sv) || starts("MM\0*"sv) || starts("II+\0"sv) || starts("MM\0+"sv)) {
    return ReadTiff;
  }
  if (head.empty()) throw Error(ErrorCode::kCorrupt, name, "the file is empty");
  for (const Signature& other : kOtherFormats) {
    if (Matches(head, other.offset, other.bytes)) {
      throw Error(
          ErrorCode::kUnsupported, name,
          fmt::format("is {}; JPEG, PNG and TIFF are read: convert it to one of them", other.name));
    }
  }
  throw Error(ErrorCode::kUnsupported, name, "is not a JPEG, PNG or TIFF picture");
}

}  // namespace

void CheckSize(const EncodedImage& file, uint64_t width, uint64_t height, uint64_t bytes_per_pixel,
               uint64_t expansion) {
  if (width == 0 || height == 0) throw Error(ErrorCode::kCorrupt, file.name, "has no pixels");
  // By division, since the product may overflow.
  if (width > static_cast<uint64_t>(file.limits.pixels) / height) {
    throw Error(ErrorCode::kUnsupported, file.name,
                fmt::format("{} x {} pixels are more than the {} that are read; scale the picture "
                            "down or cut it into parts",
                            width, height, file.limits.pixels));
  }
  // Small pictures (and TIFF's padded tiles) cost nothing, whatever their file's size.
  constexpr uint64_t kSmall = 1 << 20;
  const uint64_t bytes = width * height * bytes_per_pixel;
  if (bytes > kSmall && bytes / expansion > file.bytes.size()) {
    throw Error(ErrorCode::kCorrupt, file.name,
                fmt::format("{} x {} pixels cannot come from {} bytes: the file is cut short, or "
                            "made to exhaust memory",
                            width, height, file.bytes.size()));
  }
}

Image MakeImage(const EncodedImage& file, int64_t width, int64_t height, float white) {
  Image image;
  image.width = width;
  image.height = height;
  image.white = white;
  image.data.resize(static_cast<size_t>(3 * width * height));
  image.source = file.name;
  return image;
}

void ThrowGrey(const std::string& name) {
  throw Error(ErrorCode::kUnsupported, name,
              "is a grey picture, which says nothing about spectra; give the colour original");
}

void ThrowTransparent(const std::string& name) {
  throw Error(ErrorCode::kUnsupported, name,
              "is transparent in places, which no camera sees; flatten it onto a background in an "
              "image editor");
}

void ThrowCmyk(const std::string& name) {
  throw Error(ErrorCode::kUnsupported, name,
              "is a CMYK picture, made for printing; convert it to sRGB in an image editor, or "
              "give the original");
}

Image ReadImageFromMemory(const std::string& name, std::span<const uint8_t> bytes,
                          const ImageLimits& limits) {
  try {
    DecodedImage decoded = FindReader(name, bytes)({name, bytes, limits});
    decoded.profile.ConvertToSrgb(&decoded.image);
    ApplyOrientation(decoded.orientation, &decoded.image);
    return std::move(decoded.image);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, name, "not enough memory for the picture");
  }
}

Image ReadImage(const std::string& path) {
  constexpr uint64_t kMostBytes = uint64_t{16} << 30;  // 2^30 pixels of floats, and then some
  const InputFile file(path);
  uint8_t head[kHeadBytes];
  FindReader(path, {head, file.ReadSome(0, head, kHeadBytes)});  // before all of it is loaded
  if (file.size() > kMostBytes) {
    throw Error(ErrorCode::kUnsupported, path,
                fmt::format("{} bytes are more than the {} that are read; cut the picture into "
                            "parts",
                            file.size(), kMostBytes));
  }
  std::unique_ptr<uint8_t[]> bytes;
  try {
    bytes = std::make_unique_for_overwrite<uint8_t[]>(file.size());
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, path, "not enough memory to read the file");
  }
  file.ReadAt(0, bytes.get(), file.size());
  return ReadImageFromMemory(path, {bytes.get(), file.size()});
}

}  // namespace mstpp
