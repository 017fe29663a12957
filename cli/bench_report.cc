// SPDX-License-Identifier: Apache-2.0
#include "bench_report.h"

#include <fmt/format.h>

#include "machine.h"

namespace mstpp::cli {
namespace {

std::string SizeText(const BenchCase& c) {
  return fmt::format("{}x{}", c.size.height, c.size.width);
}

double Rate(const BenchResult& result) { return result.operations / result.latency.median; }

double ByteRate(const BenchResult& result) { return result.bytes / result.latency.median; }

// Of what the machine does with as many threads; 0 if unknown or not on the CPU.
double Share(double rate, const BenchResult& result, const std::map<int, double>& machine) {
  const auto most = machine.find(result.which.threads);
  return most == machine.end() || result.which.device != "cpu" ? 0 : rate / most->second;
}

std::string Percent(double share) { return share > 0 ? fmt::format("{:.0f}", share * 100) : "-"; }

double ImagesPerSecond(const BenchResult& result) {
  return result.which.batch / result.latency.median;
}

const char* Compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown compiler";
#endif
}

void TellBlocks(Console& console, const BenchResult& result) {
  double sum = 0;
  for (const BlockTime& block : result.blocks) sum += block.seconds;
  console.Result(
      fmt::format("{:<44} {:>9} {:>9} {:>6} {:>6}", "block", "ms", "GFLOP/s", "GB/s", "%"));
  for (const BlockTime& block : result.blocks) {
    console.Result(fmt::format("{:<44} {:>9.3f} {:>9.1f} {:>6.1f} {:>6.1f}", block.name,
                               block.seconds * 1e3, block.operations / block.seconds * 1e-9,
                               block.bytes / block.seconds * 1e-9, block.seconds / sum * 100));
  }
  console.Result(fmt::format("{:<44} {:>9.3f}", "all", sum * 1e3));
}

Json LatencyToJson(const Latency& latency) {
  const double ms = 1e3;
  return {{"minMs", latency.min * ms},      {"maxMs", latency.max * ms},
          {"averageMs", latency.mean * ms}, {"medianMs", latency.median * ms},
          {"p90Ms", latency.p90 * ms},      {"p95Ms", latency.p95 * ms},
          {"p99Ms", latency.p99 * ms}};
}

Json ResultToJson(const BenchResult& result, const MachineRates& rates) {
  const BenchCase& c = result.which;
  Json json;
  json["device"] = c.device;
  json["runs_on"] = result.device_description;
  json["precision"] = ToString(c.precision);
  json["height"] = c.size.height;
  json["width"] = c.size.width;
  json["batch"] = c.batch;
  json["threads"] = c.threads;
  json["readyMs"] = result.ready_seconds * 1e3;
  json["iterations"] = result.seconds.size();
  json["latency"] = LatencyToJson(result.latency);
  json["imagesPerSecond"] = ImagesPerSecond(result);
  json["gflops"] = Rate(result) * 1e-9;
  json["gbs"] = ByteRate(result) * 1e-9;
  if (const double share = Share(Rate(result), result, rates.gemm); share > 0) {
    json["shareOfGemm"] = share;
    json["shareOfCopy"] = Share(ByteRate(result), result, rates.copy);
  }
  json["peakMiB"] = result.peak_mib;
  json["latencyMs"] = Json::array();
  for (double seconds : result.seconds) json["latencyMs"].push_back(seconds * 1e3);
  double sum = 0;
  for (const BlockTime& block : result.blocks) sum += block.seconds;
  for (const BlockTime& block : result.blocks) {
    json["blocks"].push_back({{"name", block.name},
                              {"timeMs", block.seconds * 1e3},
                              {"gflops", block.operations / block.seconds * 1e-9},
                              {"gbs", block.bytes / block.seconds * 1e-9},
                              {"operations", block.operations},
                              {"bytes", block.bytes},
                              {"percentage", block.seconds / sum * 100}});
  }
  return json;
}

}  // namespace

void TellBench(Console& console, const Model& model, const std::vector<BenchResult>& results,
               const MachineRates& rates) {
  console.Result(fmt::format("mstpp {}, {}, weights {}", Version(), Compiler(), model.name()));
  for (const auto& [threads, gemm] : rates.gemm) {
    console.Result(
        fmt::format("this machine, {} threads: matrix product {:.1f} GFLOP/s, copy "
                    "{:.1f} GB/s",
                    threads == 0 ? "all" : std::to_string(threads), gemm * 1e-9,
                    rates.copy.at(threads) * 1e-9));
  }
  console.Result(
      fmt::format("{:<12} {:<5} {:>10} {:>5} {:>3} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} "
                  "{:>8} {:>8} {:>6} {:>6} {:>6} {:>8}",
                  "device", "prec", "size", "batch", "thr", "min ms", "mean", "median", "p90",
                  "p95", "p99", "images/s", "GFLOP/s", "%GEMM", "GB/s", "%copy", "peak MiB"));
  for (const BenchResult& r : results) {
    const Latency& l = r.latency;
    console.Result(fmt::format(
        "{:<12} {:<5} {:>10} {:>5} {:>3} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f} {:>9.2f} "
        "{:>8.2f} {:>8.1f} {:>6} {:>6.1f} {:>6} {:>8.0f}",
        r.which.device, ToString(r.which.precision), SizeText(r.which), r.which.batch,
        r.which.threads == 0 ? "all" : std::to_string(r.which.threads), l.min * 1e3, l.mean * 1e3,
        l.median * 1e3, l.p90 * 1e3, l.p95 * 1e3, l.p99 * 1e3, ImagesPerSecond(r), Rate(r) * 1e-9,
        Percent(Share(Rate(r), r, rates.gemm)), ByteRate(r) * 1e-9,
        Percent(Share(ByteRate(r), r, rates.copy)), r.peak_mib));
  }
  for (const BenchResult& r : results) {
    console.Result(fmt::format("{}: {}; ready in {:.0f} ms", r.which.device, r.device_description,
                               r.ready_seconds * 1e3));
    if (!r.blocks.empty()) TellBlocks(console, r);
  }
}

Json BenchToJson(const Model& model, const std::vector<BenchResult>& results,
                 const MachineRates& rates) {
  const Machine machine = DescribeMachine();
  Json json;
  json["version"] = Version();
  json["compiler"] = Compiler();
  json["weights"] = model.name();
  json["machine"] = {
      {"cpu", machine.cpu}, {"cores", machine.allowed_cores}, {"memory", machine.memory}};
  for (const auto& [threads, gemm] : rates.gemm) {
    json["rates"].push_back({{"threads", threads},
                             {"gemmGflops", gemm * 1e-9},
                             {"copyGBs", rates.copy.at(threads) * 1e-9}});
  }
  json["results"] = Json::array();
  for (const BenchResult& result : results) json["results"].push_back(ResultToJson(result, rates));
  return json;
}

std::string BenchToCsv(const std::vector<BenchResult>& results) {
  std::string csv =
      "device,precision,height,width,batch,threads,min_ms,mean_ms,median_ms,p90_ms,p95_ms,p99_ms,"
      "images_per_second,gflops,gbs,peak_mib\n";
  for (const BenchResult& r : results) {
    const BenchCase& c = r.which;
    const Latency& l = r.latency;
    csv += fmt::format(
        "{},{},{},{},{},{},{:.4f},{:.4f},{:.4f},{:.4f},{:.4f},{:.4f},{:.4f},{:.2f},"
        "{:.2f},{:.1f}\n",
        c.device, ToString(c.precision), c.size.height, c.size.width, c.batch, c.threads,
        l.min * 1e3, l.mean * 1e3, l.median * 1e3, l.p90 * 1e3, l.p95 * 1e3, l.p99 * 1e3,
        ImagesPerSecond(r), Rate(r) * 1e-9, ByteRate(r) * 1e-9, r.peak_mib);
  }
  return csv;
}

}  // namespace mstpp::cli
