// SPDX-License-Identifier: Apache-2.0
// `mstpp bench`: how long the network takes, end to end and by block.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>

#include "bench_report.h"
#include "bench_tensors.h"
#include "block_profile.h"
#include "command.h"
#include "console.h"
#include "core/atomic_file.h"
#include "cpu/rates.h"
#include "flags.h"
#include "model/network.h"
#include "model/padding.h"
#include "mstpp/mstpp.h"

namespace mstpp::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchFlags {
  OutputFlags output;
  ModelFlags model;
  Options options;  // onnxruntime_library, fp16_transfers; the rest is each case's
  std::string devices = "auto", precisions = "fp32", sizes = "482x512", batches = "1",
              threads = "0";
  std::string input, csv;
  int warm_up = 3, iterations = 10;
  double duration = 0;
  bool blocks = false, rates = true, serve = false;
};

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<std::string> SplitList(const std::string& flag, const std::string& text) {
  std::vector<std::string> items;
  std::istringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) items.push_back(item);
  if (items.empty()) throw UsageError(flag + ": the list is empty");
  return items;
}

int ParseNumber(const std::string& flag, const std::string& text, int least, int most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    throw UsageError(
        fmt::format("{}: '{}' is not a whole number from {} to {}", flag, text, least, most));
  }
  return value;
}

// Every combination of the lists, in the order a reader of the table expects.
std::vector<BenchCase> Cases(const BenchFlags& flags) {
  std::vector<BenchCase> cases;
  for (const std::string& device : SplitList("--device", flags.devices)) {
    for (const std::string& precision : SplitList("--precision", flags.precisions)) {
      for (const std::string& size : SplitList("--size", flags.sizes)) {
        for (const std::string& batch : SplitList("--batch", flags.batches)) {
          for (const std::string& threads : SplitList("--threads", flags.threads)) {
            cases.push_back({.device = device,
                             .precision = ParsePrecision(precision),
                             .size = ParseSize(size),
                             .batch = ParseNumber("--batch", batch, 1, 4096),
                             .threads = ParseNumber("--threads", threads, 0, 4096)});
          }
        }
      }
    }
  }
  return cases;
}

Options OptionsOf(const BenchFlags& flags, const BenchCase& c) {
  Options options = flags.options;
  options.device = c.device;
  options.precision = c.precision;
  options.threads = c.threads;
  return options;
}

// The kernel forgets the process's peak, so that each case has its own.
void ResetPeakMemory() { std::ofstream("/proc/self/clear_refs") << "5"; }

double PeakMemoryMiB() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024.0;
  }
  return 0;
}

// Block by block: the least of a few runs, as the blocks are short and others on the machine can
// only lengthen them.
std::vector<BlockTime> TimeBlocks(const Engine& engine, const BenchTensors& t, int runs) {
  TensorView one = t.in;
  one.n = 1;
  MutableTensorView out = t.out;
  out.n = 1;
  std::vector<BlockTime> blocks;
  for (const BlockProfile& block : ProfileBlocks(engine, one, out, /*warm_up=*/0, runs)) {
    blocks.push_back({block.name, block.latency.min, block.operations, block.bytes});
  }
  return blocks;
}

BenchResult RunCase(const BenchFlags& flags, const Model& model,
                    const std::optional<Image>& picture, BenchCase c) {
  ResetPeakMemory();
  BenchTensors t = MakeTensors(model.config(), picture, c.size, c.batch);
  const Clock::time_point start = Clock::now();
  const Engine engine(model, OptionsOf(flags, c));
  BenchResult result;
  engine.Run(t.in, t.out);
  result.ready_seconds = SecondsSince(start);
  c.device = engine.options().device;
  result.device_description = engine.device_description();
  for (int i = 1; i < flags.warm_up; ++i) engine.Run(t.in, t.out);
  const Clock::time_point measuring = Clock::now();
  while (static_cast<int>(result.seconds.size()) < flags.iterations ||
         SecondsSince(measuring) < flags.duration) {
    const Clock::time_point begin = Clock::now();
    engine.Run(t.in, t.out);
    result.seconds.push_back(SecondsSince(begin));
  }
  result.latency = Summarise(result.seconds);
  result.peak_mib = PeakMemoryMiB();
  result.operations =
      2.0 * c.batch *
      static_cast<double>(model.CountMacs(c.size.height, c.size.width).restructured);
  const Network& network = model.network();
  const int64_t multiple = network.config.padding_multiple();
  for (const Node& node : network.graph.nodes) {
    result.bytes += c.batch * MapBytes(network.graph, node, RoundUp(c.size.height, multiple),
                                       RoundUp(c.size.width, multiple), c.precision);
  }
  if (flags.blocks) result.blocks = TimeBlocks(engine, t, std::max(3, flags.iterations / 2));
  result.which = c;
  return result;
}

// For comparing in turns with other programs (bench/compare.py): one run for each line read.
ExitStatus Serve(const BenchFlags& flags, const Model& model, const std::optional<Image>& picture,
                 BenchCase c) {
  ResetPeakMemory();
  BenchTensors t = MakeTensors(model.config(), picture, c.size, c.batch);
  const Engine engine(model, OptionsOf(flags, c));
  for (int i = 0; i < std::max(1, flags.warm_up); ++i) engine.Run(t.in, t.out);
  const auto say = [](const Json& json) { std::cout << json.dump() << std::endl; };
  say({{"ready", "mstpp"}});
  std::vector<double> seconds;
  for (std::string line; std::getline(std::cin, line);) {
    const Clock::time_point begin = Clock::now();
    engine.Run(t.in, t.out);
    seconds.push_back(SecondsSince(begin));
    say({{"seconds", seconds.back()}});
  }
  say({{"peer", "mstpp"},
       {"versions", {{"mstpp", Version()}}},
       {"device", engine.device_description()},
       {"seconds", seconds},
       {"peak_mib", PeakMemoryMiB()}});
  return kDone;
}

MachineRates MeasureRates(const std::vector<BenchCase>& cases) {
  MachineRates rates;
  for (const BenchCase& c : cases) {
    if (rates.gemm.contains(c.threads)) continue;
    rates.gemm[c.threads] = cpu::MeasureGemm(c.threads);
    rates.copy[c.threads] = cpu::MeasureCopy(c.threads);
  }
  return rates;
}

ExitStatus Bench(const BenchFlags& flags) {
  Console console(flags.output);
  const Model model = LoadModel(flags.model);
  std::optional<Image> picture;
  if (!flags.input.empty()) picture = ReadImage(flags.input);
  const std::vector<BenchCase> cases = Cases(flags);
  if (flags.serve) {
    if (cases.size() != 1) throw UsageError("--serve takes one case, not lists");
    return Serve(flags, model, picture, cases.front());
  }
  std::vector<BenchResult> results;
  results.reserve(cases.size());
  for (const BenchCase& c : cases) results.push_back(RunCase(flags, model, picture, c));
  const MachineRates rates = flags.rates ? MeasureRates(cases) : MachineRates{};
  TellBench(console, model, results, rates);
  if (console.json()) PrintJson(BenchToJson(model, results, rates));
  if (!flags.csv.empty()) {
    AtomicFile file(flags.csv);
    const std::string text = BenchToCsv(results);
    file.Write(text.data(), text.size());
    file.Commit();
  }
  return kDone;
}

}  // namespace

Action AddBench(CLI::App& app) {
  auto flags = std::make_shared<BenchFlags>();
  const auto list = [&](const char* flag, std::string& value, const char* help) {
    app.add_option(flag, value, help)->type_name("LIST")->capture_default_str();
  };
  list("--device", flags->devices, "Devices, separated by commas");
  list("--precision", flags->precisions, "Precisions");
  list("--size", flags->sizes, "Heights and widths");
  list("--batch", flags->batches, "Pictures a run");
  list("--threads", flags->threads, "CPU threads; 0: all that the process may use");
  app.add_option("--input", flags->input, "A picture instead of random numbers; sets the size")
      ->type_name("FILE");
  app.add_option("--warm-up", flags->warm_up, "Runs that are not counted")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000).description(""))
      ->capture_default_str();
  app.add_option("--iterations", flags->iterations, "Runs that are, at least")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000).description(""))
      ->capture_default_str();
  app.add_option("--duration", flags->duration, "Go on for so many seconds, at least")
      ->type_name("SECONDS")
      ->check(CLI::NonNegativeNumber.description(""));
  app.add_flag("--blocks", flags->blocks, "Time each block of the network too");
  app.add_flag("!--no-rates", flags->rates,
               "Do not measure the machine's matrix product and copy for comparison");
  app.add_option("--csv", flags->csv, "Write a table of the cases there")->type_name("FILE");
  app.add_flag("--serve", flags->serve,
               "One run for each line of standard input, for comparing in turns with others");
  AddTransfersFlag(app, flags->options);
  AddOnnxRuntimeFlag(app, flags->options);
  AddModelFlags(app, flags->model);
  AddOutputFlags(app, flags->output);
  return [flags] { return Bench(*flags); };
}

}  // namespace mstpp::cli
