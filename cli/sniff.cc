// SPDX-License-Identifier: Apache-2.0
#include "sniff.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <string_view>

#include "io/input_file.h"
#include "mstpp/error.h"

namespace mstpp::cli {
namespace {

struct Magic {
  std::string_view bytes;
  Content content;
};

constexpr Magic kMagics[] = {
    {"\xff\xd8\xff", Content::kPicture},  // JPEG
    {"\x89PNG", Content::kPicture},       //
    {{"II*\0", 4}, Content::kTiff},       //
    {{"MM\0*", 4}, Content::kTiff},       //
    {{"II+\0", 4}, Content::kTiff},       // BigTIFF
    {{"MM\0+", 4}, Content::kTiff},       //
    {"\x93NUMPY", Content::kNpy},         //
    {"\x89HDF", Content::kCube},          // .mat of version 7.3
    {"MATLAB", Content::kCube},           // the same in a user block, or version 5
    {"ENVI", Content::kCube},             //
};

}  // namespace

Content ContentOf(const std::string& path) {
  std::string start(8, '\0');
  try {
    start.resize(InputFile(path).ReadSome(0, start.data(), start.size()));
  } catch (const Error&) {
    return Content::kOther;
  }
  for (const Magic& magic : kMagics) {
    if (start.starts_with(magic.bytes)) return magic.content;
  }
  return Content::kOther;
}

std::string LowerExtension(const std::string& path) {
  std::string extension = std::filesystem::path(path).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension;
}

}  // namespace mstpp::cli
