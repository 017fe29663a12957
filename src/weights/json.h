// SPDX-License-Identifier: Apache-2.0
// The JSON in weights: small, flat, from files that may be hostile.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mstpp {

// A tree of its own over nlohmann's parser: nlohmann's tree allocates when it is destroyed, which
// ends the process if memory is short.
struct JsonNode {
  enum class Kind { kObject, kArray, kText, kInteger, kOther };
  Kind kind = Kind::kOther;
  std::string key;      // of a member of an object
  std::string text;     // kText
  int64_t integer = 0;  // kInteger: 0 to 2^63 - 1; other numbers are kOther
  std::vector<JsonNode> children;

  // The member of this key and kind, or null.
  const JsonNode* Find(std::string_view wanted, Kind wanted_kind) const;
};

// Error kCorrupt if the text is not JSON, has more than `max_depth` containers in one another, or a
// key twice in one object, of which JSON libraries silently keep one.
JsonNode ParseJson(std::string_view text, int max_depth, const std::string& where);

// Metadata: an object of texts, or Error kCorrupt.
std::map<std::string, std::string> ToMetadata(const JsonNode& node, const std::string& where);

// A text as JSON, in quotes; Error kInvalidArgument if it is not UTF-8.
std::string ToJson(const std::string& text, const std::string& where);
std::string ToJson(const std::map<std::string, std::string>& metadata, const std::string& where);

}  // namespace mstpp
