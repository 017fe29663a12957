// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "mstpp/error.h"
#include "mstpp/model.h"

namespace mstpp {
namespace {

int PositiveInt(const nlohmann::json& value, const std::string& path, const std::string& field,
                int most) {
  if (!value.is_number_integer() || value.get<int64_t>() < 1 || value.get<int64_t>() > most) {
    throw Error(ErrorCode::kInvalidArgument, path,
                fmt::format("field \"{}\" must be a whole number from 1 to {}", field, most));
  }
  return value.get<int>();
}

}  // namespace

void CheckConfig(const Config& config, const std::string& where) {
  const auto check = [&](const char* field, int value, int most) {
    if (value < 1 || value > most) {
      throw Error(ErrorCode::kInvalidArgument, where,
                  fmt::format("{} is {}, must be from 1 to {}", field, value, most));
    }
  };
  check("in_channels", config.in_channels, ConfigLimits::kChannels);
  check("bands", config.bands, ConfigLimits::kChannels);
  check("stages", config.stages, ConfigLimits::kStages);
  check("the number of levels", config.levels(), ConfigLimits::kLevels);
  for (int blocks : config.blocks) check("a level's blocks", blocks, ConfigLimits::kBlocks);
}

Config ReadConfig(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error(ErrorCode::kNotFound, path, "cannot be opened");
  const nlohmann::json json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    throw Error(ErrorCode::kCorrupt, path,
                "is not a JSON object such as {\"in_channels\": 3, \"bands\": 31, \"stages\": 3, "
                "\"blocks\": [1, 1, 1]}");
  }
  Config config;
  for (const auto& [field, value] : json.items()) {
    if (field == "in_channels") {
      config.in_channels = PositiveInt(value, path, field, ConfigLimits::kChannels);
    } else if (field == "bands") {
      config.bands = PositiveInt(value, path, field, ConfigLimits::kChannels);
    } else if (field == "stages") {
      config.stages = PositiveInt(value, path, field, ConfigLimits::kStages);
    } else if (field == "blocks") {
      if (!value.is_array()) {
        throw Error(ErrorCode::kInvalidArgument, path, "field \"blocks\" must be a list");
      }
      config.blocks.clear();
      for (const auto& blocks : value) {
        config.blocks.push_back(PositiveInt(blocks, path, field, ConfigLimits::kBlocks));
      }
    } else {
      throw Error(ErrorCode::kInvalidArgument, path,
                  fmt::format("unknown field \"{}\"; the fields are in_channels, bands, stages and "
                              "blocks",
                              field));
    }
  }
  CheckConfig(config, path);
  return config;
}

}  // namespace mstpp
