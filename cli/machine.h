// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace mstpp::cli {

struct Machine {
  std::string cpu;           // "AMD EPYC 7763 64-Core Processor"
  int logical_cores = 0;     // of the machine
  int allowed_cores = 0;     // that the process may run on
  double cpu_quota = 0;      // of its control group, in cores; 0: no limit
  int64_t memory = 0;        // bytes of the machine
  int64_t available = 0;     // bytes that can still be taken
  int64_t memory_limit = 0;  // of its control group; 0: no limit
};

// What the kernel says; what it does not say stays empty or 0.
Machine DescribeMachine();

}  // namespace mstpp::cli
