// SPDX-License-Identifier: Apache-2.0
#include "engine/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "cpu/cpu.h"
#include "mstpp/error.h"
#include "onnxruntime/onnxruntime.h"
#include "reference/reference.h"
#ifdef MSTPP_CUDA
#include "cuda/cuda.h"
#endif

namespace mstpp {
namespace {

// Fastest first. The reference is an oracle and the others are there to be compared with: they run
// when they are named.
constexpr std::array<std::string_view, 2> kAutomatic{"cuda", "cpu"};

BackendStatus NotInThisBuild(const char* name, const char* remedy) {
  return {.name = name, .usable = false, .detail = "not compiled in", .remedy = remedy};
}

std::unique_ptr<Backend> CreateNothing(const Model&, const Options&, int) {
  throw Error(ErrorCode::kInternal, "registry", "a backend that is not compiled in was created");
}

#ifndef MSTPP_CUDA
BackendStatus QueryCuda(int) {
  return NotInThisBuild("cuda", "build mstpp with -DMSTPP_CUDA=ON, which needs the CUDA toolkit");
}
constexpr auto CreateCudaBackend = CreateNothing;
#endif

BackendStatus QueryTensorRt(int) {
  return NotInThisBuild("tensorrt", "this version has no such backend yet; use cuda or cpu");
}

constexpr std::array<BackendEntry, 6> kBackends{{
    {"cuda", QueryCuda, CreateCudaBackend, /*takes_index=*/true},
    {"cpu", QueryCpu, CreateCpuBackend},
    {"tensorrt", QueryTensorRt, CreateNothing, /*takes_index=*/true},
    {"onnxruntime", nullptr, CreateOnnxRuntimeBackend, /*takes_index=*/false, QueryOnnxRuntime},
    {"onnxruntime-cuda", nullptr, CreateOnnxRuntimeCudaBackend, /*takes_index=*/true,
     QueryOnnxRuntimeCuda},
    {"reference", QueryReference, CreateReferenceBackend},
}};

std::string Choices(std::span<const BackendEntry> backends) {
  std::string choices = "auto";
  for (const BackendEntry& entry : backends) {
    choices += fmt::format(", {}{}", entry.name, entry.takes_index ? "[:N]" : "");
  }
  return choices;
}

DeviceChoice ParseDevice(std::span<const BackendEntry> backends, const std::string& device) {
  const size_t colon = device.find(':');
  const std::string name = device.substr(0, colon);
  const auto entry = std::find_if(backends.begin(), backends.end(),
                                  [&](const BackendEntry& e) { return name == e.name; });
  if (entry == backends.end()) {
    throw Error(ErrorCode::kInvalidArgument, "device",
                fmt::format("'{}' is not one of {}", device, Choices(backends)));
  }
  DeviceChoice choice{&*entry, 0};
  if (colon == std::string::npos) return choice;
  if (!entry->takes_index) {
    throw Error(ErrorCode::kInvalidArgument, "device",
                fmt::format("'{}': {} is one device and takes no number", device, name));
  }
  const char* begin = device.data() + colon + 1;
  const char* end = device.data() + device.size();
  const auto [rest, error] = std::from_chars(begin, end, choice.index);
  if (error != std::errc() || rest != end || choice.index < 0) {
    throw Error(ErrorCode::kInvalidArgument, "device",
                fmt::format("'{}': expected a number from 0 after the colon", device));
  }
  return choice;
}

bool Has(const BackendStatus& status, Precision precision) {
  return std::find(status.precisions.begin(), status.precisions.end(), precision) !=
         status.precisions.end();
}

std::string PrecisionsOf(const BackendStatus& status) {
  std::string names;
  for (Precision precision : status.precisions) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", ToString(precision));
  }
  return names;
}

DeviceChoice ChooseAutomatically(std::span<const BackendEntry> backends, Precision precision,
                                 const Options& options) {
  std::string unusable, lacking;
  for (std::string_view name : kAutomatic) {
    for (const BackendEntry& entry : backends) {
      if (name != entry.name) continue;
      const BackendStatus status = entry.Query(options, 0);
      if (!status.usable) {
        unusable += fmt::format("{}{}: {}", unusable.empty() ? "" : "; ", name, status.detail);
      } else if (!Has(status, precision)) {
        lacking +=
            fmt::format("{}{} has {}", lacking.empty() ? "" : "; ", name, PrecisionsOf(status));
      } else {
        return {&entry, 0};
      }
    }
  }
  if (!lacking.empty()) {
    throw Error(ErrorCode::kUnsupported, "precision",
                fmt::format("no usable backend computes in {}: {}", ToString(precision), lacking));
  }
  throw Error(ErrorCode::kDeviceUnavailable, "device", "no backend is usable: " + unusable);
}

}  // namespace

std::string DeviceChoice::Name() const {
  return entry->takes_index ? fmt::format("{}:{}", entry->name, index) : entry->name;
}

std::span<const BackendEntry> Backends() { return kBackends; }

std::vector<BackendStatus> QueryBackends(const Options& options) {
  std::vector<BackendStatus> statuses;
  for (const BackendEntry& entry : Backends()) statuses.push_back(entry.Query(options, 0));
  return statuses;
}

DeviceChoice ChooseDevice(std::span<const BackendEntry> backends, const std::string& device,
                          Precision precision, const Options& options) {
  if (device == "auto") return ChooseAutomatically(backends, precision, options);
  const DeviceChoice choice = ParseDevice(backends, device);
  const BackendStatus status = choice.entry->Query(options, choice.index);
  if (!status.usable) {
    throw Error(ErrorCode::kDeviceUnavailable, device,
                status.remedy.empty() ? status.detail : status.detail + "; " + status.remedy);
  }
  if (!Has(status, precision)) {
    throw Error(
        ErrorCode::kUnsupported, device,
        fmt::format("cannot compute in {}; it has {}", ToString(precision), PrecisionsOf(status)));
  }
  return choice;
}

}  // namespace mstpp
