// SPDX-License-Identifier: Apache-2.0
// Weights on disk. One reader a format, the format found by content.
#pragma once

#include <map>
#include <string>

#include "model/tensor.h"

namespace mstpp {

struct WeightsFile {
  StateDict tensors;                            // names as in the file
  std::map<std::string, std::string> metadata;  // what the format carries; may be empty
  std::string format;                           // "pth", "safetensors", "npz", "onnx"
  std::string sha256;                           // of the file, lower-case hex
};

// float16, bfloat16, float64 and integer tensors are converted to float32. NaN and infinities are
// refused unless `allow_nonfinite`. Throws Error (kNotFound, kIo, kCorrupt, kUnsupported).
WeightsFile ReadWeights(const std::string& path, bool allow_nonfinite);

// Atomic. Metadata goes into the file (safetensors: __metadata__; npz: an array of bytes named
// "__metadata__.json"). Throws Error (kIo).
void WriteSafetensors(const std::string& path, const StateDict& tensors,
                      const std::map<std::string, std::string>& metadata);
void WriteNpz(const std::string& path, const StateDict& tensors,
              const std::map<std::string, std::string>& metadata);

}  // namespace mstpp
