// SPDX-License-Identifier: Apache-2.0
#include "io/metadata.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "mstpp/error.h"

namespace mstpp {
namespace {

// Written in order; read into a map, since an ordered object of many fields takes quadratic time.
using OrderedJson = nlohmann::ordered_json;
using Json = nlohmann::json;

struct Field {
  const char* name;
  std::variant<std::string Provenance::*, std::optional<double> Provenance::*,
               std::optional<bool> Provenance::*>
      member;
};

// Every field of Provenance, in the order in which it is written.
constexpr Field kFields[] = {
    {"version", &Provenance::version},     {"source", &Provenance::source},
    {"weights", &Provenance::weights},     {"weights_sha256", &Provenance::weights_sha256},
    {"backend", &Provenance::backend},     {"device", &Provenance::device},
    {"precision", &Provenance::precision}, {"scaling", &Provenance::scaling},
    {"scale_min", &Provenance::scale_min}, {"scale_max", &Provenance::scale_max},
    {"padding", &Provenance::padding},     {"ensemble", &Provenance::ensemble},
    {"clipped", &Provenance::clipped},
};

void Put(const std::string& value, OrderedJson* json) {
  if (!value.empty()) *json = value;
}

template <typename T>
void Put(const std::optional<T>& value, OrderedJson* json) {
  if (value) *json = *value;
}

// False if the JSON value is of another type.
bool Take(const Json& json, std::string* value) {
  if (!json.is_string()) return false;
  *value = json.get<std::string>();
  return true;
}

bool Take(const Json& json, std::optional<double>* value) {
  if (!json.is_number()) return false;
  *value = json.get<double>();
  return true;
}

bool Take(const Json& json, std::optional<bool>* value) {
  if (!json.is_boolean()) return false;
  *value = json.get<bool>();
  return true;
}

std::vector<double> WavelengthsFromJson(const Json& json, const std::string& where, int64_t bands) {
  if (!json.is_array() || static_cast<int64_t>(json.size()) != bands) {
    throw Error(ErrorCode::kCorrupt, where,
                fmt::format("wavelengths_nm is not a list of {} numbers, one a band", bands));
  }
  std::vector<double> wavelengths;
  for (const Json& value : json) {
    const double nm = value.is_number() ? value.get<double>() : 0;
    if (!std::isfinite(nm) || nm <= 0) {
      throw Error(ErrorCode::kCorrupt, where,
                  "wavelengths_nm has an entry that is not a positive number");
    }
    wavelengths.push_back(nm);
  }
  return wavelengths;
}

void FromObject(const Json& json, const std::string& where, Cube* cube) {
  if (const auto found = json.find("wavelengths_nm"); found != json.end()) {
    cube->wavelengths_nm = WavelengthsFromJson(*found, where, cube->bands);
  }
  if (const auto found = json.find("mstpp"); found != json.end()) {
    cube->provenance = ProvenanceFromJson(*found, where);
  }
}

Json Parse(std::string_view text) { return Json::parse(text, nullptr, /*allow_exceptions=*/false); }

}  // namespace

OrderedJson ProvenanceToJson(const Provenance& provenance) {
  OrderedJson json = OrderedJson::object();
  for (const Field& field : kFields) {
    OrderedJson value;
    std::visit([&](auto member) { Put(provenance.*member, &value); }, field.member);
    if (!value.is_null()) json[field.name] = std::move(value);
  }
  return json;
}

Provenance ProvenanceFromJson(const Json& json, const std::string& where) {
  if (!json.is_object()) {
    throw Error(ErrorCode::kCorrupt, where, "its metadata \"mstpp\" is not a JSON object");
  }
  Provenance provenance;
  for (const Field& field : kFields) {
    const auto found = json.find(field.name);
    if (found == json.end()) continue;
    const bool taken =
        std::visit([&](auto member) { return Take(*found, &(provenance.*member)); }, field.member);
    if (!taken) {
      throw Error(ErrorCode::kCorrupt, where,
                  fmt::format("its metadata \"{}\" is of the wrong type", field.name));
    }
  }
  return provenance;
}

std::string DumpJson(const OrderedJson& json, int indent) {
  return json.dump(indent, ' ', /*ensure_ascii=*/true, OrderedJson::error_handler_t::replace);
}

std::string MetadataToText(const Cube& cube, int indent) {
  OrderedJson json = OrderedJson::object();
  if (!cube.wavelengths_nm.empty()) json["wavelengths_nm"] = cube.wavelengths_nm;
  json["mstpp"] = ProvenanceToJson(cube.provenance);
  return DumpJson(json, indent);
}

void MetadataFromText(std::string_view text, const std::string& where, Cube* cube) {
  const Json json = Parse(text);
  if (!json.is_object()) throw Error(ErrorCode::kCorrupt, where, "its metadata is not JSON");
  FromObject(json, where, cube);
}

void MetadataFromForeignText(std::string_view text, const std::string& where, Cube* cube) {
  const Json json = Parse(text);
  if (json.is_object()) FromObject(json, where, cube);
}

}  // namespace mstpp
