// SPDX-License-Identifier: Apache-2.0
// What `mstpp bench` measured, as a table, as JSON and as CSV.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "console.h"
#include "flags.h"
#include "latency.h"
#include "mstpp/mstpp.h"

namespace mstpp::cli {

struct BenchCase {
  std::string device;
  Precision precision = Precision::kFP32;
  Size size;
  int batch = 1;
  int threads = 0;
};

struct BlockTime {
  std::string name;
  double seconds = 0;
  double operations = 0;  // floating-point, as the engines compute it
  double bytes = 0;       // of the feature maps it reads and writes
};

struct BenchResult {
  BenchCase which;
  std::string device_description;
  double ready_seconds = 0;  // from the model to the first output
  std::vector<double> seconds;
  Latency latency;
  double operations = 0;  // a run
  double bytes = 0;       // a run: every block's feature maps, once
  double peak_mib = 0;    // of the process, during this case
  std::vector<BlockTime> blocks;
};

// By number of threads: operations and bytes a second. Empty if not measured.
struct MachineRates {
  std::map<int, double> gemm, copy;
};

void TellBench(Console& console, const Model& model, const std::vector<BenchResult>& results,
               const MachineRates& rates);
Json BenchToJson(const Model& model, const std::vector<BenchResult>& results,
                 const MachineRates& rates);
std::string BenchToCsv(const std::vector<BenchResult>& results);

}  // namespace mstpp::cli
