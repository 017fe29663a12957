// SPDX-License-Identifier: Apache-2.0
// What an ONNX file that this program wrote tells of itself in its metadata.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "core/sha256.h"
#include "weights/onnx.pb.h"

namespace mstpp {

constexpr char kOnnxAttention[] = "attention";  // "published" or "restructured"
constexpr char kOnnxPadding[] = "padding";      // "reflect", "zero" or "none"
// Checksums: of the weights' names, and of their names, types, shapes and numbers.
constexpr char kOnnxNames[] = "weights_names";
constexpr char kOnnxChecksum[] = "weights_checksum";

// Whether an initializer is a weight: the names of other constants have a slash.
inline bool IsOnnxWeight(const std::string& name) { return name.find('/') == std::string::npos; }

class OnnxChecksum {
 public:
  // In any order. `data` as they lie in the file.
  void Add(const onnx::Tensor& tensor, const void* data, size_t bytes) {
    std::string& sum = sums_[tensor.name()];
    sum = std::to_string(tensor.data_type());
    for (int64_t extent : tensor.dims()) sum += ' ' + std::to_string(extent);
    sum += ' ' + Sha256(data, bytes);
  }

  std::string Names() const { return Join(false); }
  std::string All() const { return Join(true); }

 private:
  std::string Join(bool numbers) const {
    std::string lines;
    for (const auto& [name, sum] : sums_) lines += name + ' ' + (numbers ? sum : "") + '\n';
    return Sha256(lines.data(), lines.size());
  }

  std::map<std::string, std::string> sums_;
};

}  // namespace mstpp
