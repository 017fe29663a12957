// SPDX-License-Identifier: Apache-2.0
#include "weights/json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "weights/format.h"

namespace mstpp {
namespace {

using Json = nlohmann::json;

// Receives the parser's events and builds the tree.
class TreeBuilder : public nlohmann::json_sax<Json> {
 public:
  TreeBuilder(int max_depth, const std::string& where) : max_depth_(max_depth), where_(where) {}

  JsonNode Take() { return std::move(root_); }

  bool null() override { return Add(JsonNode::Kind::kOther); }
  bool boolean(bool) override { return Add(JsonNode::Kind::kOther); }
  bool number_float(number_float_t, const string_t&) override {
    return Add(JsonNode::Kind::kOther);
  }
  bool binary(binary_t&) override { return Add(JsonNode::Kind::kOther); }
  bool number_integer(number_integer_t) override { return Add(JsonNode::Kind::kOther); }  // below 0
  bool number_unsigned(number_unsigned_t value) override {
    if (value > INT64_MAX) return Add(JsonNode::Kind::kOther);
    Place(JsonNode::Kind::kInteger).integer = static_cast<int64_t>(value);
    return true;
  }
  bool string(string_t& value) override {
    Place(JsonNode::Kind::kText).text = std::move(value);
    return true;
  }
  bool start_object(size_t) override { return Open(JsonNode::Kind::kObject); }
  bool start_array(size_t) override { return Open(JsonNode::Kind::kArray); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& value) override {
    if (!keys_.back().insert(value).second) {
      throw Error(ErrorCode::kCorrupt, where_, Quoted(value) + " is in its JSON twice");
    }
    key_ = std::move(value);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const Json::exception&) override {
    throw Error(ErrorCode::kCorrupt, where_,
                "what should be JSON is not, at its byte " + std::to_string(position));
  }

 private:
  JsonNode& Place(JsonNode::Kind kind) {
    JsonNode& node = open_.empty() ? root_ : open_.back()->children.emplace_back();
    node.kind = kind;
    node.key = std::exchange(key_, {});
    return node;
  }

  bool Add(JsonNode::Kind kind) {
    Place(kind);
    return true;
  }

  bool Open(JsonNode::Kind kind) {
    if (std::ssize(open_) >= max_depth_) {
      throw Error(ErrorCode::kCorrupt, where_, "its JSON is nested too deeply");
    }
    // Stays where it is until it is closed: only then does its parent get another child.
    open_.push_back(&Place(kind));
    keys_.emplace_back();
    return true;
  }

  bool Close() {
    open_.pop_back();
    keys_.pop_back();
    return true;
  }

  const int max_depth_;
  const std::string& where_;
  JsonNode root_;
  std::string key_;
  std::vector<JsonNode*> open_;
  std::vector<std::set<std::string>> keys_;  // of each open container
};

}  // namespace

const JsonNode* JsonNode::Find(std::string_view wanted, Kind wanted_kind) const {
  for (const JsonNode& child : children) {
    if (child.key == wanted && child.kind == wanted_kind) return &child;
  }
  return nullptr;
}

JsonNode ParseJson(std::string_view text, int max_depth, const std::string& where) {
  TreeBuilder builder(max_depth, where);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.Take();
}

std::map<std::string, std::string> ToMetadata(const JsonNode& node, const std::string& where) {
  if (node.kind != JsonNode::Kind::kObject) {
    throw Error(ErrorCode::kCorrupt, where, "its metadata is not an object of texts");
  }
  std::map<std::string, std::string> metadata;
  for (const JsonNode& child : node.children) {
    if (child.kind != JsonNode::Kind::kText) {
      throw Error(ErrorCode::kCorrupt, where, "metadata " + Quoted(child.key) + " is not a text");
    }
    metadata.emplace(child.key, child.text);
  }
  return metadata;
}

std::string ToJson(const std::string& text, const std::string& where) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    throw Error(ErrorCode::kInvalidArgument, where, "the metadata to write are not UTF-8");
  }
}

std::string ToJson(const std::map<std::string, std::string>& metadata, const std::string& where) {
  std::string json = "{";
  for (const auto& [key, value] : metadata) {
    json += (json.size() > 1 ? "," : "") + ToJson(key, where) + ":" + ToJson(value, where);
  }
  return json + "}";
}

}  // namespace mstpp
