// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "mstpp/model.h"

namespace mstpp {

// Far beyond any network of the family; they keep hostile files from asking for the absurd.
struct ConfigLimits {
  static constexpr int kChannels = 1024;
  static constexpr int kStages = 64;
  static constexpr int kLevels = 8;
  static constexpr int kBlocks = 256;
};

// Throws Error (kInvalidArgument) naming `where` and the field.
void CheckConfig(const Config& config, const std::string& where);

}  // namespace mstpp
