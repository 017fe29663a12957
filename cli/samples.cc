// SPDX-License-Identifier: Apache-2.0
#include "samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <utility>

#include "color/render.h"
#include "command.h"
#include "core/sha256.h"
#include "io/cube_formats.h"
#include "io/input_file.h"
#include "mstpp/error.h"
#include "report/spectra.h"
#include "sniff.h"

namespace mstpp::cli {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostList = 1 << 26;
constexpr char kPreviewEnding[] = ".preview.png";

enum class Kind { kPicture, kCube, kCompanion, kOther };

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

Kind KindOf(const std::string& path, const SampleRequest& request) {
  switch (ContentOf(path)) {
    case Content::kPicture:
      return path.ends_with(kPreviewEnding) ? Kind::kOther : Kind::kPicture;
    case Content::kTiff:
      return request.cubes ? Kind::kCube : Kind::kPicture;
    case Content::kNpy:
    case Content::kCube:
      return Kind::kCube;
    case Content::kOther:
      break;
  }
  const std::string extension = LowerExtension(path);
  if (extension == ".json" && Exists(ReplaceExtension(path, ".npy"))) return Kind::kCompanion;
  if (extension != ".json" && !FindEnviHeader(path).empty()) return Kind::kCompanion;
  if (extension == ".jpg" || extension == ".jpeg" || extension == ".png") return Kind::kPicture;
  return extension == ".mat" || extension == ".npy" ? Kind::kCube : Kind::kOther;
}

// A file that was named. One that is no cube is a picture: reading it says what is wrong.
Sample NamedSample(const std::string& path, const SampleRequest& request) {
  const Kind kind = KindOf(path, request);
  return {path, kind == Kind::kCube || kind == Kind::kCompanion};
}

void AddFolder(const std::string& folder, const SampleRequest& request, Samples& samples) {
  std::vector<std::string> pictures, cubes;
  try {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      const std::string path = entry.path().string();
      if (entry.path().filename().string().starts_with(".") || !entry.is_regular_file()) continue;
      const Kind kind = KindOf(path, request);
      if (kind == Kind::kPicture) {
        pictures.push_back(path);
      } else if (kind == Kind::kCube && request.truth.empty()) {
        cubes.push_back(path);
      } else if (kind == Kind::kOther) {
        samples.skipped.push_back(path);
      }
    }
  } catch (const fs::filesystem_error& error) {
    throw Error(ErrorCode::kIo, folder, "cannot list the folder: " + error.code().message());
  }
  if (pictures.empty() && cubes.empty()) {
    throw Error(ErrorCode::kNotFound, folder,
                request.truth.empty() ? "the folder holds neither pictures nor cubes"
                                      : "the folder holds no JPEG, PNG or TIFF picture");
  }
  if (!pictures.empty() && !cubes.empty()) {
    throw UsageError(
        fmt::format("{} holds pictures ({}) and cubes ({}); if the cubes are the "
                    "pictures' truth, say --truth {}, else name the files you mean",
                    folder, pictures.front(), cubes.front(), folder));
  }
  const bool is_cube = pictures.empty();
  std::vector<std::string>& paths = is_cube ? cubes : pictures;
  std::sort(paths.begin(), paths.end());
  for (std::string& path : paths) samples.items.push_back({std::move(path), is_cube});
}

std::vector<std::string> ReadList(const std::string& list) {
  const std::string text = InputFile(list).ReadText(kMostList);
  std::vector<std::string> paths;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && line[0] != '#') {
      paths.push_back((fs::path(list).parent_path() / line).string());
    }
    begin = end + 1;
  }
  if (paths.empty()) throw Error(ErrorCode::kNotFound, list, "the list names no file");
  return paths;
}

std::string FindTruth(const std::string& picture, const std::string& folder) {
  const std::string stem = fs::path(picture).stem().string();
  std::vector<std::string> found;
  for (const char* extension : {".mat", ".hdr", ".npy", ".tif", ".tiff"}) {
    const std::string path = (fs::path(folder) / (stem + extension)).string();
    std::error_code error;
    if (fs::exists(path, error) && !fs::equivalent(path, picture, error)) found.push_back(path);
  }
  if (found.size() == 1) return found.front();
  throw Error(found.empty() ? ErrorCode::kNotFound : ErrorCode::kInvalidArgument, picture,
              found.empty()
                  ? fmt::format("{} holds no cube of its name (.mat, .hdr, .npy, .tif)", folder)
                  : fmt::format("which is its truth, {} or {}?", found[0], found[1]));
}

// The cube's file and what belongs to it.
std::vector<std::string> CubeFiles(const std::string& path) {
  std::vector<std::string> files{path};
  const std::string json = ReplaceExtension(path, ".json");
  if (ContentOf(path) == Content::kNpy && Exists(json)) files.push_back(json);
  for (const std::string& other : {FindEnviData(path), FindEnviHeader(path)}) {
    if (!other.empty() && other != path) files.push_back(other);
  }
  return files;
}

Cube ReadTruth(const std::string& path, const SampleRequest& request, const Model& model) {
  Cube cube = ReadCube(path);
  cube.provenance.source = path;
  if (cube.wavelengths_nm.empty() && cube.bands == model.config().bands) {
    cube.wavelengths_nm = model.wavelengths_nm();
  }
  if (request.white != 1) {
    const double scale = 1 / request.white;
    for (float& value : cube.data) value = static_cast<float>(value * scale);
  }
  return cube;
}

}  // namespace

Samples FindSamples(const SampleRequest& request) {
  Samples samples;
  std::vector<std::string> paths = request.inputs;
  if (!request.list.empty()) {
    for (std::string& path : ReadList(request.list)) paths.push_back(std::move(path));
  }
  for (const std::string& path : paths) {
    std::error_code error;
    if (fs::is_directory(path, error)) {
      AddFolder(path, request, samples);
    } else {
      samples.items.push_back(NamedSample(path, request));
    }
  }
  std::sort(samples.skipped.begin(), samples.skipped.end());
  return samples;
}

LoadedSample LoadSample(const Sample& sample, const SampleRequest& request, const Model& model) {
  LoadedSample loaded;
  if (sample.is_cube) {
    loaded.truth = ReadTruth(sample.path, request, model);
    loaded.image = RenderSrgb(*loaded.truth);
  } else {
    loaded.image = ReadImage(sample.path);
    loaded.image.source = sample.path;
    if (request.truth.empty()) return loaded;
    loaded.truth = ReadTruth(FindTruth(sample.path, request.truth), request, model);
  }
  const Cube& truth = *loaded.truth;
  if (truth.width != loaded.image.width || truth.height != loaded.image.height) {
    throw Error(ErrorCode::kInvalidArgument, sample.path,
                fmt::format("the picture is {} x {} and its truth {} x {}", loaded.image.width,
                            loaded.image.height, truth.width, truth.height));
  }
  loaded.truth =
      AtWavelengths(std::move(*loaded.truth), model.config().bands, model.wavelengths_nm());
  return loaded;
}

std::string HashSample(const Sample& sample, const SampleRequest& request) {
  std::vector<std::string> files;
  if (sample.is_cube) {
    files = CubeFiles(sample.path);
  } else {
    files.push_back(sample.path);
    if (!request.truth.empty()) {
      for (std::string& file : CubeFiles(FindTruth(sample.path, request.truth))) {
        files.push_back(std::move(file));
      }
    }
  }
  std::string hashes;
  for (const std::string& file : files) {
    const std::string bytes = InputFile(file).ReadText(std::numeric_limits<int64_t>::max());
    hashes += Sha256(bytes.data(), bytes.size());
  }
  return Sha256(hashes.data(), hashes.size());
}

}  // namespace mstpp::cli
