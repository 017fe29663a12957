// SPDX-License-Identifier: Apache-2.0
#include "machine.h"

#include <sched.h>

#include <fstream>
#include <sstream>
#include <thread>

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

// The process's control group (version 2), and inside a container its root.
std::ifstream OpenControl(const std::string& name) {
  const std::string group = Field("/proc/self/cgroup", "0:");  // "0::/user.slice"
  std::ifstream own("/sys/fs/cgroup" + group.substr(group.find('/') + 1) + "/" + name);
  return own ? std::move(own) : std::ifstream("/sys/fs/cgroup/" + name);
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

  double quota = 0, period = 0;  // "max 100000" where there is no limit
  if (OpenControl("cpu.max") >> quota >> period && period > 0) machine.cpu_quota = quota / period;
  OpenControl("memory.max") >> machine.memory_limit;
  return machine;
}

}  // namespace mstpp::cli
