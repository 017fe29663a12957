// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "mstpp/error.h"

namespace mstpp {

// Parses JSON from a file. Error kCorrupt if it is not JSON, has more than `max_depth` containers
// in one another, or a key twice in one object, of which JSON libraries silently keep one.
nlohmann::json ParseJson(std::string_view text, int max_depth, const std::string& where);

// Metadata: an object of texts, or Error kCorrupt.
std::map<std::string, std::string> ParseMetadata(const nlohmann::json& metadata,
                                                 const std::string& where);

// JSON as text. Error kInvalidArgument if a string in it is not UTF-8.
template <typename AnyJson>
std::string DumpJson(const AnyJson& json, const std::string& where) {
  try {
    return json.dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorCode::kInvalidArgument, where, "the metadata to write are not UTF-8");
  }
}

}  // namespace mstpp
