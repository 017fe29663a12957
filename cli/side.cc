// SPDX-License-Identifier: Apache-2.0
#include "side.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "command.h"
#include "mstpp/error.h"

namespace mstpp::cli {

void AddPictureFlags(CLI::App& app, Options& options) {
  AddNamed(app, "--scaling", options.scaling, ParseScaling,
           "How counts become the network's input: minmax, unit, none, or weights (default: what "
           "the weights were trained with)");
  AddNamed(app, "--pad", options.padding, ParsePadding,
           "How sides are padded to multiples of 8: reflect (default) or zero");
}

Engine MakeSide(const std::string& text, Options options, const Model& model,
                const ModelFlags& flags) {
  const size_t first = text.find(',');
  const size_t second = first == std::string::npos ? first : text.find(',', first + 1);
  const std::string device = text.substr(0, first);
  const std::string precision =
      first == std::string::npos ? "" : text.substr(first + 1, second - first - 1);
  const std::string weights = second == std::string::npos ? "" : text.substr(second + 1);
  options.device = device.empty() ? "auto" : device;
  try {
    options.precision = precision.empty() ? Precision::kFP32 : ParsePrecision(precision);
  } catch (const Error& error) {
    throw UsageError(fmt::format("'{}' is not {}: {}", text, kSideSyntax, error.what()));
  }
  return Engine(weights.empty() ? model : Model::Load(weights, flags.allow_nonfinite), options);
}

Scaling CommonScaling(Scaling chosen, const Model& a, const Model& b) {
  if (chosen != Scaling::kFromWeights) return chosen;
  if (a.scaling() != b.scaling()) {
    throw UsageError(
        fmt::format("{} was trained with scaling {} and {} with {}; choose one for "
                    "both with --scaling",
                    a.name(), a.scaling(), b.name(), b.scaling()));
  }
  return ParseScaling(a.scaling());
}

std::string Describe(const Engine& engine) {
  return fmt::format("{} ({}), {}, weights {}", engine.options().device,
                     engine.device_description(), ToString(engine.options().precision),
                     engine.model().name());
}

Json EngineToJson(const Engine& engine) {
  return {
      {"device", engine.options().device},
      {"description", engine.device_description()},
      {"precision", ToString(engine.options().precision)},
      {"weights", {{"name", engine.model().name()}, {"sha256", engine.model().weights_sha256()}}}};
}

Json NumberToJson(double number) { return std::isfinite(number) ? Json(number) : Json(); }

}  // namespace mstpp::cli
