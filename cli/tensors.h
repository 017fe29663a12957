// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "mstpp/engine.h"

namespace mstpp::cli {

struct TensorRun {
  int64_t images = 0, height = 0, width = 0;
  double read_s = 0, write_s = 0;  // of the whole
};

// Runs the network on a .npy file of (C, H, W) or (N, C, H, W) numbers as they are and writes
// (bands, H, W) or (N, bands, H, W), with the metadata in a .json beside it. A batch goes through
// in parts and need not fit in memory. Throws Error.
TensorRun RunTensorFile(const Engine& engine, const std::string& input, const std::string& output);

}  // namespace mstpp::cli
