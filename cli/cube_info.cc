// SPDX-License-Identifier: Apache-2.0
#include "cube_info.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "io/metadata.h"
#include "sniff.h"

namespace mstpp::cli {
namespace {

using namespace std::string_view_literals;

struct Range {
  float min = std::numeric_limits<float>::infinity();
  float max = -std::numeric_limits<float>::infinity();
  double sum = 0;
  int64_t finite = 0, not_finite = 0;

  double mean() const { return finite > 0 ? sum / static_cast<double>(finite) : 0.0; }
};

Range RangeOf(const Cube& cube) {
  Range range;
  for (const float value : cube.data) {
    if (!std::isfinite(value)) {
      ++range.not_finite;
      continue;
    }
    range.min = std::min(range.min, value);
    range.max = std::max(range.max, value);
    range.sum += value;
    ++range.finite;
  }
  return range;
}

}  // namespace

bool LooksLikeCube(const std::string& path) {
  const Content content = ContentOf(path);
  if (content != Content::kOther) return content != Content::kPicture;
  const std::string extension = LowerExtension(path);
  return extension == ".img" || extension == ".mat";
}

void TellCube(Console& console, const std::string& path, const Cube& cube) {
  const auto line = [&](const std::string& name, const std::string& value) {
    console.Result(fmt::format("{:<15} {}", name, value));
  };
  const Range range = RangeOf(cube);
  line("file", path);
  line("cube", fmt::format("{} x {} pixels, {} bands", cube.width, cube.height, cube.bands));
  line("wavelengths", cube.wavelengths_nm.empty()
                          ? "unknown"
                          : fmt::format("{} nm", fmt::join(cube.wavelengths_nm, ", ")));
  if (range.finite > 0) {
    line("values",
         fmt::format("{:.6g} to {:.6g}, mean {:.6g}", range.min, range.max, range.mean()));
  }
  if (range.not_finite > 0) line("not finite", fmt::format("{} values", range.not_finite));
  const Json provenance = ProvenanceToJson(cube.provenance);
  for (const auto& [key, value] : provenance.items()) {
    line(key, value.is_string() ? value.get<std::string>() : value.dump());
  }
}

Json CubeToJson(const std::string& path, const Cube& cube) {
  const Range range = RangeOf(cube);
  Json json;
  json["kind"] = "cube";
  json["file"] = path;
  json["width"] = cube.width;
  json["height"] = cube.height;
  json["bands"] = cube.bands;
  json["wavelengths_nm"] = cube.wavelengths_nm;
  json["values"] = {{"min", range.min},
                    {"max", range.max},
                    {"mean", range.mean()},
                    {"not_finite", range.not_finite}};
  json["provenance"] = ProvenanceToJson(cube.provenance);
  return json;
}

}  // namespace mstpp::cli
