// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace mstpp {

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> data;  // row-major

  int64_t size() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

using StateDict = std::map<std::string, Tensor>;

}  // namespace mstpp
