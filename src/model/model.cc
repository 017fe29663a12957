// SPDX-License-Identifier: Apache-2.0
#include "mstpp/model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <utility>

#include "core/sha256.h"
#include "model/config.h"
#include "model/network.h"
#include "model/tensors.h"
#include "mstpp/error.h"
#include "weights/weights.h"

namespace mstpp {
namespace {

namespace fs = std::filesystem;

constexpr char kDefaultWeights[] = "mst_plus_plus_cave.safetensors";

// Networks trained with DataParallel carry the prefix "module." in every name.
StateDict WithoutModulePrefix(StateDict tensors) {
  static const std::string kPrefix = "module.";
  StateDict result;
  while (!tensors.empty()) {
    auto entry = tensors.extract(tensors.begin());
    if (entry.key().starts_with(kPrefix)) entry.key().erase(0, kPrefix.size());
    result.insert(std::move(entry));
  }
  return result;
}

std::vector<double> ParseWavelengths(const std::string& text, const std::string& file, int bands) {
  std::vector<double> wavelengths;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    char* rest = nullptr;
    const double value = std::strtod(item.c_str(), &rest);
    if (rest == item.c_str() || !std::isfinite(value)) {
      throw Error(ErrorCode::kCorrupt, file,
                  "metadata wavelengths_nm: '" + item + "' is not a number");
    }
    wavelengths.push_back(value);
    begin = end + 1;
  }
  if (static_cast<int>(wavelengths.size()) != bands) {
    throw Error(ErrorCode::kCorrupt, file,
                fmt::format("metadata wavelengths_nm has {} numbers for {} bands",
                            wavelengths.size(), bands));
  }
  return wavelengths;
}

// The official checkpoints say nothing of wavelengths and scaling: theirs are 31 bands from 400 to
// 700 nm and min-max.
void FillFromMetadata(Network& network, const std::string& file) {
  const auto find = [&](const char* key) -> const std::string* {
    const auto it = network.metadata.find(key);
    return it == network.metadata.end() ? nullptr : &it->second;
  };
  if (const std::string* name = find("name")) network.name = *name;
  network.scaling = "minmax";
  if (const std::string* scaling = find("scaling")) {
    if (*scaling != "minmax" && *scaling != "unit" && *scaling != "none") {
      throw Error(ErrorCode::kCorrupt, file,
                  "metadata scaling: '" + *scaling + "' is not one of minmax, unit, none");
    }
    network.scaling = *scaling;
  }
  const int bands = network.config.bands;
  if (const std::string* wavelengths = find("wavelengths_nm")) {
    network.wavelengths_nm = ParseWavelengths(*wavelengths, file, bands);
  } else if (bands == 31) {
    for (int i = 0; i < bands; ++i) network.wavelengths_nm.push_back(400.0 + 10.0 * i);
  }
}

// Magnitudes like those of a trained network: products keep the variance of what they read, so that
// activations stay near 1 through any number of stages; residual branches are weaker.
float Deviation(const TensorSpec& spec) {
  int64_t fan_in = 1;
  for (size_t i = 1; i < spec.shape.size(); ++i) fan_in *= spec.shape[i];
  return 0.7f / std::sqrt(static_cast<float>(fan_in));
}

// Portable and the same everywhere: the sum of uniforms, not std::normal_distribution, whose
// algorithm is the standard library's choice.
float DrawNormal(std::mt19937_64& generator) {
  double sum = -6.0;
  for (int i = 0; i < 12; ++i) sum += static_cast<double>(generator() >> 11) * 0x1p-53;
  return static_cast<float>(sum);
}

Tensor DrawTensor(const TensorSpec& spec, std::mt19937_64& generator) {
  const bool gain = spec.name.ends_with("norm.weight") || spec.name.ends_with("rescale");
  const bool bias = spec.name.ends_with(".bias");
  const float mean = gain ? 1.0f : 0.0f;
  const float deviation = gain || bias ? 0.1f : Deviation(spec);
  Tensor tensor{spec.shape, {}};
  tensor.data.resize(static_cast<size_t>(tensor.size()));
  for (float& value : tensor.data) value = mean + deviation * DrawNormal(generator);
  return tensor;
}

std::string HashTensors(const StateDict& tensors) {
  std::string bytes;
  for (const auto& [name, tensor] : tensors) {
    bytes += name;
    bytes.append(reinterpret_cast<const char*>(tensor.data.data()),
                 tensor.data.size() * sizeof(float));
  }
  return Sha256(bytes.data(), bytes.size());
}

}  // namespace

Model Model::Load(const std::string& path, bool allow_nonfinite) {
  WeightsFile file = ReadWeights(path, allow_nonfinite);
  auto network = std::make_shared<Network>();
  network->tensors = WithoutModulePrefix(std::move(file.tensors));
  network->config = DeriveConfig(network->tensors, path);
  CheckTensors(network->tensors, network->config, path);
  network->graph = BuildMstPlusPlus(network->config);
  network->name = fs::path(path).stem().string();
  network->sha256 = file.sha256;
  network->metadata = std::move(file.metadata);
  FillFromMetadata(*network, path);
  return Model(std::move(network));
}

std::string Model::DefaultPath() {
  std::vector<fs::path> candidates;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    candidates.push_back(program.parent_path().parent_path() / "share/mstpp/weights");
  }
  candidates.emplace_back(MSTPP_INSTALL_WEIGHTS_DIR);
  candidates.emplace_back(MSTPP_SOURCE_WEIGHTS_DIR);
  std::string tried;
  for (const fs::path& folder : candidates) {
    const fs::path path = folder / kDefaultWeights;
    if (fs::exists(path, error)) return path.string();
    tried += (tried.empty() ? "" : ", ") + folder.string();
  }
  throw Error(ErrorCode::kNotFound, kDefaultWeights,
              "the default weights were not found in " + tried +
                  "; install mstpp with its weights or name a weights file");
}

Model Model::Default() { return Load(DefaultPath()); }

Model Model::Random(const Config& config, uint64_t seed) {
  CheckConfig(config, "config");
  auto network = std::make_shared<Network>();
  network->config = config;
  network->graph = BuildMstPlusPlus(config);
  std::mt19937_64 generator(seed);
  for (const TensorSpec& spec : DeclareTensors(config)) {
    network->tensors[spec.name] = DrawTensor(spec, generator);
  }
  network->name = fmt::format("random_seed{}", seed);
  network->sha256 = HashTensors(network->tensors);
  network->metadata = {{"name", network->name}, {"scaling", "unit"}};
  FillFromMetadata(*network, network->name);
  return Model(std::move(network));
}

const Config& Model::config() const { return network_->config; }
const std::string& Model::name() const { return network_->name; }
const std::string& Model::weights_sha256() const { return network_->sha256; }
const std::vector<double>& Model::wavelengths_nm() const { return network_->wavelengths_nm; }
const std::string& Model::scaling() const { return network_->scaling; }
const std::map<std::string, std::string>& Model::metadata() const { return network_->metadata; }

int64_t Model::parameters() const {
  int64_t count = 0;
  for (const auto& [name, tensor] : network_->tensors) count += tensor.size();
  return count;
}

void Model::Save(const std::string& path) const {
  std::map<std::string, std::string> metadata = network_->metadata;
  metadata["name"] = network_->name;
  metadata["scaling"] = network_->scaling;
  if (!network_->wavelengths_nm.empty()) {
    metadata["wavelengths_nm"] = fmt::format("{}", fmt::join(network_->wavelengths_nm, ","));
  }
  const std::string extension = fs::path(path).extension().string();
  if (extension == ".safetensors") {
    WriteSafetensors(path, network_->tensors, metadata);
  } else if (extension == ".npz") {
    WriteNpz(path, network_->tensors, metadata);
  } else {
    throw Error(ErrorCode::kInvalidArgument, path,
                "weights are written as .safetensors or .npz; give the file one of these endings");
  }
}

}  // namespace mstpp
