// SPDX-License-Identifier: Apache-2.0
#include "model/tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <set>

#include "model/config.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

class Declarer {
 public:
  explicit Declarer(const Config& config) : config_(config) {}

  std::vector<TensorSpec> Run() {
    const int64_t n = config_.bands;
    Add("conv_in.weight", {n, config_.in_channels, 3, 3});
    for (int s = 0; s < config_.stages; ++s) Stage(fmt::format("body.{}", s));
    Add("conv_out.weight", {n, n, 3, 3});
    return std::move(specs_);
  }

 private:
  void Add(std::string name, std::vector<int64_t> shape) {
    specs_.push_back({std::move(name), std::move(shape)});
  }

  void Stage(const std::string& stage) {
    const int64_t n = config_.bands;
    const int levels = config_.levels();
    Add(stage + ".embedding.weight", {n, n, 3, 3});
    for (int i = 0; i < levels; ++i) {
      const std::string layer = fmt::format("{}.encoder_layers.{}", stage, i);
      const int64_t c = config_.channels(i);
      Blocks(layer + ".0", i);
      Add(layer + ".1.weight", {2 * c, c, 4, 4});
    }
    Blocks(stage + ".bottleneck", levels);
    for (int i = 0; i < levels; ++i) {
      const std::string layer = fmt::format("{}.decoder_layers.{}", stage, i);
      const int level = levels - 1 - i;
      const int64_t c = config_.channels(level);
      Add(layer + ".0.weight", {2 * c, c, 2, 2});
      Add(layer + ".0.bias", {c});
      Add(layer + ".1.weight", {c, 2 * c, 1, 1});
      Blocks(layer + ".2", level);
    }
    Add(stage + ".mapping.weight", {n, n, 3, 3});
  }

  void Blocks(const std::string& name, int level) {
    const int64_t c = config_.channels(level);
    for (int i = 0; i < config_.blocks[level]; ++i) {
      const std::string attention = fmt::format("{}.blocks.{}.0", name, i);
      Add(attention + ".rescale", {c / config_.bands, 1, 1});
      for (const char* linear : {"to_q", "to_k", "to_v", "proj"}) {
        Add(fmt::format("{}.{}.weight", attention, linear), {c, c});
      }
      Add(attention + ".proj.bias", {c});
      Add(attention + ".pos_emb.0.weight", {c, 1, 3, 3});
      Add(attention + ".pos_emb.2.weight", {c, 1, 3, 3});
      const std::string ffn = fmt::format("{}.blocks.{}.1", name, i);
      Add(ffn + ".fn.net.0.weight", {4 * c, c, 1, 1});
      Add(ffn + ".fn.net.2.weight", {4 * c, 1, 3, 3});
      Add(ffn + ".fn.net.4.weight", {c, 4 * c, 1, 1});
      Add(ffn + ".norm.weight", {c});
      Add(ffn + ".norm.bias", {c});
    }
  }

  const Config& config_;
  std::vector<TensorSpec> specs_;
};

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

// How many different numbers follow `prefix` in the names: body.0., body.1. -> 2. A gap or a number
// out of range shows up later as a missing tensor.
int CountIndices(const StateDict& tensors, const std::string& prefix) {
  std::set<int> seen;
  for (auto it = tensors.lower_bound(prefix); it != tensors.end(); ++it) {
    const std::string& name = it->first;
    if (name.compare(0, prefix.size(), prefix) != 0) break;
    int index = 0;
    const char* begin = name.data() + prefix.size();
    const char* end = name.data() + name.size();
    const auto [next, error] = std::from_chars(begin, end, index);
    if (error == std::errc() && next != end && *next == '.') seen.insert(index);
  }
  return static_cast<int>(seen.size());
}

[[noreturn]] void NotOfTheFamily(const std::string& file, const std::string& why) {
  throw Error(ErrorCode::kCorrupt, file,
              why +
                  "; these are not the weights of an MST++ network (expected the state dict "
                  "names of the official code: conv_in.weight, body.0.embedding.weight, ...)");
}

}  // namespace

std::vector<TensorSpec> DeclareTensors(const Config& config) { return Declarer(config).Run(); }

Config DeriveConfig(const StateDict& tensors, const std::string& file) {
  const auto conv_in = tensors.find("conv_in.weight");
  if (conv_in == tensors.end()) NotOfTheFamily(file, "there is no tensor conv_in.weight");
  const std::vector<int64_t>& shape = conv_in->second.shape;
  if (shape.size() != 4 || shape[0] < 1 || shape[0] > ConfigLimits::kChannels || shape[1] < 1 ||
      shape[1] > ConfigLimits::kChannels) {
    NotOfTheFamily(file, "tensor conv_in.weight has the shape " + ShapeText(shape));
  }
  Config config;
  config.bands = static_cast<int>(shape[0]);
  config.in_channels = static_cast<int>(shape[1]);
  config.stages = CountIndices(tensors, "body.");
  const int levels = CountIndices(tensors, "body.0.encoder_layers.");
  if (config.stages < 1 || config.stages > ConfigLimits::kStages || levels < 1 ||
      levels > ConfigLimits::kLevels) {
    NotOfTheFamily(file, fmt::format("it has {} stages and {} levels", config.stages, levels));
  }
  config.blocks.clear();
  for (int i = 0; i < levels; ++i) {
    config.blocks.push_back(
        CountIndices(tensors, fmt::format("body.0.encoder_layers.{}.0.blocks.", i)));
  }
  config.blocks.push_back(CountIndices(tensors, "body.0.bottleneck.blocks."));
  for (int blocks : config.blocks) {
    if (blocks < 1 || blocks > ConfigLimits::kBlocks) {
      NotOfTheFamily(file, fmt::format("a level has {} attention blocks", blocks));
    }
  }
  return config;
}

void CheckTensors(const StateDict& tensors, const Config& config, const std::string& file) {
  std::set<std::string> declared;
  for (const TensorSpec& spec : DeclareTensors(config)) {
    const auto it = tensors.find(spec.name);
    if (it == tensors.end()) {
      throw Error(ErrorCode::kCorrupt, file, "tensor " + spec.name + " is missing");
    }
    if (it->second.shape != spec.shape) {
      throw Error(ErrorCode::kCorrupt, file,
                  fmt::format("tensor {} has the shape {}, expected {}", spec.name,
                              ShapeText(it->second.shape), ShapeText(spec.shape)));
    }
    declared.insert(spec.name);
  }
  for (const auto& [name, tensor] : tensors) {
    if (!declared.contains(name)) {
      throw Error(ErrorCode::kCorrupt, file,
                  "tensor " + name + " does not belong to an MST++ network of this configuration");
    }
  }
}

}  // namespace mstpp
