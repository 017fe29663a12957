// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/graph.h"
#include "model/tensor.h"
#include "mstpp/model.h"

namespace mstpp {

// What a Model holds. Backends read it once, at construction.
struct Network {
  Config config;
  Graph graph;
  StateDict tensors;  // canonical names (no "module."), exactly those of DeclareTensors(config)
  std::string name, sha256, scaling;
  std::vector<double> wavelengths_nm;
  std::map<std::string, std::string> metadata;

  const Tensor& tensor(const std::string& name) const { return tensors.at(name); }
};

}  // namespace mstpp
