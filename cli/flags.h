// SPDX-License-Identifier: Apache-2.0
// The options that several subcommands share.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "mstpp/error.h"
#include "mstpp/model.h"
#include "mstpp/options.h"

namespace mstpp::cli {

struct OutputFlags {
  bool json = false;
  bool quiet = false;
};
void AddOutputFlags(CLI::App& app, OutputFlags& flags);

struct ModelFlags {
  std::string weights;  // empty: the bundled ones
  std::string config;
  uint64_t seed = 0;
  bool drawn = false;  // --config or --seed was given
  bool allow_nonfinite = false;
};
void AddModelFlags(CLI::App& app, ModelFlags& flags);
Model LoadModel(const ModelFlags& flags);

void AddThreadsFlag(CLI::App& app, Options& options);
void AddTransfersFlag(CLI::App& app, Options& options);
void AddOnnxRuntimeFlag(CLI::App& app, Options& options);
// --device, --onnxruntime, --precision, --threads.
void AddEngineFlags(CLI::App& app, Options& options);

// "482x512": rows, then columns.
struct Size {
  int64_t height = 0, width = 0;
};
Size ParseSize(const std::string& text);  // throws UsageError

// An option whose values have names; `parse` throws Error for a name that it does not know.
template <typename E>
CLI::Option* AddNamed(CLI::App& app, const std::string& flag, E& value,
                      E (*parse)(const std::string&), const std::string& help) {
  const auto store = [&value, parse](const std::string& name) {
    try {
      value = parse(name);
    } catch (const Error& error) {
      throw CLI::ValidationError(error.what());
    }
  };
  return app.add_option_function<std::string>(flag, store, help)->type_name("NAME");
}

}  // namespace mstpp::cli
