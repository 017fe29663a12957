// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "model/tensor.h"
#include "mstpp/model.h"

namespace mstpp {

struct TensorSpec {
  std::string name;            // PyTorch's name
  std::vector<int64_t> shape;  // PyTorch's shape
};

// Every weight of the network, declared once, in the order of the official state dict.
std::vector<TensorSpec> DeclareTensors(const Config& config);

// The configuration that a state dict's names and shapes imply, and nothing else: each declared
// tensor must be there with its shape, and no other. Throws Error (kCorrupt) naming `file` and
// the tensor.
Config DeriveConfig(const StateDict& tensors, const std::string& file);
void CheckTensors(const StateDict& tensors, const Config& config, const std::string& file);

}  // namespace mstpp
