// SPDX-License-Identifier: Apache-2.0
// Reading the files of weights_builders.h, and expecting that it fails.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "mstpp/error.h"
#include "weights/format.h"
#include "weights_builders.h"

namespace mstpp::weights_testing {

// With the first occurrence of `from` at or after `start` replaced, which must be there.
std::string Replaced(std::string text, std::string_view from, std::string_view to,
                     size_t start = 0);

WeightsFile Read(std::string_view bytes, bool allow_nonfinite = false);

// Expects that reading fails so, with each of `parts` in the message.
void ExpectError(const std::string& bytes, ErrorCode code, const std::vector<std::string>& parts);

}  // namespace mstpp::weights_testing
