// SPDX-License-Identifier: Apache-2.0
#include "io/envi_header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>

#include "io/metadata.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kTitle = "Hyperspectral cube written by mstpp";

bool IsSpace(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

// Removes and returns the first line, without its end.
std::string_view TakeLine(std::string_view* text) {
  const size_t end = std::min(text->find('\n'), text->size());
  const std::string_view line = text->substr(0, end);
  text->remove_prefix(std::min(end + 1, text->size()));
  return line;
}

// The fields by lower-case name. A value in braces may span lines and is kept without its braces.
using Fields = std::map<std::string, std::string>;

Fields ReadFields(const std::string& path, std::string_view text) {
  Fields fields;
  if (Trim(TakeLine(&text)) != "ENVI") {
    throw Error(ErrorCode::kCorrupt, path, "not an ENVI header: its first line is not ENVI");
  }
  while (!text.empty()) {
    const std::string_view line = Trim(TakeLine(&text));
    const size_t equals = line.find('=');
    if (line.starts_with(';') || equals == std::string_view::npos) continue;
    const std::string name = Lower(Trim(line.substr(0, equals)));
    std::string value(Trim(line.substr(equals + 1)));
    if (value.starts_with('{')) {
      while (!value.ends_with('}')) {
        if (text.empty()) {
          throw Error(ErrorCode::kCorrupt, path, "the braces of '" + name + "' are not closed");
        }
        const std::string_view more = Trim(TakeLine(&text));
        if (!more.starts_with(';')) value.append("\n").append(more);
      }
      value = value.substr(1, value.size() - 2);
    }
    if (!fields.emplace(name, value).second) {
      throw Error(ErrorCode::kCorrupt, path, "the field '" + name + "' is given twice");
    }
  }
  return fields;
}

template <typename T>
std::optional<T> ParseNumber(std::string_view text) {
  text = Trim(text);
  if (text.starts_with('+')) text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// A field that is an integer in [least, most]; `fallback` if it may be left out.
int64_t Integer(const std::string& path, const Fields& fields, const std::string& name,
                int64_t least, int64_t most, std::optional<int64_t> fallback = std::nullopt) {
  const auto found = fields.find(name);
  if (found == fields.end()) {
    if (fallback) return *fallback;
    throw Error(ErrorCode::kCorrupt, path, "the field '" + name + "' is missing");
  }
  const std::optional<int64_t> value = ParseNumber<int64_t>(found->second);
  if (!value || *value < least || *value > most) {
    throw Error(ErrorCode::kCorrupt, path,
                fmt::format("'{} = {:.40}' is not an integer from {} to {}", name, found->second,
                            least, most));
  }
  return *value;
}

Interleave ReadInterleave(const std::string& path, const Fields& fields) {
  const auto found = fields.find("interleave");
  const std::string name = found == fields.end() ? "" : Lower(found->second);
  if (name == "bsq") return Interleave::kBsq;
  if (name == "bil") return Interleave::kBil;
  if (name == "bip") return Interleave::kBip;
  throw Error(ErrorCode::kCorrupt, path, "the field 'interleave' is not bsq, bil or bip");
}

// What one unit is in nm; 0 if it is no length or not known; nothing if the header does not say.
std::optional<double> UnitInNm(const Fields& fields) {
  const auto found = fields.find("wavelength units");
  const std::string unit = found == fields.end() ? "unknown" : Lower(found->second);
  if (unit == "unknown" || unit.empty()) return std::nullopt;
  if (unit == "nanometers" || unit == "nanometer" || unit == "nm") return 1;
  if (unit == "micrometers" || unit == "micrometer" || unit == "microns" || unit == "um") {
    return 1000;
  }
  return 0;
}

std::vector<double> ReadWavelengths(const std::string& path, const Fields& fields, int64_t bands) {
  const auto found = fields.find("wavelength");
  if (found == fields.end()) return {};
  std::vector<double> values;
  std::string_view list = found->second;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    const std::optional<double> value = ParseNumber<double>(list.substr(0, comma));
    if (!value || !std::isfinite(*value) || *value <= 0) {
      throw Error(ErrorCode::kCorrupt, path,
                  fmt::format("'wavelength' {} is not a positive number", values.size() + 1));
    }
    values.push_back(*value);
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  if (static_cast<int64_t>(values.size()) != bands) {
    throw Error(ErrorCode::kCorrupt, path,
                fmt::format("{} wavelengths for {} bands", values.size(), bands));
  }
  // Without a unit: optical wavelengths are over 100 in nm and under 100 in micrometres.
  const double greatest = *std::max_element(values.begin(), values.end());
  const double unit = UnitInNm(fields).value_or(greatest < 100 ? 1000 : 1);
  if (unit == 0) return {};
  for (double& value : values) {
    value *= unit;
    if (!std::isfinite(value)) {
      throw Error(ErrorCode::kCorrupt, path, "'wavelength' has an entry beyond all bounds");
    }
  }
  return values;
}

// The description's lines "name: value", the value in JSON, after the title.
Provenance ReadDescription(const std::string& path, const Fields& fields) {
  const auto found = fields.find("description");
  if (found == fields.end()) return {};
  std::string_view text = Trim(found->second);
  if (Trim(TakeLine(&text)) != kTitle) return {};
  Json json = Json::object();
  while (!text.empty()) {
    const std::string_view line = Trim(TakeLine(&text));
    const size_t colon = line.find(": ");
    if (colon == std::string_view::npos) continue;
    Json value = Json::parse(line.substr(colon + 2), nullptr, /*allow_exceptions=*/false);
    if (!value.is_discarded()) json[std::string(line.substr(0, colon))] = std::move(value);
  }
  return ProvenanceFromJson(json, path);
}

std::string FormatDescription(const Provenance& provenance) {
  std::string text(kTitle);
  const nlohmann::ordered_json fields = ProvenanceToJson(provenance);
  for (const auto& [name, value] : fields.items()) {
    text += "\n  " + name + ": ";
    // Readers end the description at a brace.
    for (const char c : DumpJson(value, -1)) {
      text += c == '{' ? "\\u007b" : c == '}' ? "\\u007d" : std::string(1, c);
    }
  }
  return text;
}

// ENVI counts bands from 1.
size_t NearestBand(const std::vector<double>& wavelengths, double nm) {
  const auto nearest =
      std::min_element(wavelengths.begin(), wavelengths.end(),
                       [nm](double a, double b) { return std::abs(a - nm) < std::abs(b - nm); });
  return static_cast<size_t>(nearest - wavelengths.begin()) + 1;
}

}  // namespace

int EnviTypeBytes(int data_type) {
  switch (data_type) {
    case 1:  // uint8
      return 1;
    case 2:   // int16
    case 12:  // uint16
      return 2;
    case 3:   // int32
    case 4:   // float32
    case 13:  // uint32
      return 4;
    case 5:  // float64
      return 8;
    default:
      return 0;
  }
}

EnviHeader ParseEnviHeader(const std::string& path, std::string_view text) {
  constexpr int64_t kMaxSide = int64_t{1} << 40;
  const Fields fields = ReadFields(path, text);
  EnviHeader header;
  header.samples = Integer(path, fields, "samples", 1, kMaxSide);
  header.lines = Integer(path, fields, "lines", 1, kMaxSide);
  header.bands = Integer(path, fields, "bands", 1, kMaxSide);
  header.header_offset =
      static_cast<uint64_t>(Integer(path, fields, "header offset", 0, kMaxSide, 0));
  header.data_type = static_cast<int>(Integer(path, fields, "data type", 1, 15));
  if (EnviTypeBytes(header.data_type) == 0) {
    throw Error(ErrorCode::kUnsupported, path,
                fmt::format("data type {}; 1, 2, 3, 4, 5, 12 and 13 are read", header.data_type));
  }
  if (Integer(path, fields, "file compression", 0, 1, 0) != 0) {
    throw Error(ErrorCode::kUnsupported, path, "compressed data; save it without compression");
  }
  header.interleave = ReadInterleave(path, fields);
  header.big_endian =
      Integer(path, fields, "byte order", 0, 1,
              EnviTypeBytes(header.data_type) == 1 ? std::optional<int64_t>(0) : std::nullopt) == 1;
  header.wavelengths_nm = ReadWavelengths(path, fields, header.bands);
  header.provenance = ReadDescription(path, fields);
  return header;
}

std::string FormatEnviHeader(const Cube& cube) {
  std::string text = fmt::format(
      "ENVI\n"
      "description = {{\n  {}}}\n"
      "samples = {}\n"
      "lines = {}\n"
      "bands = {}\n"
      "header offset = 0\n"
      "file type = ENVI Standard\n"
      "data type = 4\n"
      "interleave = bsq\n"
      "byte order = 0\n",
      FormatDescription(cube.provenance), cube.width, cube.height, cube.bands);
  const std::vector<double>& nm = cube.wavelengths_nm;
  std::vector<std::string> names;
  for (int64_t band = 0; band < cube.bands; ++band) {
    names.push_back(nm.empty() ? fmt::format("band {}", band + 1)
                               : fmt::format("{} nm", nm[static_cast<size_t>(band)]));
  }
  if (nm.size() >= 3) {
    // Red, green and blue of the sRGB primaries' dominant wavelengths, for a viewer's first look.
    text += fmt::format("default bands = {{{}, {}, {}}}\n", NearestBand(nm, 610),
                        NearestBand(nm, 550), NearestBand(nm, 465));
  }
  text += fmt::format("band names = {{\n  {}}}\n", fmt::join(names, ",\n  "));
  if (!nm.empty()) {
    text += fmt::format("wavelength units = Nanometers\nwavelength = {{\n  {}}}\n",
                        fmt::join(nm, ",\n  "));
  }
  return text;
}

}  // namespace mstpp
