// SPDX-License-Identifier: Apache-2.0
// JPEG through TurboJPEG. Its warnings (a file cut short, bits that decode to nonsense) are errors
// here: the library would go on with grey. TurboJPEG shows no markers, so those before the pixels
// are walked here for the colour profile (APP2), EXIF (APP1) and the frame's kind.
#include <fmt/format.h>
#include <turbojpeg.h>

#include <algorithm>
#include <memory>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

#include "io/exif.h"
#include "io/image_reader.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

using namespace std::string_view_literals;
using Bytes = std::span<const uint8_t>;

// A block of 64 pixels takes at least 1 bit in each component's scan; 4:1:1 has 1.5 blocks for 64.
constexpr uint64_t kExpansion = 2048;

struct TurboDeleter {
  void operator()(void* handle) const { tjDestroy(handle); }
};

[[noreturn]] void ThrowCorrupt(const std::string& name, std::string_view what) {
  throw Error(ErrorCode::kCorrupt, name,
              fmt::format("{}; copy the file again, or save it anew from an image editor", what));
}

struct Markers {
  Bytes exif;                  // from the byte order mark on
  std::vector<Bytes> profile;  // parts in order; empty spans are missing
};

bool StripPrefix(std::string_view prefix, Bytes* bytes) {
  if (bytes->size() < prefix.size() || !std::equal(prefix.begin(), prefix.end(), bytes->begin())) {
    return false;
  }
  *bytes = bytes->subspan(prefix.size());
  return true;
}

// ICC's annex B.4: profiles over 64 KiB are cut into numbered parts.
void AddProfilePart(const std::string& name, Bytes part, Markers* markers) {
  if (part.size() < 2 || part[0] == 0 || part[0] > part[1]) {
    ThrowCorrupt(name, "its ICC colour profile is misnumbered");
  }
  std::vector<Bytes>& parts = markers->profile;
  if (parts.empty()) parts.resize(part[1]);
  if (parts.size() != part[1] || !parts[part[0] - 1].empty()) {
    ThrowCorrupt(name, "its ICC colour profile is misnumbered");
  }
  parts[part[0] - 1] = part.subspan(2);
}

void CheckFrame(const std::string& name, int marker, Bytes frame) {
  const bool lossless_or_hierarchical =
      (marker & 3) == 3 || (marker > 0xc3 && marker < 0xc9) || marker > 0xcb;
  if (lossless_or_hierarchical || (!frame.empty() && frame[0] != 8)) {
    throw Error(ErrorCode::kUnsupported, name,
                "is a JPEG of a rare kind (lossless, hierarchical or not 8 bits a sample); convert "
                "it to a PNG or TIFF of 8 or 16 bits");
  }
}

Markers WalkMarkers(const EncodedImage& file) {
  constexpr int kStartOfScan = 0xda;
  Markers markers;
  Bytes rest = file.bytes.subspan(2);
  while (true) {
    while (rest.size() >= 2 && rest[0] == 0xff && rest[1] == 0xff) rest = rest.subspan(1);
    if (rest.size() < 4 || rest[0] != 0xff) ThrowCorrupt(file.name, "has a broken JPEG header");
    const int marker = rest[1];
    const size_t length = rest[2] << 8 | rest[3];  // counts its own two bytes
    if (length < 2 || length > rest.size() - 2) {
      ThrowCorrupt(file.name, "has a broken JPEG header");
    }
    if (marker == kStartOfScan) return markers;
    Bytes body = rest.subspan(4, length - 2);
    rest = rest.subspan(2 + length);
    const bool frame = marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 &&
                       marker != 0xcc;  // those three are tables
    if (frame) {
      CheckFrame(file.name, marker, body);
    } else if (marker == 0xe1 && StripPrefix("Exif\0\0"sv, &body)) {
      if (markers.exif.empty()) markers.exif = body;
    } else if (marker == 0xe2 && StripPrefix("ICC_PROFILE\0"sv, &body)) {
      AddProfilePart(file.name, body, &markers);
    }
  }
}

ColorProfile ProfileOf(const std::string& name, const Markers& markers, const ExifInfo& exif) {
  if (markers.profile.empty()) return exif.adobe_rgb ? ColorProfile::AdobeRgb() : ColorProfile();
  std::vector<uint8_t> profile;
  for (const Bytes& part : markers.profile) {
    if (part.empty()) ThrowCorrupt(name, "a part of its ICC colour profile is missing");
    profile.insert(profile.end(), part.begin(), part.end());
  }
  return ColorProfile::FromIcc(name, profile);
}

}  // namespace

DecodedImage ReadJpeg(const EncodedImage& file) {
  const Markers markers = WalkMarkers(file);
  const std::unique_ptr<void, TurboDeleter> turbo(tjInitDecompress());
  if (turbo == nullptr) throw std::bad_alloc();
  const auto check = [&](int status) {
    if (status != 0) ThrowCorrupt(file.name, tjGetErrorStr2(turbo.get()));
  };

  int width = 0, height = 0, subsampling = -1, colors = -1;
  check(tjDecompressHeader3(turbo.get(), file.bytes.data(), file.bytes.size(), &width, &height,
                            &subsampling, &colors));
  CheckSize(file, width, height, 3, kExpansion);
  if (colors == TJCS_GRAY) ThrowGrey(file.name);
  if (colors == TJCS_CMYK || colors == TJCS_YCCK) ThrowCmyk(file.name);
  const ExifInfo exif = ParseExif(markers.exif);

  const size_t row_bytes = size_t{3} * width;
  const auto rgb = std::make_unique_for_overwrite<uint8_t[]>(row_bytes * height);
  check(tjDecompress2(turbo.get(), file.bytes.data(), file.bytes.size(), rgb.get(), width, 0,
                      height, TJPF_RGB,
                      TJFLAG_ACCURATEDCT | TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS));
  Image image = MakeImage(file, width, height, 255);
  for (int y = 0; y < height; ++y) PutRow(rgb.get() + y * row_bytes, 3, y, &image);
  return {std::move(image), ProfileOf(file.name, markers, exif), exif.orientation};
}

}  // namespace mstpp
