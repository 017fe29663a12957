// SPDX-License-Identifier: Apache-2.0
#include "mstpp/cube.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <new>
#include <string_view>

#include "io/cube_formats.h"
#include "io/input_file.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

namespace fs = std::filesystem;

enum class Format { kMat, kEnviHeader, kEnviData, kNpy, kTiff };

constexpr struct {
  const char* extension;
  Format format;
} kExtensions[] = {
    {".mat", Format::kMat}, {".hdr", Format::kEnviHeader}, {".img", Format::kEnviData},
    {".npy", Format::kNpy}, {".tif", Format::kTiff},       {".tiff", Format::kTiff},
};

Format FormatOf(const std::string& path) {
  std::string extension = fs::path(path).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const auto& entry : kExtensions) {
    if (extension == entry.extension) return entry.format;
  }
  throw Error(ErrorCode::kInvalidArgument, path,
              fmt::format("{} names no cube format; use .mat, .hdr or .img (ENVI), .npy, .tif or "
                          ".tiff",
                          extension.empty() ? "no extension" : "the extension " + extension));
}

void CheckCube(const std::string& path, const Cube& cube) {
  const auto fail = [&](const std::string& message) {
    throw Error(ErrorCode::kInvalidArgument, path, "cannot write the cube: " + message);
  };
  const int64_t sides[] = {cube.bands, cube.height, cube.width};
  uint64_t left = cube.data.size();
  for (const int64_t side : sides) {
    if (side < 1) fail(fmt::format("it is {} x {} x {}", sides[0], sides[1], sides[2]));
    if (left % static_cast<uint64_t>(side) != 0) left = 0;
    left /= static_cast<uint64_t>(side);
  }
  if (left != 1) {
    fail(fmt::format("it has {} numbers, not {} x {} x {}", cube.data.size(), sides[0], sides[1],
                     sides[2]));
  }
  if (cube.wavelengths_nm.empty()) return;
  if (cube.wavelengths_nm.size() != static_cast<size_t>(cube.bands)) {
    fail(fmt::format("{} wavelengths for {} bands", cube.wavelengths_nm.size(), cube.bands));
  }
  for (const double nm : cube.wavelengths_nm) {
    if (!std::isfinite(nm) || nm <= 0) fail(fmt::format("a wavelength of {} nm", nm));
  }
}

// HDF5 allows a user block of 512 bytes or a greater power of two before its own data.
bool IsHdf5(const InputFile& file) {
  constexpr std::string_view kSignature("\x89HDF\r\n\x1a\n", 8);
  char start[8];
  for (uint64_t offset = 0; offset < file.size(); offset = offset == 0 ? 512 : offset * 2) {
    if (file.ReadSome(offset, start, sizeof(start)) != sizeof(start)) return false;
    if (std::string_view(start, sizeof(start)) == kSignature) return true;
  }
  return false;
}

bool IsTiff(std::string_view start) {
  using namespace std::string_view_literals;
  const std::string_view magic = start.substr(0, 4);
  return magic == "II*\0"sv || magic == "MM\0*"sv || magic == "II+\0"sv || magic == "MM\0+"sv;
}

bool IsEnviHeader(std::string_view start) {
  return start.starts_with("ENVI") &&
         (start.size() == 4 || std::isspace(static_cast<unsigned char>(start[4])) != 0);
}

Cube Read(const std::string& path) {
  char buffer[128];
  std::string_view start;
  bool hdf5 = false;
  {
    const InputFile file(path);
    start = {buffer, file.ReadSome(0, buffer, sizeof(buffer))};
    hdf5 = IsHdf5(file);
  }
  if (hdf5) return ReadMat(path);
  if (start.starts_with("\x93NUMPY")) return ReadNpyCube(path);
  if (IsTiff(start)) return ReadTiffCube(path);
  if (IsEnviHeader(start)) {
    const std::string data = FindEnviData(path);
    if (!data.empty()) return ReadEnvi(data, path);
    throw Error(
        ErrorCode::kNotFound, path,
        "an ENVI header without its data: " + ReplaceExtension(path, ".img") + " is not there");
  }
  if (start.starts_with("MATLAB 5.0 MAT-file")) {
    throw Error(ErrorCode::kUnsupported, path,
                "a MAT-file of version 5; save it again in MATLAB with save(..., '-v7.3')");
  }
  if (const std::string header = FindEnviHeader(path); !header.empty()) {
    return ReadEnvi(path, header);
  }
  throw Error(ErrorCode::kUnsupported, path,
              "not a cube: neither a MAT-file of version 7.3, .npy or TIFF, nor an ENVI file with "
              "its header " +
                  ReplaceExtension(path, ".hdr") + " beside it");
}

void Write(const std::string& path, const Cube& cube) {
  const std::vector<std::string> paths = CubePaths(path);
  switch (FormatOf(path)) {
    case Format::kMat:
      return WriteMat(path, cube);
    case Format::kEnviHeader:
    case Format::kEnviData:
      return WriteEnvi(paths[0], paths[1], cube);
    case Format::kNpy:
      return WriteNpyCube(paths[0], paths[1], cube);
    case Format::kTiff:
      return WriteTiffCube(path, cube);
  }
}

}  // namespace

std::string ReplaceExtension(const std::string& path, const std::string& extension) {
  return fs::path(path).replace_extension(extension).string();
}

uint64_t CubeElements(const std::string& path, int64_t bands, int64_t height, int64_t width) {
  uint64_t count = 1;
  for (const int64_t side : {bands, height, width}) {
    const uint64_t limit = std::numeric_limits<ptrdiff_t>::max() / sizeof(double);
    if (side < 1 || static_cast<uint64_t>(side) > limit / count) {
      throw Error(ErrorCode::kCorrupt, path,
                  fmt::format("a cube of {} bands, {} rows and {} columns cannot be", bands, height,
                              width));
    }
    count *= static_cast<uint64_t>(side);
  }
  return count;
}

void Allocate(const std::string& path, int64_t bands, int64_t height, int64_t width, Cube* cube) {
  cube->data.resize(CubeElements(path, bands, height, width));
  cube->bands = bands;
  cube->height = height;
  cube->width = width;
}

std::vector<std::string> CubePaths(const std::string& path) {
  switch (FormatOf(path)) {
    case Format::kEnviHeader:
      return {ReplaceExtension(path, ".img"), path};
    case Format::kEnviData:
      return {path, ReplaceExtension(path, ".hdr")};
    case Format::kNpy:
      return {path, ReplaceExtension(path, ".json")};
    case Format::kMat:
    case Format::kTiff:
      break;
  }
  return {path};
}

void WriteCube(const std::string& path, const Cube& cube) {
  CheckCube(path, cube);
  try {
    Write(path, cube);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, path, "not enough memory to write this cube");
  }
}

Cube ReadCube(const std::string& path) {
  try {
    return Read(path);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, path, "not enough memory for this cube");
  }
}

}  // namespace mstpp
