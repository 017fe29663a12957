// SPDX-License-Identifier: Apache-2.0
#include "weights/format.h"

#include <fmt/format.h>

namespace mstpp {

std::string Quoted(std::string_view text) {
  constexpr size_t kMost = 80;
  std::string quoted = "'";
  for (char c : text.substr(0, kMost)) {
    if (c >= 0x20 && c < 0x7F) {
      quoted += c;
    } else {
      quoted += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
    }
  }
  return quoted + (text.size() > kMost ? "...'" : "'");
}

std::string Where(const std::string& path, std::string_view part) {
  return path + ": " + std::string(part);
}

}  // namespace mstpp
