// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "command.h"
#include "console.h"
#include "engine/scaling.h"
#include "flags.h"
#include "io/npy.h"
#include "io/png_writer.h"
#include "jobs.h"
#include "mstpp/mstpp.h"
#include "report/heat_map.h"
#include "report/layerwise.h"
#include "report/table.h"
#include "side.h"
#include "signals.h"

namespace mstpp::cli {
namespace {

namespace fs = std::filesystem;

constexpr char kNotes[] =
    "A and B run block by block in lock step, so that no more than one block of each is kept.\n"
    "Errors are of A, measured against B; relative is the root mean square of the error over that\n"
    "of B. A block departs if its maximum error is more than ATOL + RTOL x (the largest value of\n"
    "B's block), or if a value is NaN or infinite: then the exit status is 1. The defaults are "
    "for\n"
    "fp32; other precisions need a greater RTOL.\n"
    "  mstpp compare cpu reference photo.jpg\n"
    "  mstpp compare cuda,fp16 cpu photo.jpg --rtol 0.01 --heatmap error.png\n"
    "  mstpp compare cpu cpu,,other.pth photo.jpg\n"
    "A tensor (.npy, (3, H, W) or (N, 3, H, W)) is used as it is; its N images count together.";

struct CompareFlags {
  OutputFlags output;
  ModelFlags model;
  Options options;
  std::string a, b, input, heat_map;
  double atol = 1e-6, rtol = 1e-5;
};

// The network's input, an image at a time.
class ImageSource {
 public:
  ImageSource(const std::string& path, Scaling scaling) : path_(path) {
    const Inputs inputs = FindInputs({path});
    if (inputs.any_folder) throw UsageError(path + " is a folder; name one picture or tensor");
    if (inputs.items.front().kind == InputKind::kTensor) {
      OpenTensor();
    } else {
      ReadPicture(scaling);
    }
  }

  int64_t images() const { return images_; }
  int64_t channels() const { return channels_; }
  int64_t height() const { return height_; }
  int64_t width() const { return width_; }

  // The next image; valid until the next call.
  TensorView Next() {
    if (reader_) reader_->Read(data_.data(), static_cast<int64_t>(data_.size()));
    return TensorView::Nchw(data_.data(), 1, channels_, height_, width_);
  }

 private:
  void OpenTensor() {
    reader_.emplace(path_);
    std::vector<int64_t> shape = reader_->shape();
    if (shape.size() == 3) shape.insert(shape.begin(), 1);
    if (shape.size() != 4 || reader_->elements() < 1) {
      throw Error(ErrorCode::kInvalidArgument, path_,
                  "the array must be (C, H, W) or (N, C, H, W)");
    }
    images_ = shape[0];
    channels_ = shape[1];
    height_ = shape[2];
    width_ = shape[3];
    data_.resize(static_cast<size_t>(channels_ * height_ * width_));
  }

  void ReadPicture(Scaling scaling) {
    const Image image = ReadImage(path_);
    channels_ = image.channels;
    height_ = image.height;
    width_ = image.width;
    data_.resize(image.data.size());
    ScaleImage(image, scaling, data_.data());
  }

  std::string path_;
  std::optional<NpyReader> reader_;
  int64_t images_ = 1, channels_ = 0, height_ = 0, width_ = 0;
  std::vector<float> data_;
};

// A row of the report: a block, or the output, which is the last block without the padding.
struct Row {
  BlockError block;
  bool departs = false;
};

struct Comparison {
  std::vector<Row> rows;        // the output last
  std::string first_departure;  // empty: none departs
};

Json RowToJson(const Row& row) {
  const BlockError& block = row.block;
  const ErrorStatistics& error = block.error;
  Json json{{"name", block.name}};
  if (error.count() == 0) return json;
  json["channels"] = block.channels;
  json["height"] = block.height;
  json["width"] = block.width;
  json["max"] = NumberToJson(error.max());
  json["mean"] = error.mean();
  json["relative"] = NumberToJson(error.relative());
  json["cosine"] = error.cosine();
  json["largest"] = error.largest();
  json["not_finite"] = error.not_finite();
  json["departs"] = row.departs;
  return json;
}

std::vector<std::string> RowToCells(const Row& row) {
  const BlockError& block = row.block;
  const ErrorStatistics& error = block.error;
  if (error.count() == 0) return {block.name, "not handed over", "", "", "", "", "", ""};
  const auto number = [](double value) { return fmt::format("{:.2e}", value); };
  return {block.name,
          fmt::format("{} x {} x {}", block.channels, block.height, block.width),
          number(error.max()),
          number(error.mean()),
          number(error.relative()),
          fmt::format("{:.9f}", error.cosine()),
          number(error.largest()),
          row.departs ? "departs" : ""};
}

void Tell(Console& console, const Comparison& comparison) {
  Table table{
      {"block", "C x H x W", "max error", "mean error", "relative", "cosine", "largest", ""}, {}};
  for (const Row& row : comparison.rows) table.rows.push_back(RowToCells(row));
  for (const std::string& line : AlignedLines(table)) console.Result(line);
  console.Result(comparison.first_departure.empty()
                     ? "No block departs."
                     : "The first to depart: " + comparison.first_departure);
}

void CheckHeatMap(const CompareFlags& flags) {
  if (flags.heat_map.empty()) return;
  if (fs::path(flags.heat_map).extension() != ".png") {
    throw UsageError("--heatmap " + flags.heat_map + ": the file must end in .png");
  }
  std::error_code error;
  if (fs::equivalent(flags.heat_map, flags.input, error)) {
    throw UsageError("--heatmap " + flags.heat_map + " would overwrite the input");
  }
}

// Both outputs of one image; the errors of all images come together in `comparison`.
Comparison Run(Console& console, const CompareFlags& flags, const Engine& a, const Engine& b) {
  ImageSource source(flags.input, CommonScaling(flags.options.scaling, a.model(), b.model()));
  if (!flags.heat_map.empty() && source.images() > 1) {
    throw UsageError("--heatmap is of one image; " + flags.input + " holds several");
  }
  LayerwiseComparison layers(a, b);
  console.Note("mstpp: A " + Describe(a));
  console.Note("mstpp: B " + Describe(b));
  const int64_t bands = a.model().config().bands;
  const auto size = static_cast<size_t>(bands * source.height() * source.width());
  std::vector<float> out_a(size), out_b(size);
  const auto view = [&](const std::vector<float>& data) {
    return TensorView::Nchw(data.data(), 1, bands, source.height(), source.width());
  };
  const auto target = [&](std::vector<float>& data) {
    return MutableTensorView::Nchw(data.data(), 1, bands, source.height(), source.width());
  };
  BlockError output{"output", bands, source.height(), source.width(), {}};
  console.BeginProgress(static_cast<size_t>(source.images()));
  for (int64_t i = 0; i < source.images(); ++i) {
    console.Progress(static_cast<size_t>(i), flags.input);
    layers.Run(source.Next(), target(out_a), target(out_b));
    output.error.Add(view(out_a), view(out_b));
  }
  console.EndProgress();
  if (!flags.heat_map.empty()) {
    const WritingFile writing;
    WritePng(flags.heat_map, ErrorHeatMap(view(out_a), view(out_b), output.error.max()));
  }
  Comparison comparison;
  for (const BlockError& block : layers.blocks()) comparison.rows.push_back({block});
  comparison.rows.push_back({std::move(output)});
  for (Row& row : comparison.rows) {
    row.departs = !row.block.error.Within(flags.atol, flags.rtol);
    if (row.departs && comparison.first_departure.empty()) {
      comparison.first_departure = row.block.name;
    }
  }
  return comparison;
}

Json ToJson(const CompareFlags& flags, const Engine& a, const Engine& b,
            const Comparison& comparison) {
  const std::string& first = comparison.first_departure;
  Json json{{"version", Version()},
            {"a", EngineToJson(a)},
            {"b", EngineToJson(b)},
            {"input", flags.input},
            {"atol", flags.atol},
            {"rtol", flags.rtol},
            {"first_departure", first.empty() ? Json() : Json(first)},
            {"blocks", Json::array()}};
  for (const Row& row : comparison.rows) json["blocks"].push_back(RowToJson(row));
  json["output"] = json["blocks"].back();
  json["blocks"].erase(json["blocks"].size() - 1);
  return json;
}

ExitStatus Compare(const CompareFlags& flags) {
  Console console(flags.output);
  CheckHeatMap(flags);
  const Model model = LoadModel(flags.model);
  const Engine a = MakeSide(flags.a, flags.options, model, flags.model);
  const Engine b = MakeSide(flags.b, flags.options, model, flags.model);
  const Comparison comparison = Run(console, flags, a, b);
  Tell(console, comparison);
  if (!flags.heat_map.empty()) {
    console.Result(fmt::format("{}: white is an error of {:.3g}", flags.heat_map,
                               comparison.rows.back().block.error.max()));
  }
  if (console.json()) PrintJson(ToJson(flags, a, b, comparison));
  return comparison.first_departure.empty() ? kDone : kFailed;
}

}  // namespace

Action AddCompare(CLI::App& app) {
  auto flags = std::make_shared<CompareFlags>();
  app.footer(kNotes);
  app.add_option("A", flags->a, std::string("What is examined: ") + kSideSyntax)
      ->required()
      ->type_name("");
  app.add_option("B", flags->b, "What it is measured against, likewise")->required()->type_name("");
  app.add_option("INPUT", flags->input, "A picture or a .npy tensor")->required()->type_name("");
  app.add_option("--atol", flags->atol, "Absolute error allowed in a block")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("X")
      ->capture_default_str();
  app.add_option("--rtol", flags->rtol, "Error allowed in a block, of its largest value")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("X")
      ->capture_default_str();
  app.add_option("--heatmap", flags->heat_map,
                 "Write the output's largest error at each pixel as a picture")
      ->type_name("PNG");
  AddPictureFlags(app, flags->options);
  AddModelFlags(app, flags->model);
  AddOnnxRuntimeFlag(app, flags->options);
  AddThreadsFlag(app, flags->options);
  AddOutputFlags(app, flags->output);
  return [flags] { return Compare(*flags); };
}

}  // namespace mstpp::cli
