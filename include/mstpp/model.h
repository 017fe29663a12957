// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace mstpp {

struct Network;  // internal: src/model/network.h

// The shape of a network of the MST++ family. The published one is the default.
struct Config {
  int in_channels = 3;
  int bands = 31;                    // output bands, and features at full resolution
  int stages = 3;                    // single-stage transformers in a row: `body.*`
  std::vector<int> blocks{1, 1, 1};  // attention blocks a level, full resolution first, the
                                     // bottleneck last; so the U has blocks.size() - 1 levels
  int levels() const { return static_cast<int>(blocks.size()) - 1; }
  int channels(int level) const { return bands << level; }
  // Inputs are padded to multiples of this (8 in the published code).
  int padding_multiple() const { return levels() > 3 ? 1 << levels() : 8; }
  bool operator==(const Config&) const = default;
};

// Reads {"in_channels": 3, "bands": 31, "stages": 3, "blocks": [1, 1, 1]} from a JSON file; fields
// left out keep the published values, unknown ones are refused. Throws Error.
Config ReadConfig(const std::string& path);

// Multiply-accumulates for one padded picture, as published and in the restructured form that
// the engines compute (docs/architecture.md).
struct Macs {
  int64_t published = 0;
  int64_t restructured = 0;
};

// A network and its weights: immutable, cheap to copy, safe to share between threads.
class Model {
 public:
  // Reads .pth, .safetensors, .npz or .onnx weights, by content. The configuration is derived from
  // the tensors' names and shapes. NaN and infinities are refused unless `allow_nonfinite`.
  // Throws Error (kNotFound, kIo, kCorrupt, kUnsupported, kInvalidArgument).
  static Model Load(const std::string& path, bool allow_nonfinite = false);

  // The weights that come with mstpp. Throws Error (kNotFound) if they are not installed.
  static Model Default();
  static std::string DefaultPath();

  // Weights drawn from `seed`, of the magnitude of trained ones: for benchmarks and tests.
  static Model Random(const Config& config, uint64_t seed);

  const Config& config() const;
  const std::string& name() const;            // from the metadata, else the file's stem
  const std::string& weights_sha256() const;  // of the file; of the tensors for drawn weights
  const std::vector<double>& wavelengths_nm() const;  // empty if unknown
  const std::string& scaling() const;  // "minmax", "unit" or "none": what the training used
  const std::map<std::string, std::string>& metadata() const;  // as the file gives it
  int64_t parameters() const;
  Macs CountMacs(int64_t height, int64_t width) const;  // padded to padding_multiple() first

  // Writes the weights; the extension chooses the format (.safetensors or .npz). Throws Error.
  void Save(const std::string& path) const;

  const Network& network() const { return *network_; }

 private:
  explicit Model(std::shared_ptr<const Network> network) : network_(std::move(network)) {}
  std::shared_ptr<const Network> network_;
};

}  // namespace mstpp
