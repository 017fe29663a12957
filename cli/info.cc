// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <string>

#include "command.h"
#include "console.h"
#include "cube_info.h"
#include "flags.h"
#include "mstpp/mstpp.h"

namespace mstpp::cli {
namespace {

constexpr Size kDefaultSize{482, 512};  // the pictures of ARAD-1K

struct InfoFlags {
  OutputFlags output;
  ModelFlags model;
  std::string file;
  std::string size;
};

void TellModel(Console& console, const Model& model, const std::string& path, const Size& size) {
  const auto line = [&](const char* name, const std::string& value) {
    console.Result(fmt::format("{:<12} {}", name, value));
  };
  const Config& config = model.config();
  const Macs macs = model.CountMacs(size.height, size.width);
  if (!path.empty()) line("file", path);
  line("name", model.name());
  line("sha256", model.weights_sha256());
  line("network", fmt::format("{} channels to {} bands, {} stages, attention blocks a level: {}",
                              config.in_channels, config.bands, config.stages,
                              fmt::join(config.blocks, ", ")));
  line("parameters", fmt::format("{}", model.parameters()));
  line("MACs", fmt::format("{:.1f} G as published, {:.1f} G as computed, for {} x {} (H x W)",
                           static_cast<double>(macs.published) * 1e-9,
                           static_cast<double>(macs.restructured) * 1e-9, size.height, size.width));
  line("scaling", model.scaling());
  line("bands", model.wavelengths_nm().empty()
                    ? "wavelengths unknown"
                    : fmt::format("{} nm", fmt::join(model.wavelengths_nm(), ", ")));
  for (const auto& [key, value] : model.metadata())
    line("metadata", fmt::format("{} = {}", key, value));
}

Json ModelToJson(const Model& model, const std::string& path, const Size& size) {
  const Config& config = model.config();
  const Macs macs = model.CountMacs(size.height, size.width);
  Json json;
  json["kind"] = "weights";
  json["file"] = path;
  json["name"] = model.name();
  json["sha256"] = model.weights_sha256();
  json["config"] = {{"in_channels", config.in_channels},
                    {"bands", config.bands},
                    {"stages", config.stages},
                    {"blocks", config.blocks}};
  json["parameters"] = model.parameters();
  json["macs"] = {{"height", size.height},
                  {"width", size.width},
                  {"published", macs.published},
                  {"restructured", macs.restructured}};
  json["scaling"] = model.scaling();
  json["wavelengths_nm"] = model.wavelengths_nm();
  json["metadata"] = model.metadata();
  return json;
}

ExitStatus Info(InfoFlags& flags) {
  Console console(flags.output);
  const Size size = flags.size.empty() ? kDefaultSize : ParseSize(flags.size);
  if (!flags.file.empty() && LooksLikeCube(flags.file)) {
    if (!flags.size.empty()) throw UsageError("--size is for weights; a cube has its own");
    const Cube cube = ReadCube(flags.file);
    TellCube(console, flags.file, cube);
    if (console.json()) PrintJson(CubeToJson(flags.file, cube));
    return kDone;
  }
  if (!flags.file.empty()) flags.model.weights = flags.file;
  const Model model = LoadModel(flags.model);
  std::string path = flags.model.weights;
  if (path.empty() && !flags.model.drawn) path = Model::DefaultPath();
  TellModel(console, model, path, size);
  if (console.json()) PrintJson(ModelToJson(model, path, size));
  return kDone;
}

}  // namespace

Action AddInfo(CLI::App& app) {
  auto flags = std::make_shared<InfoFlags>();
  CLI::Option* file =
      app.add_option("FILE", flags->file,
                     "Weights (.pth, .safetensors, .npz, .onnx) or a cube (.mat, .hdr, .img, .npy, "
                     ".tif); default: the bundled weights")
          ->type_name("");
  app.add_option("--size", flags->size,
                 "Count multiply-accumulates (MACs) for a picture of this size (default: 482x512)")
      ->type_name("HxW");
  AddModelFlags(app, flags->model);
  for (const char* other : {"--weights", "--config", "--seed"}) file->excludes(other);
  AddOutputFlags(app, flags->output);
  return [flags] { return Info(*flags); };
}

}  // namespace mstpp::cli
