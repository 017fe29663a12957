// SPDX-License-Identifier: Apache-2.0
// `mstpp profile`: how long each kernel and each block of the network takes.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "bench_tensors.h"
#include "block_profile.h"
#include "command.h"
#include "console.h"
#include "cpu/rates.h"
#include "flags.h"

namespace mstpp::cli {
namespace {

struct ProfileFlags {
  OutputFlags output;
  ModelFlags model;
  Options options;
  std::string size = "482x512", input;
  int batch = 1, warm_up = 3, iterations = 10;
  bool rates = true;
};

// What the machine can do at most; 0: not known.
struct Roof {
  double operations = 0, bytes = 0;  // a second
};

struct Profile {
  std::string device, description;
  Precision precision = Precision::kFP32;
  Size size;
  int batch = 1, threads = 0, iterations = 0;
  Roof roof;
  std::vector<BlockProfile> blocks;
  double median = 0;  // the sum over the blocks, seconds
};

double Share(const Latency& latency, const Profile& profile) {
  return latency.median / profile.median * 100;
}

// The time that the arithmetic or the traffic takes at least, as a share of the time it took.
std::optional<double> ShareOfBound(const BlockProfile& block, const Roof& roof) {
  if (roof.operations <= 0) return std::nullopt;
  const double least = std::max(block.operations / roof.operations, block.bytes / roof.bytes);
  return least / block.latency.median * 100;
}

Profile Measure(const ProfileFlags& flags, const Model& model) {
  std::optional<Image> picture;
  if (!flags.input.empty()) picture = ReadImage(flags.input);
  Profile profile;
  profile.size = ParseSize(flags.size);
  profile.batch = flags.batch;
  profile.iterations = flags.iterations;
  profile.threads = flags.options.threads;
  const BenchTensors t = MakeTensors(model.config(), picture, profile.size, flags.batch);
  const Engine engine(model, flags.options);
  profile.device = engine.options().device;
  profile.description = engine.device_description();
  profile.precision = engine.options().precision;
  profile.blocks = ProfileBlocks(engine, t.in, t.out, flags.warm_up, flags.iterations);
  for (const BlockProfile& block : profile.blocks) profile.median += block.latency.median;
  if (flags.rates && profile.device == "cpu") {
    profile.roof = {cpu::MeasureGemm(profile.threads), cpu::MeasureCopy(profile.threads)};
  }
  return profile;
}

void Tell(Console& console, const Profile& profile) {
  console.Result(fmt::format("{}: {}; {}, {}x{}, batch {}", profile.device, profile.description,
                             ToString(profile.precision), profile.size.height, profile.size.width,
                             profile.batch));
  if (profile.roof.operations > 0) {
    console.Result(fmt::format("bound: matrix product {:.1f} GFLOP/s, copy {:.1f} GB/s",
                               profile.roof.operations * 1e-9, profile.roof.bytes * 1e-9));
  }
  console.Result(fmt::format("{:<44} {:<18} {:>9} {:>6} {:>9} {:>8} {:>7}", "block", "kernel", "ms",
                             "%", "GFLOP/s", "GB/s", "%bound"));
  for (const BlockProfile& block : profile.blocks) {
    const double seconds = block.latency.median;
    const bool one = block.kernels.size() == 1;
    const std::optional<double> bound = ShareOfBound(block, profile.roof);
    console.Result(fmt::format("{:<44} {:<18} {:>9.4f} {:>6.1f} {:>9.1f} {:>8.1f} {:>7}",
                               block.name, one ? block.kernels.front().kernel : "", seconds * 1e3,
                               Share(block.latency, profile), block.operations / seconds * 1e-9,
                               block.bytes / seconds * 1e-9,
                               bound ? fmt::format("{:.0f}", *bound) : "-"));
    if (one) continue;
    for (const KernelProfile& kernel : block.kernels) {
      console.Result(fmt::format("{:<44} {:<18} {:>9.4f} {:>6.1f}", "", kernel.kernel,
                                 kernel.latency.median * 1e3, Share(kernel.latency, profile)));
    }
  }
  console.Result(fmt::format("{:<44} {:<18} {:>9.4f}", "all", "", profile.median * 1e3));
}

Json TimesToJson(const std::vector<double>& seconds, const Latency& latency,
                 const Profile& profile) {
  double sum = 0;
  for (double s : seconds) sum += s;
  return {{"timeMs", sum * 1e3},
          {"averageMs", latency.mean * 1e3},
          {"medianMs", latency.median * 1e3},
          {"percentage", Share(latency, profile)}};
}

Json ToJson(const Model& model, const Profile& profile) {
  Json json;
  json["version"] = Version();
  json["weights"] = model.name();
  json["device"] = profile.device;
  json["runs_on"] = profile.description;
  json["precision"] = ToString(profile.precision);
  json["height"] = profile.size.height;
  json["width"] = profile.size.width;
  json["batch"] = profile.batch;
  json["threads"] = profile.threads;
  json["count"] = profile.iterations;
  if (profile.roof.operations > 0) {
    json["rates"] = {{"gemmGflops", profile.roof.operations * 1e-9},
                     {"copyGBs", profile.roof.bytes * 1e-9}};
  }
  json["blocks"] = Json::array();
  json["kernels"] = Json::array();
  double sum = 0, mean = 0;
  for (const BlockProfile& block : profile.blocks) {
    Json record = {{"name", block.name}};
    record.update(TimesToJson(block.seconds, block.latency, profile));
    sum += record["timeMs"].get<double>();
    mean += block.latency.mean;
    record["gflops"] = block.operations / block.latency.median * 1e-9;
    record["gigabytesPerSecond"] = block.bytes / block.latency.median * 1e-9;
    if (const auto bound = ShareOfBound(block, profile.roof)) record["shareOfBound"] = *bound;
    json["blocks"].push_back(record);
    for (const KernelProfile& kernel : block.kernels) {
      Json part = {{"name", block.name}, {"kernel", kernel.kernel}};
      part.update(TimesToJson(kernel.seconds, kernel.latency, profile));
      json["kernels"].push_back(part);
    }
  }
  json["total"] = {{"timeMs", sum}, {"averageMs", mean * 1e3}, {"medianMs", profile.median * 1e3}};
  return json;
}

ExitStatus Run(const ProfileFlags& flags) {
  Console console(flags.output);
  const Model model = LoadModel(flags.model);
  const Profile profile = Measure(flags, model);
  Tell(console, profile);
  if (console.json()) PrintJson(ToJson(model, profile));
  return kDone;
}

}  // namespace

Action AddProfile(CLI::App& app) {
  auto flags = std::make_shared<ProfileFlags>();
  const auto count = [&](const char* flag, int& value, int least, const char* help) {
    app.add_option(flag, value, help)
        ->type_name("N")
        ->check(CLI::Range(least, 1000000).description(""))
        ->capture_default_str();
  };
  AddEngineFlags(app, flags->options);
  app.add_option("--size", flags->size, "Height and width")
      ->type_name("HxW")
      ->capture_default_str();
  app.add_option("--input", flags->input, "A picture instead of random numbers; sets the size")
      ->type_name("FILE");
  count("--batch", flags->batch, 1, "Pictures a run");
  count("--warm-up", flags->warm_up, 0, "Runs that are not counted");
  count("--iterations", flags->iterations, 1, "Runs that are");
  app.add_flag("!--no-rates", flags->rates,
               "Do not measure the machine's matrix product and copy for the bound (cpu)");
  AddModelFlags(app, flags->model);
  AddOutputFlags(app, flags->output);
  app.footer(
      "Times are medians. GB/s counts each map that a block reads or writes once. On a GPU "
      "kernels\n"
      "run one after another here and beside each other in `mstpp run`; a kernel's time includes\n"
      "about a microsecond of its events. The bound is the time of a block's operations at the "
      "rate of\n"
      "the machine's matrix product, or of its bytes at that of its copy; 3x3 convolutions by\n"
      "Winograd's method need fewer operations than are counted.");
  return [flags] { return Run(*flags); };
}

}  // namespace mstpp::cli
