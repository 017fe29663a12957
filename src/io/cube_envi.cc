// SPDX-License-Identifier: Apache-2.0
// ENVI: the numbers in name.img, their description in name.hdr.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "core/atomic_file.h"
#include "io/byte_order.h"
#include "io/cube_formats.h"
#include "io/envi_header.h"
#include "io/input_file.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxHeader = 1 << 24;
constexpr int64_t kPiece = 1 << 18;  // numbers converted at a time

bool IsFile(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

std::string FirstFile(const std::vector<std::string>& candidates, const std::string& other) {
  for (const std::string& path : candidates) {
    if (path != other && IsFile(path)) return path;
  }
  return "";
}

template <typename T>
void ConvertAs(const uint8_t* bytes, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    out[i] = static_cast<float>(value);
  }
}

void Convert(int data_type, const uint8_t* bytes, int64_t count, float* out) {
  switch (data_type) {
    case 1:
      return ConvertAs<uint8_t>(bytes, count, out);
    case 2:
      return ConvertAs<int16_t>(bytes, count, out);
    case 3:
      return ConvertAs<int32_t>(bytes, count, out);
    case 4:
      return ConvertAs<float>(bytes, count, out);
    case 5:
      return ConvertAs<double>(bytes, count, out);
    case 12:
      return ConvertAs<uint16_t>(bytes, count, out);
    case 13:
      return ConvertAs<uint32_t>(bytes, count, out);
    default:
      throw Error(ErrorCode::kInternal, "ENVI", fmt::format("data type {}", data_type));
  }
}

// Reads the numbers in the file's order, in pieces of whole runs of `run` numbers, and hands each
// piece over with the index of its first run.
template <typename Use>
void ReadRuns(const InputFile& file, const EnviHeader& header, int64_t runs, int64_t run,
              const Use& use) {
  const auto bytes_each = static_cast<size_t>(EnviTypeBytes(header.data_type));
  const int64_t at_once = std::clamp<int64_t>(kPiece / run, 1, runs);
  std::vector<uint8_t> bytes(static_cast<size_t>(at_once * run) * bytes_each);
  std::vector<float> values(static_cast<size_t>(at_once * run));
  uint64_t offset = header.header_offset;
  for (int64_t first = 0; first < runs; first += at_once) {
    const int64_t now = std::min(at_once, runs - first);
    const size_t size = static_cast<size_t>(now * run) * bytes_each;
    file.ReadAt(offset, bytes.data(), size);
    offset += size;
    if (header.big_endian != (std::endian::native == std::endian::big)) {
      SwapBytes(bytes.data(), bytes_each, static_cast<size_t>(now * run));
    }
    Convert(header.data_type, bytes.data(), now * run, values.data());
    use(first, now, values.data());
  }
}

void ReadNumbers(const InputFile& file, const EnviHeader& header, Cube* cube) {
  const int64_t width = cube->width, bands = cube->bands, rows = cube->height * bands;
  float* const data = cube->data.data();
  const auto place_rows = [&](int64_t first, int64_t count, const float* values) {
    for (int64_t i = 0; i < count; ++i) {
      // The file's row i is row `i / bands` of band `i % bands` if interleaved by line.
      const int64_t row = first + i;
      const int64_t to =
          header.interleave == Interleave::kBsq ? row : row % bands * cube->height + row / bands;
      std::copy_n(values + i * width, width, data + to * width);
    }
  };
  const auto place_pixels = [&](int64_t first, int64_t count, const float* values) {
    for (int64_t band = 0; band < bands; ++band) {
      float* const out = data + band * cube->pixels() + first;
      for (int64_t i = 0; i < count; ++i) out[i] = values[i * bands + band];
    }
  };
  if (header.interleave == Interleave::kBip) {
    ReadRuns(file, header, cube->pixels(), bands, place_pixels);
  } else {
    ReadRuns(file, header, rows, width, place_rows);
  }
}

}  // namespace

std::string FindEnviData(const std::string& header_path) {
  const std::string stem = ReplaceExtension(header_path, "");  // itself data in name.img.hdr
  std::vector<std::string> candidates;
  for (const char* extension : {".img", ".IMG", ".dat", ".DAT", ".raw", ".RAW", ".bsq", ".BSQ",
                                ".bil", ".BIL", ".bip", ".BIP", ""}) {
    candidates.push_back(stem + extension);
  }
  return FirstFile(candidates, header_path);
}

std::string FindEnviHeader(const std::string& data_path) {
  return FirstFile({ReplaceExtension(data_path, ".hdr"), ReplaceExtension(data_path, ".HDR"),
                    data_path + ".hdr", data_path + ".HDR"},
                   data_path);
}

void WriteEnvi(const std::string& data_path, const std::string& header_path, const Cube& cube) {
  static_assert(std::endian::native == std::endian::little,
                "numbers are written as they lie in memory, little-endian");
  // Both are written before either takes its place.
  AtomicFile header(header_path);
  const std::string text = FormatEnviHeader(cube);
  header.Write(text.data(), text.size());
  AtomicFile data(data_path);
  data.Write(cube.data.data(), cube.data.size() * sizeof(float));
  data.Commit();
  header.Commit();
}

Cube ReadEnvi(const std::string& data_path, const std::string& header_path) {
  EnviHeader header = ParseEnviHeader(header_path, InputFile(header_path).ReadText(kMaxHeader));
  const InputFile file(data_path);
  const uint64_t count = CubeElements(header_path, header.bands, header.lines, header.samples);
  const uint64_t expected = count * static_cast<uint64_t>(EnviTypeBytes(header.data_type));
  if (header.header_offset > file.size() || file.size() - header.header_offset != expected) {
    throw Error(ErrorCode::kCorrupt, data_path,
                fmt::format("{} bytes; its header {} asks for {} after the first {}", file.size(),
                            header_path, expected, header.header_offset));
  }
  Cube cube;
  Allocate(header_path, header.bands, header.lines, header.samples, &cube);
  ReadNumbers(file, header, &cube);
  cube.wavelengths_nm = std::move(header.wavelengths_nm);
  cube.provenance = std::move(header.provenance);
  return cube;
}

}  // namespace mstpp
