// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "command.h"
#include "console.h"
#include "flags.h"
#include "signals.h"

namespace mstpp::cli {
namespace {

namespace fs = std::filesystem;

struct ExportFlags {
  OutputFlags output;
  ModelFlags model;
  std::string format;
  std::string out;
};

// The file to write; its ending is the format's.
std::string PathOf(const ExportFlags& flags, const Model& model) {
  if (flags.out.empty()) {
    return model.name() + "." + (flags.format.empty() ? "safetensors" : flags.format);
  }
  const std::string extension = fs::path(flags.out).extension().string();
  if (extension != ".safetensors" && extension != ".npz") {
    throw UsageError("-o " + flags.out + ": the file must end in .safetensors or .npz");
  }
  if (!flags.format.empty() && extension != "." + flags.format) {
    throw UsageError(
        fmt::format("-o {} is not --format {}; leave one of them out", flags.out, flags.format));
  }
  return flags.out;
}

ExitStatus Export(const ExportFlags& flags) {
  Console console(flags.output);
  const Model model = LoadModel(flags.model);
  const std::string path = PathOf(flags, model);
  std::error_code error;
  if (fs::equivalent(path, flags.model.weights, error)) {
    throw UsageError(path + " is the input; choose another name with -o");
  }
  {
    const WritingFile writing;
    model.Save(path);
  }
  console.Result(fmt::format("{}  {} parameters", path, model.parameters()));
  if (console.json()) {
    PrintJson({{"output", path},
               {"parameters", model.parameters()},
               {"weights", {{"name", model.name()}, {"sha256", model.weights_sha256()}}}});
  }
  return kDone;
}

}  // namespace

Action AddExport(CLI::App& app) {
  auto flags = std::make_shared<ExportFlags>();
  app.add_option("--format", flags->format, "safetensors (default) or npz")
      ->type_name("NAME")
      ->check(CLI::IsMember({"safetensors", "npz"}));
  app.add_option("-o,--output", flags->out,
                 "The file to write (default: the weights' name, in the current folder)")
      ->type_name("FILE");
  AddModelFlags(app, flags->model);
  AddOutputFlags(app, flags->output);
  return [flags] { return Export(*flags); };
}

}  // namespace mstpp::cli
