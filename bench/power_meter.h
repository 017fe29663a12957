// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace mstpp::cuda {

// A GPU's energy and clock, from NVML, the driver's management library.
class PowerMeter {
 public:
  // Throws Error (kDeviceUnavailable) if NVML is not there or does not count the GPU's energy.
  explicit PowerMeter(int device);

  // Since the driver was loaded. NVML counts anew about ten times a second.
  uint64_t Millijoules() const;
  unsigned Megahertz() const;

 private:
  using Device = struct nvmlDevice_st*;
  Device device_ = nullptr;
  int (*energy_)(Device, unsigned long long*) = nullptr;
  int (*clock_)(Device, int, unsigned*) = nullptr;
};

}  // namespace mstpp::cuda
