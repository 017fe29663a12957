// SPDX-License-Identifier: Apache-2.0
// A whole file of weights, its format found by content.
#include <cstdint>
#include <cstdlib>

#include "weights/format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const mstpp::WeightsFile file = mstpp::ReadWeightsFromMemory("file", {data, size}, false);
    for (const auto& [name, tensor] : file.tensors) {
      if (tensor.size() != std::ssize(tensor.data)) std::abort();
    }
  } catch (const mstpp::Error&) {  // the only exception that may come out
  }
  return 0;
}
