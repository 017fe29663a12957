// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "console.h"
#include "engine/registry.h"
#include "flags.h"
#include "machine.h"
#include "mstpp/mstpp.h"

namespace mstpp::cli {
namespace {

std::string Precisions(const BackendStatus& status) {
  std::string names;
  for (Precision precision : status.precisions) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", mstpp::ToString(precision));
  }
  return names;
}

std::string GiB(int64_t bytes) {
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1 << 30));
}

struct Weights {
  std::string path;     // empty if there are none
  std::string problem;  // empty if they can be loaded
};

Weights FindWeights() {
  Weights weights;
  try {
    weights.path = Model::DefaultPath();
    Model::Load(weights.path);
  } catch (const Error& error) {
    weights.problem = error.what();
  }
  return weights;
}

void TellMachine(Console& console, const Machine& machine) {
  console.Result(fmt::format("mstpp {}", Version()));
  console.Result(fmt::format("processor    {}", machine.cpu.empty() ? "unknown" : machine.cpu));
  std::string cores =
      fmt::format("{} of {} may be used", machine.allowed_cores, machine.logical_cores);
  if (machine.cpu_quota > 0) cores += fmt::format(", limited to {:.2g}", machine.cpu_quota);
  console.Result("cores        " + cores);
  std::string memory = fmt::format("{}, {} available", GiB(machine.memory), GiB(machine.available));
  if (machine.memory_limit > 0) memory += ", limited to " + GiB(machine.memory_limit);
  console.Result("memory       " + memory);
}

void TellBackends(Console& console, const std::vector<BackendStatus>& backends,
                  const std::string& chosen) {
  for (const BackendStatus& status : backends) {
    if (status.usable) {
      console.Result(fmt::format("{:<12} usable: {}; {}{}", status.name, status.detail,
                                 Precisions(status), status.name == chosen ? "; auto" : ""));
    } else {
      console.Result(fmt::format("{:<12} not usable: {}", status.name, status.detail));
      if (!status.remedy.empty()) console.Result(fmt::format("{:<12} {}", "", status.remedy));
    }
  }
}

// What --device auto would take; empty if nothing is usable.
std::string Automatic() {
  try {
    return ChooseDevice(Backends(), "auto", Precision::kFP32).entry->name;
  } catch (const Error&) {
    return {};
  }
}

Json ToJson(const Machine& machine, const std::vector<BackendStatus>& backends,
            const std::string& chosen, const Weights& weights) {
  Json json;
  json["version"] = Version();
  json["machine"] = {{"cpu", machine.cpu},
                     {"logical_cores", machine.logical_cores},
                     {"allowed_cores", machine.allowed_cores},
                     {"cpu_quota", machine.cpu_quota},
                     {"memory", machine.memory},
                     {"available", machine.available},
                     {"memory_limit", machine.memory_limit}};
  json["backends"] = Json::array();
  for (const BackendStatus& status : backends) {
    Json backend;
    backend["name"] = status.name;
    backend["usable"] = status.usable;
    backend["detail"] = status.detail;
    backend["remedy"] = status.remedy;
    backend["precisions"] = Json::array();
    for (Precision precision : status.precisions) {
      backend["precisions"].push_back(mstpp::ToString(precision));
    }
    json["backends"].push_back(backend);
  }
  json["auto"] = chosen;
  json["weights"] = {{"path", weights.path}, {"problem", weights.problem}};
  return json;
}

struct DoctorFlags {
  OutputFlags output;
  Options options;
};

ExitStatus Doctor(const DoctorFlags& flags) {
  Console console(flags.output);
  const Machine machine = DescribeMachine();
  const std::vector<BackendStatus> backends = QueryBackends(flags.options);
  const std::string chosen = Automatic();
  const Weights weights = FindWeights();
  TellMachine(console, machine);
  TellBackends(console, backends, chosen);
  console.Result("weights      " + (weights.problem.empty() ? weights.path : weights.problem));
  if (console.json()) PrintJson(ToJson(machine, backends, chosen, weights));
  return chosen.empty() ? kFailed : kDone;
}

}  // namespace

Action AddDoctor(CLI::App& app) {
  auto flags = std::make_shared<DoctorFlags>();
  app.footer("The exit status is 1 if no backend that --device auto would take is usable.");
  AddOnnxRuntimeFlag(app, flags->options);
  AddOutputFlags(app, flags->output);
  return [flags] { return Doctor(*flags); };
}

}  // namespace mstpp::cli
