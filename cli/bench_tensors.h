// SPDX-License-Identifier: Apache-2.0
// What `mstpp bench` and `mstpp profile` run the network on.
#pragma once

#include <optional>
#include <vector>

#include "flags.h"
#include "mstpp/mstpp.h"

namespace mstpp::cli {

struct BenchTensors {
  std::vector<float> input, output;
  TensorView in;
  MutableTensorView out;
};

// Random in [0, 1), or the picture scaled to it; `size` becomes the picture's. Throws
// UsageError for a picture that is not one for this network.
BenchTensors MakeTensors(const Config& config, const std::optional<Image>& picture, Size& size,
                         int batch);

}  // namespace mstpp::cli
