// SPDX-License-Identifier: Apache-2.0
// ONNX files in memory, for the tests of their writer and reader.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "weights/format.h"
#include "weights/onnx.pb.h"

namespace mstpp::testing {

inline std::string GoldenFile(const std::string& name) {
  return std::string(MSTPP_TEST_DATA) + "/golden/" + name;
}

inline std::string Slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline WeightsFile ReadOnnxBytes(const std::string& bytes) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  return ReadWeightsFromMemory("file", {data, bytes.size()}, false);
}

inline onnx::Model ParseOnnx(const std::string& bytes) {
  onnx::Model model;
  EXPECT_TRUE(model.ParseFromString(bytes));
  return model;
}

// "" or the first difference.
inline std::string Difference(const StateDict& a, const StateDict& b) {
  if (a.size() != b.size()) return "another number of tensors";
  for (const auto& [name, tensor] : a) {
    const auto other = b.find(name);
    if (other == b.end()) return "no tensor " + name;
    if (tensor.shape != other->second.shape) return "another shape of " + name;
    if (tensor.data != other->second.data) return "other numbers in " + name;
  }
  return "";
}

}  // namespace mstpp::testing
