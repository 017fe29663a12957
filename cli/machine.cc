// SPDX-License-Identifier: Apache-2.0
#include "machine.h"

#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

namespace mstpp::cli {
namespace {

// What follows "key:" in a file of such lines.
std::string Field(const char* file, const std::string& key) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || !line.starts_with(key)) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return {};
}

int64_t MemoryField(const char* key) {
  int64_t kibibytes = 0;
  std::istringstream(Field("/proc/meminfo", key)) >> kibibytes;
  return kibibytes * 1024;
}

// The process's control group (version 2) and those that hold it, up to the root; in a container
// the root that it sees.
std::vector<std::filesystem::path> ControlGroups() {
  const std::string field = Field("/proc/self/cgroup", "0:");  // ":/user.slice" of "0::/user.slice"
  std::filesystem::path group = field.empty() ? "" : field.substr(1);
  std::vector<std::filesystem::path> folders{"/sys/fs/cgroup"};
  for (; group.has_relative_path(); group = group.parent_path()) {
    folders.push_back(folders.front() / group.relative_path());
  }
  return folders;
}

void AddLimits(Machine& machine) {
  for (const std::filesystem::path& folder : ControlGroups()) {
    double quota = 0, period = 0;  // "max 100000" where there is no limit
    if (std::ifstream(folder / "cpu.max") >> quota >> period && period > 0) {
      const double cores = quota / period;
      machine.cpu_quota = machine.cpu_quota > 0 ? std::min(machine.cpu_quota, cores) : cores;
    }
    int64_t bytes = 0;
    if (std::ifstream(folder / "memory.max") >> bytes) {
      machine.memory_limit =
          machine.memory_limit > 0 ? std::min(machine.memory_limit, bytes) : bytes;
    }
  }
}

}  // namespace

Machine DescribeMachine() {
  Machine machine;
  machine.cpu = Field("/proc/cpuinfo", "model name");
  machine.logical_cores = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) machine.allowed_cores = CPU_COUNT(&cores);
  machine.memory = MemoryField("MemTotal");
  machine.available = MemoryField("MemAvailable");
  AddLimits(machine);
  return machine;
}

}  // namespace mstpp::cli
