// SPDX-License-Identifier: Apache-2.0
#include "jobs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "command.h"
#include "mstpp/cube.h"
#include "mstpp/error.h"
#include "sniff.h"

namespace mstpp::cli {
namespace {

namespace fs = std::filesystem;

constexpr char kPreviewEnding[] = ".preview.png";

struct FormatName {
  const char* name;
  const char* extension;  // that a file of this format is given
};
constexpr std::array<FormatName, 4> kFormats{
    {{"mat", ".mat"}, {"npy", ".npy"}, {"envi", ".hdr"}, {"tif", ".tif"}}};

// The format that a file's ending stands for.
std::optional<std::string> FormatOf(const std::string& path) {
  static const std::map<std::string, std::string> kEndings{{".mat", "mat"},  {".npy", "npy"},
                                                           {".hdr", "envi"}, {".img", "envi"},
                                                           {".tif", "tif"},  {".tiff", "tif"}};
  const auto it = kEndings.find(LowerExtension(path));
  return it == kEndings.end() ? std::nullopt : std::optional(it->second);
}

bool HasPictureEnding(const std::string& path) {
  static const std::set<std::string> kEndings{".jpg", ".jpeg", ".png", ".tif", ".tiff"};
  return kEndings.contains(LowerExtension(path));
}

// A file that is not what its name says fails as what its name says.
InputKind KindOf(const std::string& path) {
  const Content content = ContentOf(path);
  const bool tensor =
      content == Content::kNpy || (content == Content::kOther && LowerExtension(path) == ".npy");
  return tensor ? InputKind::kTensor : InputKind::kPicture;
}

bool IsPicture(const std::string& path) {
  const Content content = ContentOf(path);
  return content == Content::kPicture || content == Content::kTiff || HasPictureEnding(path);
}

void AddFolder(const std::string& folder, Inputs& inputs) {
  std::vector<std::string> pictures;
  try {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with(".") || !entry.is_regular_file()) continue;
      const std::string path = entry.path().string();
      const bool picture = IsPicture(path) && !name.ends_with(kPreviewEnding);
      (picture ? pictures : inputs.skipped).push_back(path);
    }
  } catch (const fs::filesystem_error& error) {
    throw Error(ErrorCode::kIo, folder, "cannot list the folder: " + error.code().message());
  }
  if (pictures.empty()) {
    throw Error(ErrorCode::kNotFound, folder, "the folder holds no JPEG, PNG or TIFF picture");
  }
  std::sort(pictures.begin(), pictures.end());
  for (std::string& path : pictures) inputs.items.push_back({std::move(path)});
}

// Where the outputs go: a folder, or a file name without its extension for a single input.
struct Target {
  fs::path folder;
  // A single file as given with -o; else empty.
  std::string stem, extension, format;
};

Target ParseTarget(const Inputs& inputs, const std::string& out) {
  if (out.empty()) return {};
  const fs::path path(out);
  std::error_code error;
  if (out.ends_with('/') || fs::is_directory(path, error) || !path.has_extension()) return {path};
  if (inputs.items.size() != 1 || inputs.any_folder) {
    throw UsageError(
        fmt::format("-o {}: a folder is needed for several inputs; end its name with "
                    "a slash if it is one",
                    out));
  }
  const std::optional<std::string> format = FormatOf(out);
  if (!format) {
    throw UsageError(
        fmt::format("-o {}: no format has the ending {}; use .mat, .npy, .hdr, .img "
                    "or .tif, or end the name of a folder with a slash",
                    out, path.extension().string()));
  }
  return {path.parent_path(), path.stem().string(), path.extension().string(), *format};
}

std::vector<std::string> FormatsOf(const Input& input, const Target& target,
                                   const OutputRequest& request) {
  std::vector<std::string> formats = request.formats;
  const std::string& given = target.format;
  const auto has = [&](const std::string& format) {
    return std::find(formats.begin(), formats.end(), format) != formats.end();
  };
  if (!given.empty() && !formats.empty() && !has(given)) {
    throw UsageError(fmt::format("-o {} is {}, but --format is {}; leave one of them out",
                                 request.out, given, fmt::join(formats, ",")));
  }
  if (input.kind == InputKind::kTensor) {
    if ((!given.empty() && given != "npy") || (!formats.empty() && !has("npy"))) {
      throw UsageError(input.path + ": tensors are written as .npy only");
    }
    return {"npy"};
  }
  if (formats.empty()) formats.push_back(given.empty() ? "mat" : given);
  return formats;
}

Job PlanJob(const Input& input, const Target& target, const OutputRequest& request) {
  Job job{input, {}, {}};
  const std::string stem = target.stem.empty() ? fs::path(input.path).stem().string() : target.stem;
  const std::string base = (target.folder / stem).string();
  for (const std::string& format : FormatsOf(input, target, request)) {
    const auto entry = std::find_if(kFormats.begin(), kFormats.end(),
                                    [&](const FormatName& f) { return format == f.name; });
    job.cubes.push_back(base + (format == target.format ? target.extension : entry->extension));
  }
  if (request.preview) job.preview = base + kPreviewEnding;
  return job;
}

// The same file under whatever name; files that do not exist yet differ by folder and name.
std::pair<std::string, std::string> Identity(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) == 0) {
    return {fmt::format("{}:{}", status.st_dev, status.st_ino), ""};
  }
  std::error_code error;
  const fs::path canonical = fs::weakly_canonical(fs::absolute(path), error);
  return {"", error ? path : canonical.string()};
}

void CheckCollisions(const std::vector<Job>& jobs) {
  std::map<std::pair<std::string, std::string>, const Job*> inputs, outputs;
  for (const Job& job : jobs) inputs.emplace(Identity(job.input.path), &job);
  for (const Job& job : jobs) {
    for (const std::string& file : job.Files()) {
      const auto identity = Identity(file);
      if (const auto it = inputs.find(identity); it != inputs.end()) {
        throw UsageError(
            fmt::format("{}: the output {} would overwrite the input {}; choose "
                        "another place with -o",
                        job.input.path, file, it->second->input.path));
      }
      const auto [it, fresh] = outputs.emplace(identity, &job);
      if (!fresh && it->second != &job) {
        throw UsageError(
            fmt::format("{} and {} would both be written to {}; run them apart, with "
                        "another -o",
                        it->second->input.path, job.input.path, file));
      }
    }
  }
}

}  // namespace

Inputs FindInputs(const std::vector<std::string>& arguments) {
  Inputs inputs;
  for (const std::string& argument : arguments) {
    std::error_code error;
    if (fs::is_directory(argument, error)) {
      inputs.any_folder = true;
      AddFolder(argument, inputs);
    } else {
      inputs.items.push_back({argument, KindOf(argument)});
    }
  }
  std::sort(inputs.skipped.begin(), inputs.skipped.end());
  return inputs;
}

std::vector<std::string> Job::Files() const {
  std::vector<std::string> files;
  for (const std::string& cube : cubes) {
    for (std::string& path : CubePaths(cube)) files.push_back(std::move(path));
  }
  if (!preview.empty()) files.push_back(preview);
  return files;
}

std::vector<std::string> ParseFormats(const std::string& text) {
  std::vector<std::string> formats;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string format = text.substr(begin, end - begin);
    const auto known = std::any_of(kFormats.begin(), kFormats.end(),
                                   [&](const FormatName& f) { return format == f.name; });
    if (!known) {
      throw UsageError("--format: '" + format + "' is not one of mat, npy, envi, tif");
    }
    if (std::find(formats.begin(), formats.end(), format) == formats.end()) {
      formats.push_back(format);
    }
    begin = end + 1;
  }
  return formats;
}

std::vector<Job> PlanJobs(const Inputs& inputs, const OutputRequest& request) {
  const Target target = ParseTarget(inputs, request.out);
  std::vector<Job> jobs;
  for (const Input& input : inputs.items) jobs.push_back(PlanJob(input, target, request));
  CheckCollisions(jobs);
  return jobs;
}

void MakeFolders(const std::vector<Job>& jobs) {
  for (const Job& job : jobs) {
    const fs::path folder = fs::path(job.cubes.front()).parent_path();
    std::error_code error;
    if (!folder.empty()) fs::create_directories(folder, error);
    if (error) {
      throw Error(ErrorCode::kIo, folder.string(), "cannot make this folder: " + error.message());
    }
    // Known only after the first picture's computation otherwise.
    if (access(folder.empty() ? "." : folder.c_str(), W_OK) != 0) {
      throw Error(ErrorCode::kIo, folder.empty() ? "the current folder" : folder.string(),
                  "cannot write here; choose another place with -o");
    }
  }
}

}  // namespace mstpp::cli
