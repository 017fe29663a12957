// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "batch.h"
#include "color/render.h"
#include "command.h"
#include "console.h"
#include "flags.h"
#include "jobs.h"
#include "mstpp/engine.h"
#include "mstpp/mstpp.h"

namespace mstpp::cli {
namespace {

constexpr char kNotes[] =
    "Inputs are pictures (JPEG, PNG, TIFF), folders of pictures (not those below them), or .npy\n"
    "tensors, float32, (3, H, W) or (N, 3, H, W), which are used as they are: unscaled, "
    "unclipped,\n"
    "and written as .npy, (31, H, W) or (N, 31, H, W).\n"
    "Without -o the cube of photos/leaf.jpg is leaf.mat in the current folder. With -o FOLDER it\n"
    "is FOLDER/leaf.mat; the folder is made if it is missing. An existing output is replaced once\n"
    "the new one is complete; an input is never overwritten.\n"
    "If some inputs fail, the others are done all the same and the exit status is 1.";

struct RunFlags {
  OutputFlags output;
  ModelFlags model;
  Options options;
  std::vector<std::string> inputs;
  std::string formats;
  bool no_clip = false;
  OutputRequest request;
};

// Options that mean nothing for a tensor, if one of the inputs is one.
void CheckTensorFlags(const CLI::App& app, const RunFlags& flags, const Inputs& inputs) {
  const auto tensor =
      std::find_if(inputs.items.begin(), inputs.items.end(),
                   [](const Input& input) { return input.kind == InputKind::kTensor; });
  if (tensor == inputs.items.end()) return;
  const auto refuse = [&](const char* flag) {
    throw UsageError(
        fmt::format("{} is for pictures; {} is a tensor, used as it is", flag, tensor->path));
  };
  if (app.count("--scaling") > 0 && flags.options.scaling != Scaling::kNone) refuse("--scaling");
  if (flags.options.ensemble != Ensemble::kNone) refuse("--ensemble");
  if (app.count("--clip") > 0) refuse("--clip");
  if (flags.request.preview) refuse("--preview");
}

// Finds out before the work whether the cubes' colours will be known.
void CheckPreview(const Model& model) {
  Cube pixel{.width = 1, .height = 1, .bands = model.config().bands};
  pixel.data.resize(static_cast<size_t>(pixel.bands));
  pixel.wavelengths_nm = model.wavelengths_nm();
  pixel.provenance.source = "--preview";
  RenderSrgb(pixel);
}

Json ToJson(const Report& report) {
  Json json;
  json["input"] = report.job->input.path;
  if (report.failed) {
    json["code"] = report.code;
    json["message"] = report.message;
    return json;
  }
  json["outputs"] = report.job->Files();
  json["images"] = report.images;
  json["width"] = report.width;
  json["height"] = report.height;
  json["seconds"] = {{"read", report.read_s}, {"run", report.run_s}, {"write", report.write_s}};
  return json;
}

Json ToJson(const Engine& engine, const Inputs& inputs, const std::vector<Report>& reports) {
  const Model& model = engine.model();
  Json json{{"version", Version()},
            {"backend", engine.options().device},
            {"device", engine.device_description()},
            {"precision", ToString(engine.options().precision)},
            {"weights", {{"name", model.name()}, {"sha256", model.weights_sha256()}}},
            {"files", Json::array()},
            {"failed", Json::array()},
            {"skipped", inputs.skipped}};
  for (const Report& report : reports) {
    json[report.failed ? "failed" : "files"].push_back(ToJson(report));
  }
  return json;
}

ExitStatus Run(const CLI::App& app, RunFlags& flags) {
  Console console(flags.output);
  flags.options.clip = !flags.no_clip;
  if (app.count("--format") > 0) flags.request.formats = ParseFormats(flags.formats);
  const Inputs inputs = FindInputs(flags.inputs);
  CheckTensorFlags(app, flags, inputs);
  const std::vector<Job> jobs = PlanJobs(inputs, flags.request);
  for (const std::string& path : inputs.skipped) {
    console.Note("mstpp: skipped, not a picture: " + path);
  }

  const Model model = LoadModel(flags.model);
  if (flags.request.preview) CheckPreview(model);
  const Engine engine(model, flags.options);
  console.Note(fmt::format("mstpp: {} ({}), {}, weights {}", engine.options().device,
                           engine.device_description(), ToString(engine.options().precision),
                           model.name()));
  MakeFolders(jobs);

  const std::vector<Report> reports = Batch(engine, console).Run(jobs);
  const auto failed = std::count_if(reports.begin(), reports.end(),
                                    [](const Report& report) { return report.failed; });
  if (failed > 0 && reports.size() > 1) {
    console.Problem(fmt::format("mstpp: {} of {} inputs failed", failed, reports.size()));
  }
  if (console.json()) PrintJson(ToJson(engine, inputs, reports));
  return failed > 0 ? kFailed : kDone;
}

}  // namespace

Action AddRun(CLI::App& app) {
  auto flags = std::make_shared<RunFlags>();
  app.footer(kNotes);
  app.add_option("INPUT", flags->inputs, "Pictures, folders of pictures, or .npy tensors")
      ->required()
      ->type_name("");
  app.add_option("-o,--output", flags->request.out,
                 "A folder, or for one input a file whose ending says the format")
      ->type_name("OUT");
  app.add_option("--format", flags->formats,
                 "mat, npy, envi, tif, or several with commas (default: by OUT's ending, else mat)")
      ->type_name("LIST");
  AddNamed(app, "--scaling", flags->options.scaling, ParseScaling,
           "How counts become the network's input: minmax (the picture's least and greatest "
           "become 0 and 1), unit (full scale becomes 1), none, or weights (default: what the "
           "weights were trained with)");
  AddNamed(app, "--pad", flags->options.padding, ParsePadding,
           "How sides are padded to multiples of 8: reflect (default) or zero");
  AddNamed(app, "--ensemble", flags->options.ensemble, ParseEnsemble,
           "mean or median of the 8 flipped and transposed variants, 8 times the work; none "
           "(default)");
  CLI::Option* clip = app.add_flag_callback(
      "--clip", [] {}, "Clip the cubes of pictures to [0, 1] (default)");
  app.add_flag("--no-clip", flags->no_clip, "Leave them as the network gives them")->excludes(clip);
  app.add_flag("--preview", flags->request.preview,
               "Also write NAME.preview.png, the cube as the eye would see it");
  AddModelFlags(app, flags->model);
  AddEngineFlags(app, flags->options);
  AddTransfersFlag(app, flags->options);
  AddOutputFlags(app, flags->output);
  return [flags, &app] { return Run(app, *flags); };
}

}  // namespace mstpp::cli
