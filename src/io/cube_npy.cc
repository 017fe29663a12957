// SPDX-License-Identifier: Apache-2.0
// name.npy, float32 of shape (bands, height, width), with the metadata in name.json.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "core/atomic_file.h"
#include "io/cube_formats.h"
#include "io/input_file.h"
#include "io/metadata.h"
#include "io/npy.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

constexpr uint64_t kMaxJson = 1 << 24;

}  // namespace

void WriteNpyCube(const std::string& path, const std::string& json_path, const Cube& cube) {
  // Both are written before either takes its place.
  AtomicFile json(json_path);
  const std::string text = MetadataToText(cube, /*indent=*/2) + "\n";
  json.Write(text.data(), text.size());
  NpyWriter npy(path, {cube.bands, cube.height, cube.width});
  npy.Write(cube.data.data(), static_cast<int64_t>(cube.data.size()));
  npy.Commit();
  json.Commit();
}

Cube ReadNpyCube(const std::string& path) {
  NpyReader npy(path);
  std::vector<int64_t> shape = npy.shape();
  if (shape.size() == 4 && shape[0] == 1) shape.erase(shape.begin());
  if (shape.size() != 3) {
    throw Error(ErrorCode::kUnsupported, path,
                fmt::format("an array of shape ({}); a cube is (bands, height, width)",
                            fmt::join(npy.shape(), ", ")));
  }
  Cube cube;
  Allocate(path, shape[0], shape[1], shape[2], &cube);
  npy.Read(cube.data.data(), npy.elements());
  const std::string json_path = ReplaceExtension(path, ".json");
  if (std::error_code error; std::filesystem::exists(json_path, error)) {
    MetadataFromText(InputFile(json_path).ReadText(kMaxJson), json_path, &cube);
  }
  return cube;
}

}  // namespace mstpp
