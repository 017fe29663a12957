// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "mstpp/cube.h"

namespace mstpp {

// How a cube was made: {"version": "0.1.0", "source": "photo.jpg", ...}, the names and the order of
// Provenance's fields. Empty fields are left out.
nlohmann::ordered_json ProvenanceToJson(const Provenance& provenance);

// The other way round. Unknown fields are ignored. Throws Error (kCorrupt) naming `where` and the
// field whose type is wrong.
Provenance ProvenanceFromJson(const nlohmann::json& json, const std::string& where);

// What every cube file carries beside its numbers, in ASCII:
// {"wavelengths_nm": [400.0, ...], "mstpp": {what ProvenanceToJson gives}}.
// `indent` as in nlohmann::json::dump; negative: one line.
std::string MetadataToText(const Cube& cube, int indent);

// Sets the cube's wavelengths and provenance from such a text; what the text does not name stays
// as it is. Throws Error (kCorrupt): not a JSON object, or a field of the wrong type, or not one
// wavelength a band.
void MetadataFromText(std::string_view text, const std::string& where, Cube* cube);

// As above for a text of unknown origin: one that is not a JSON object is ignored.
void MetadataFromForeignText(std::string_view text, const std::string& where, Cube* cube);

// Text as JSON in ASCII; bytes that are not UTF-8 (in a file's name) become U+FFFD.
std::string DumpJson(const nlohmann::ordered_json& json, int indent);

}  // namespace mstpp
