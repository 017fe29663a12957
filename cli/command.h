// SPDX-License-Identifier: Apache-2.0
// The subcommands: a table in main.cc, one file each.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

namespace CLI {
class App;
}

namespace mstpp::cli {

// The process's exit status.
enum ExitStatus { kDone = 0, kFailed = 1, kWrongUse = 2 };

// The command line asks for something that has no meaning; ends in kWrongUse.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Declares a subcommand's options on `app` and returns what to do once they are parsed.
using Action = std::function<ExitStatus()>;
Action AddRun(CLI::App& app);
Action AddInfo(CLI::App& app);
Action AddDoctor(CLI::App& app);
Action AddExport(CLI::App& app);
Action AddCompare(CLI::App& app);
Action AddAccuracy(CLI::App& app);
Action AddBench(CLI::App& app);
Action AddProfile(CLI::App& app);

}  // namespace mstpp::cli
