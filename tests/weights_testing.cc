// SPDX-License-Identifier: Apache-2.0
#include "weights_testing.h"

namespace mstpp::weights_testing {

std::string Replaced(std::string text, std::string_view from, std::string_view to, size_t start) {
  const size_t position = text.find(from, start);
  EXPECT_NE(position, std::string::npos) << "nothing to replace";
  return text.replace(position, from.size(), to);
}

WeightsFile Read(std::string_view bytes, bool allow_nonfinite) {
  return ReadWeightsFromMemory(
      "file", {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, allow_nonfinite);
}

void ExpectError(const std::string& bytes, ErrorCode code, const std::vector<std::string>& parts) {
  try {
    Read(bytes);
    ADD_FAILURE() << "was read; wanted: " << ::testing::PrintToString(parts);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_THAT(error.where(), ::testing::StartsWith("file"));
    for (const std::string& part : parts) EXPECT_THAT(error.what(), ::testing::HasSubstr(part));
  }
}

}  // namespace mstpp::weights_testing
