// SPDX-License-Identifier: Apache-2.0
// Which backend an Engine runs on.
#pragma once

#include <span>
#include <string>

#include "engine/backend.h"

namespace mstpp {

// Every backend of the project, those that this build or machine lacks included.
std::span<const BackendEntry> Backends();

struct DeviceChoice {
  const BackendEntry* entry = nullptr;
  int index = 0;

  std::string Name() const;  // as in Options::device: "cpu", "cuda:0"
};

// The backend that `device` names, "auto" or one of `backends`, able to run `precision`. Throws
// Error: kInvalidArgument for a name or number that means nothing, kUnsupported for a precision
// that the backend lacks, kDeviceUnavailable with the reason and the remedy. Backends are asked
// with `options`, whose `device` and `precision` do not matter.
DeviceChoice ChooseDevice(std::span<const BackendEntry> backends, const std::string& device,
                          Precision precision, const Options& options = {});

}  // namespace mstpp
