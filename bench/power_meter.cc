// SPDX-License-Identifier: Apache-2.0
#include "power_meter.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include "cuda/check.h"
#include "mstpp/error.h"

namespace mstpp::cuda {
namespace {

constexpr char kLibrary[] = "libnvidia-ml.so.1";

template <class Function>
void Find(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function == nullptr) {
    throw Error(ErrorCode::kDeviceUnavailable, kLibrary,
                fmt::format("has no {}; install a newer driver", name));
  }
}

void CheckNvml(int status, const char* doing) {
  if (status == 0) return;
  throw Error(ErrorCode::kDeviceUnavailable, kLibrary,
              fmt::format("{}: NVML's error {}", doing, status));
}

}  // namespace

PowerMeter::PowerMeter(int device) {
  void* library = dlopen(kLibrary, RTLD_NOW);
  if (library == nullptr) {
    throw Error(ErrorCode::kDeviceUnavailable, kLibrary, "is not there; it comes with the driver");
  }
  int (*initialise)() = nullptr;
  int (*find)(const char*, Device*) = nullptr;
  Find(library, "nvmlInit_v2", initialise);
  Find(library, "nvmlDeviceGetHandleByPciBusId_v2", find);
  Find(library, "nvmlDeviceGetTotalEnergyConsumption", energy_);
  Find(library, "nvmlDeviceGetClockInfo", clock_);
  CheckNvml(initialise(), "starting");
  char bus[32] = {};
  Check(cudaDeviceGetPCIBusId(bus, sizeof bus, device), "asking for a GPU's place");
  CheckNvml(find(bus, &device_), "looking for the GPU");
  Millijoules();
}

uint64_t PowerMeter::Millijoules() const {
  unsigned long long energy = 0;
  CheckNvml(energy_(device_, &energy), "reading the GPU's energy");
  return energy;
}

unsigned PowerMeter::Megahertz() const {
  constexpr int kMultiprocessors = 1;
  unsigned clock = 0;
  CheckNvml(clock_(device_, kMultiprocessors, &clock), "reading the GPU's clock");
  return clock;
}

}  // namespace mstpp::cuda
