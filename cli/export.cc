// SPDX-License-Identifier: Apache-2.0
#include "onnx/export.h"

#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "command.h"
#include "console.h"
#include "flags.h"
#include "signals.h"

namespace mstpp::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::array kFormats{"safetensors", "npz", "onnx"};  // and the file endings
constexpr std::array kOnnxFlags{"--opset",   "--batch",     "--size", "--pad",
                                "--no-crop", "--precision", "--form"};

struct ExportFlags {
  OutputFlags output;
  ModelFlags model;
  std::string format;
  std::string out;
  OnnxOptions onnx;
  bool no_crop = false;
  std::string size;
};

std::optional<Padding> ParseGraphPadding(const std::string& name) {
  if (name == "none") return std::nullopt;
  try {
    return ParsePadding(name);
  } catch (const Error&) {
    throw Error(ErrorCode::kInvalidArgument, "padding",
                "'" + name + "' is not one of reflect, zero, none");
  }
}

AttentionForm ParseForm(const std::string& name) {
  if (name == "published") return AttentionForm::kPublished;
  if (name == "restructured") return AttentionForm::kRestructured;
  throw Error(ErrorCode::kInvalidArgument, "form",
              "'" + name + "' is not one of published, restructured");
}

std::string FormatOf(const ExportFlags& flags) {
  if (flags.out.empty()) return flags.format.empty() ? kFormats.front() : flags.format;
  const std::string extension = fs::path(flags.out).extension().string();
  for (const char* format : kFormats) {
    if (extension != std::string(".") + format) continue;
    if (!flags.format.empty() && flags.format != format) {
      throw UsageError(
          fmt::format("-o {} is not --format {}; leave one of them out", flags.out, flags.format));
    }
    return format;
  }
  throw UsageError("-o " + flags.out + ": the file must end in .safetensors, .npz or .onnx");
}

void CheckOnnxFlags(const CLI::App& app, const std::string& format) {
  for (const char* flag : kOnnxFlags) {
    if (format != "onnx" && app.count(flag) > 0) {
      throw UsageError(fmt::format("{} is for --format onnx, not {}", flag, format));
    }
  }
}

void Write(const ExportFlags& flags, const Model& model, const std::string& format,
           const std::string& path) {
  const WritingFile writing;
  if (format != "onnx") return model.Save(path);
  OnnxOptions options = flags.onnx;
  options.crop = !flags.no_crop;
  if (!flags.size.empty()) {
    const Size size = ParseSize(flags.size);
    options.height = size.height;
    options.width = size.width;
  }
  ExportOnnx(model, path, options);
}

ExitStatus Export(const CLI::App& app, const ExportFlags& flags) {
  Console console(flags.output);
  const std::string format = FormatOf(flags);
  CheckOnnxFlags(app, format);
  const Model model = LoadModel(flags.model);
  const std::string path = flags.out.empty() ? model.name() + "." + format : flags.out;
  std::error_code error;
  if (fs::equivalent(path, flags.model.weights, error)) {
    throw UsageError(path + " is the input; choose another name with -o");
  }
  Write(flags, model, format, path);
  console.Result(fmt::format("{}  {} parameters", path, model.parameters()));
  if (console.json()) {
    PrintJson({{"output", path},
               {"format", format},
               {"parameters", model.parameters()},
               {"weights", {{"name", model.name()}, {"sha256", model.weights_sha256()}}}});
  }
  return kDone;
}

void AddOnnxFlags(CLI::App& app, ExportFlags& flags) {
  const char* group = "ONNX";
  app.add_option("--opset", flags.onnx.opset, "13 to 17")
      ->type_name("N")
      ->group(group)
      ->capture_default_str();
  app.add_option("--batch", flags.onnx.batch, "Pictures a run (default: any number)")
      ->type_name("N")
      ->group(group);
  app.add_option("--size", flags.size, "Rows and columns of the input (default: any)")
      ->type_name("HxW")
      ->group(group);
  AddNamed(app, "--pad", flags.onnx.padding, ParseGraphPadding,
           "How the graph pads to multiples of 8: reflect (default), zero, or none: its input's "
           "sides must be such multiples")
      ->group(group);
  app.add_flag("--no-crop", flags.no_crop, "The output keeps the padded size")->group(group);
  AddNamed(app, "--precision", flags.onnx.precision, ParsePrecision,
           "fp32 (default), or fp16: weights and arithmetic but for sums")
      ->group(group);
  AddNamed(app, "--form", flags.onnx.form, ParseForm,
           "S-MSA as published (default), or restructured: the same function with less arithmetic")
      ->group(group);
}

}  // namespace

Action AddExport(CLI::App& app) {
  auto flags = std::make_shared<ExportFlags>();
  app.add_option("--format", flags->format, "safetensors (default), npz or onnx")
      ->type_name("NAME")
      ->check(CLI::IsMember({"safetensors", "npz", "onnx"}).description(""));
  app.add_option("-o,--output", flags->out,
                 "The file to write (default: the weights' name, in the current folder)")
      ->type_name("FILE");
  AddModelFlags(app, flags->model);
  AddOutputFlags(app, flags->output);
  AddOnnxFlags(app, *flags);
  return [flags, &app] { return Export(app, *flags); };
}

}  // namespace mstpp::cli
