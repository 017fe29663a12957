// SPDX-License-Identifier: Apache-2.0
#include "weights/json.h"

#include <set>
#include <vector>

#include "weights/format.h"

namespace mstpp {

using Json = nlohmann::json;

Json ParseJson(std::string_view text, int max_depth, const std::string& where) {
  std::vector<std::set<std::string>> keys;  // of each open object
  const auto check = [&](int depth, Json::parse_event_t event, const Json& value) {
    const bool object = event == Json::parse_event_t::object_start;
    if ((object || event == Json::parse_event_t::array_start) && depth >= max_depth) {
      throw Error(ErrorCode::kCorrupt, where, "its JSON is nested too deeply");
    }
    if (object) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        throw Error(ErrorCode::kCorrupt, where, Quoted(key) + " is in its JSON twice");
      }
    }
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::exception&) {  // its text would quote the file
    throw Error(ErrorCode::kCorrupt, where, "what should be JSON is not");
  }
}

std::map<std::string, std::string> ParseMetadata(const Json& metadata, const std::string& where) {
  if (!metadata.is_object()) {
    throw Error(ErrorCode::kCorrupt, where, "its metadata is not an object of texts");
  }
  std::map<std::string, std::string> parsed;
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) {
      throw Error(ErrorCode::kCorrupt, where, "metadata " + Quoted(key) + " is not a text");
    }
    parsed.emplace(key, value.get<std::string>());
  }
  return parsed;
}

}  // namespace mstpp
