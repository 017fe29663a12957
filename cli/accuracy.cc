// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include "accuracy_report.h"
#include "command.h"
#include "console.h"
#include "core/atomic_file.h"
#include "figures.h"
#include "flags.h"
#include "mstpp/mstpp.h"
#include "report/journal.h"
#include "report/metrics.h"
#include "samples.h"
#include "side.h"
#include "signals.h"

namespace mstpp::cli {
namespace {

namespace fs = std::filesystem;

constexpr char kNotes[] =
    "Inputs are pictures, cubes (.mat, ENVI .hdr, .npy; TIFF with --cubes), or folders of either. "
    "A\n"
    "cube is the truth of a picture that is rendered from it: CIE 1931 observer, sRGB, 8 bits. "
    "Other\n"
    "wavelengths than the weights' are interpolated linearly.\n"
    "  mstpp accuracy pictures/ --against reference\n"
    "  mstpp accuracy pictures/ --truth cubes/                  pictures/x.jpg and cubes/x.mat\n"
    "  mstpp accuracy cubes/ --precision fp16 --against cpu --html report.html --journal "
    "study.jsonl\n"
    "Of every image are taken, on what --crop leaves: the mean, median and maximum of the "
    "absolute\n"
    "and of the relative error; against a truth also MRAE, RMSE, PSNR, SAM and SSIM. MRAE and\n"
    "relative errors leave out values that should be 0 (and say how many); PSNR and SSIM clamp "
    "both\n"
    "to [0, 1]. The default crop is that of the NTIRE challenge, whose pictures are 512 x 482. "
    "Over\n"
    "the images each figure's lowest and highest are dropped (--trim).\n"
    "With --journal what is done is kept: run the same command again after an interruption.";

struct AccuracyFlags {
  OutputFlags output;
  ModelFlags model;
  Options options;
  SampleRequest samples;
  std::string against, journal, csv, html;
  int64_t crop = 128;
  size_t trim = 1;
  bool clip = false;
};

// Everything that the figures of an image depend on, but the image.
Json SettingOf(const AccuracyFlags& flags, const Engine& engine, const Engine* against,
               const std::string& truth, Scaling scaling) {
  return {{"version", Version()},
          {"engine", EngineToJson(engine)},
          {"against", against != nullptr ? EngineToJson(*against) : Json()},
          {"truth", truth},
          {"white", flags.samples.white},
          {"scaling", ToString(scaling)},
          {"padding", ToString(flags.options.padding)},
          {"ensemble", ToString(flags.options.ensemble)},
          {"clip", flags.clip},
          {"crop", flags.crop}};
}

class Study {
 public:
  Study(const AccuracyFlags& flags, Console& console, const Engine& engine, const Engine* against,
        Journal* journal)
      : flags_(flags), console_(console), engine_(engine), against_(against), journal_(journal) {}

  // Goes on past images that fail.
  void Run(const std::vector<Sample>& samples, AccuracyResult& result) {
    figures_ = result.specs.size();
    console_.BeginProgress(samples.size());
    for (size_t i = 0; i < samples.size(); ++i) {
      console_.Progress(i, samples[i].path);
      Remind(i, samples.size());
      std::string key;
      ImageFigures image;
      bool is_new = true;
      const bool measured = Guard(samples[i], result, [&] {
        if (journal_ != nullptr) {
          key = HashSample(samples[i], flags_.samples);
          is_new = !Find(key, image);
        }
        if (is_new) image = Measure(samples[i]);
        image.path = samples[i].path;
      });
      if (!measured) continue;
      // If this fails so does the study: to go on would be to work for nothing.
      if (is_new && journal_ != nullptr) Keep(key, image);
      result.images.push_back(std::move(image));
    }
    console_.EndProgress();
  }

  size_t found() const { return found_; }

 private:
  // Where no progress bar is seen, a line now and then.
  void Remind(size_t done, size_t total) {
    constexpr std::chrono::seconds kPeriod{60};
    const auto now = std::chrono::steady_clock::now();
    if (now - reminded_ < kPeriod) return;
    reminded_ = now;
    console_.Note(fmt::format("mstpp: {} of {} images", done, total));
  }

  void Fail(const Sample& sample, ErrorCode code, const std::string& what, AccuracyResult& result) {
    const std::string message =
        what.find(sample.path) == std::string::npos ? sample.path + ": " + what : what;
    console_.Problem("mstpp: error: " + message);
    result.failed.push_back({sample.path, ToString(code), message});
  }

  // Runs `work`; an Error in it becomes the image's failure.
  template <typename Work>
  bool Guard(const Sample& sample, AccuracyResult& result, Work work) {
    try {
      work();
      return true;
    } catch (const Error& error) {
      Fail(sample, error.code(), error.what(), result);
    } catch (const std::bad_alloc&) {
      Fail(sample, ErrorCode::kOutOfMemory, "not enough memory", result);
    }
    return false;
  }

  bool Find(const std::string& key, ImageFigures& image) {
    const Json* finding = journal_->Find(key);
    if (finding == nullptr) return false;
    try {
      image.width = finding->at("width");
      image.height = finding->at("height");
      image.figures = FiguresFromJson(finding->at("figures"));
    } catch (const Json::exception&) {
      image.figures.clear();
    }
    if (image.figures.size() != figures_) {
      throw Error(ErrorCode::kCorrupt, flags_.journal,
                  "holds other figures than this version takes; remove it to begin anew");
    }
    ++found_;
    return true;
  }

  void Keep(const std::string& key, const ImageFigures& image) {
    const WritingFile writing;
    journal_->Add(key, {{"input", image.path},
                        {"width", image.width},
                        {"height", image.height},
                        {"figures", FiguresToJson(image.figures)}});
  }

  ImageFigures Measure(const Sample& sample) const {
    const LoadedSample loaded = LoadSample(sample, flags_.samples, engine_.model());
    const Image& image = loaded.image;
    const auto crop = [&](const Cube& cube) {
      return CropBorder(TensorView::Nchw(cube.data.data(), 1, cube.bands, cube.height, cube.width),
                        flags_.crop, sample.path);
    };
    // Before the work rather than after it.
    CropBorder(TensorView{.n = 1, .h = image.height, .w = image.width}, flags_.crop, sample.path);
    TensorView truth, against;
    if (loaded.truth) {
      truth = crop(*loaded.truth);
      CheckFinite(truth, sample.path + ": truth");
    }
    const Cube cube = engine_.Run(image);
    const TensorView result = crop(cube);
    CheckFinite(result, sample.path + ": result");
    Cube other;
    if (against_ != nullptr) {
      other = against_->Run(image);
      against = crop(other);
      CheckFinite(against, sample.path + ": result of " + against_->options().device);
    }
    return {sample.path, image.width, image.height, MeasureFigures(result, against, truth)};
  }

  const AccuracyFlags& flags_;
  Console& console_;
  const Engine& engine_;
  const Engine* against_;
  Journal* journal_;
  size_t figures_ = 0, found_ = 0;
  std::chrono::steady_clock::time_point reminded_ = std::chrono::steady_clock::now();
};

std::vector<std::pair<std::string, std::string>> ProtocolOf(const AccuracyFlags& flags,
                                                            const AccuracyResult& result,
                                                            const Engine& engine,
                                                            const Engine* against,
                                                            bool cubes_given) {
  std::vector<std::pair<std::string, std::string>> lines{{"measured", Describe(engine)}};
  if (against != nullptr) lines.emplace_back("against", Describe(*against));
  if (!flags.samples.truth.empty()) lines.emplace_back("truth", "cubes in " + flags.samples.truth);
  if (cubes_given) {
    lines.emplace_back("truth",
                       "the cubes given; pictures rendered from them: CIE 1931, sRGB, 8 bits");
  }
  lines.emplace_back("input",
                     fmt::format("scaling {}, padding {}, ensemble {}, {}",
                                 result.setting["scaling"].get<std::string>(),
                                 ToString(flags.options.padding), ToString(flags.options.ensemble),
                                 flags.clip ? "clipped to [0, 1]" : "not clipped"));
  lines.emplace_back("crop", flags.crop == 0 ? "none: whole images"
                                             : fmt::format("{} pixels off each side", flags.crop));
  lines.emplace_back("images", fmt::format("{}, of each figure the {} lowest and highest dropped",
                                           result.images.size(), result.trim));
  return lines;
}

// What can be known to be wrong before the work begins.
void Check(const AccuracyFlags& flags, const Samples& samples) {
  if (flags.samples.truth.empty() && flags.against.empty()) {
    for (const Sample& sample : samples.items) {
      if (sample.is_cube) continue;
      throw UsageError(sample.path +
                       " is a picture, and there is nothing to measure it against; give its cubes "
                       "with --truth FOLDER or another engine with --against");
    }
  }
  const bool cubes = samples.items.front().is_cube;
  for (const Sample& sample : samples.items) {
    if (sample.is_cube && !flags.samples.truth.empty()) {
      throw UsageError(sample.path + " is a cube, its own truth; --truth is for pictures");
    }
    if (sample.is_cube != cubes) {
      throw UsageError(fmt::format("{} is a {} and {} is not; measure them apart",
                                   samples.items.front().path, cubes ? "cube" : "picture",
                                   sample.path));
    }
  }
  for (const std::string& file : {flags.csv, flags.html, flags.journal}) {
    for (const Sample& sample : samples.items) {
      std::error_code error;
      if (!file.empty() && fs::equivalent(file, sample.path, error)) {
        throw UsageError(file + " is one of the inputs and would be overwritten");
      }
    }
  }
}

ExitStatus Accuracy(AccuracyFlags& flags) {
  Console console(flags.output);
  flags.options.clip = flags.clip;
  const Samples samples = FindSamples(flags.samples);
  if (samples.items.empty()) throw UsageError("no INPUT and no --list is given");
  Check(flags, samples);
  for (const std::string& path : samples.skipped) {
    console.Note("mstpp: skipped, neither picture nor cube: " + path);
  }
  const Model model = LoadModel(flags.model);
  const Engine engine(model, flags.options);
  std::optional<Engine> against;
  if (!flags.against.empty()) {
    against.emplace(MakeSide(flags.against, flags.options, model, flags.model));
  }
  const Engine* other = against ? &*against : nullptr;
  const bool cubes = samples.items.front().is_cube;
  const std::string truth = cubes ? "input" : flags.samples.truth.empty() ? "none" : "folder";
  const Scaling scaling =
      CommonScaling(flags.options.scaling, model, other != nullptr ? other->model() : model);

  AccuracyResult result;
  result.setting = SettingOf(flags, engine, other, truth, scaling);
  result.trim = flags.trim;
  result.specs = FigureSpecs(other != nullptr, truth != "none");
  std::optional<Journal> journal;
  if (!flags.journal.empty()) journal.emplace(flags.journal, result.setting);
  for (const std::string& file : {flags.csv, flags.html}) {
    const WritingFile writing;
    if (!file.empty()) const AtomicFile probe(file);  // known only after the work otherwise
  }
  console.Note("mstpp: " + Describe(engine));
  Study study(flags, console, engine, other, journal ? &*journal : nullptr);
  study.Run(samples.items, result);
  if (study.found() > 0) {
    console.Note(fmt::format("mstpp: {} images were in {}", study.found(), flags.journal));
  }
  result.protocol = ProtocolOf(flags, result, engine, other, cubes);
  TellAccuracy(console, result);
  if (!flags.csv.empty()) WriteAccuracyCsv(flags.csv, result);
  if (!flags.html.empty()) WriteAccuracyHtml(flags.html, result);
  if (!result.failed.empty()) {
    console.Problem(
        fmt::format("mstpp: {} of {} images failed", result.failed.size(), samples.items.size()));
  }
  if (console.json()) PrintJson(AccuracyToJson(result));
  return result.failed.empty() ? kDone : kFailed;
}

void AddAccuracyFlags(CLI::App& app, AccuracyFlags& flags) {
  app.add_option("INPUT", flags.samples.inputs, "Pictures, cubes, or folders of either")
      ->type_name("");
  app.add_option("--list", flags.samples.list,
                 "A file that names more inputs, one a line, from its own folder")
      ->type_name("FILE");
  app.add_option("--against", flags.against, std::string("Another engine: ") + kSideSyntax)
      ->type_name("ENGINE");
  app.add_option("--truth", flags.samples.truth,
                 "Where the pictures' cubes are, under the pictures' names")
      ->type_name("FOLDER");
  app.add_flag("--cubes", flags.samples.cubes, "TIFF inputs are cubes, not pictures");
  app.add_option("--white", flags.samples.white, "The value of the cubes that is full scale")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("X")
      ->capture_default_str();
  app.add_option("--crop", flags.crop, "Pixels left out on each side")
      ->check(CLI::Range(0, 1 << 24).description(""))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--trim", flags.trim, "Images dropped at each end of a figure's distribution")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--journal", flags.journal, "Keep what is done in this file, and go on from it")
      ->type_name("FILE");
  app.add_option("--csv", flags.csv, "Write the figures of every image")->type_name("FILE");
  app.add_option("--html", flags.html, "Write a page with the distributions plotted")
      ->type_name("FILE");
}

}  // namespace

Action AddAccuracy(CLI::App& app) {
  auto flags = std::make_shared<AccuracyFlags>();
  app.footer(kNotes);
  AddAccuracyFlags(app, *flags);
  AddPictureFlags(app, flags->options);
  AddNamed(app, "--ensemble", flags->options.ensemble, ParseEnsemble,
           "mean or median of the 8 flipped and transposed variants; none (default)");
  app.add_flag("--clip", flags->clip, "Clip results to [0, 1] first, as `run` does");
  AddModelFlags(app, flags->model);
  AddEngineFlags(app, flags->options);
  AddTransfersFlag(app, flags->options);
  AddOutputFlags(app, flags->output);
  return [flags] { return Accuracy(*flags); };
}

}  // namespace mstpp::cli
