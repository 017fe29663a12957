// SPDX-License-Identifier: Apache-2.0
// The command `mstpp`: a table of subcommands.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "command.h"
#include "console.h"
#include "mstpp/mstpp.h"
#include "signals.h"

namespace mstpp::cli {
namespace {

struct Subcommand {
  const char* name;
  const char* summary;
  Action (*add)(CLI::App& app);
};

constexpr Subcommand kSubcommands[] = {
    {"run", "Turn pictures or tensors into hyperspectral cubes", AddRun},
    {"info", "Show what a weights file or a cube holds", AddInfo},
    {"doctor", "Show which backends can run here, and what the others need", AddDoctor},
    {"export", "Write the weights in another format", AddExport},
    {"compare", "Find the first block in which two engines differ", AddCompare},
    {"accuracy", "Measure errors over many pictures, against another engine or the truth",
     AddAccuracy},
    {"bench", "Time the network, end to end and by block", AddBench},
    {"profile", "Time each kernel and each block of the network", AddProfile},
};

constexpr char kExamples[] =
    "Examples:\n"
    "  mstpp run photo.jpg                          photo.mat, with the bundled weights\n"
    "  mstpp run photos/ -o cubes/ --format mat,tif --preview\n"
    "  mstpp run photo.png --weights mst_plus_plus.pth --ensemble mean\n"
    "  mstpp info photo.mat\n"
    "  mstpp doctor\n"
    "Exit status: 0 done, 1 the work failed (of several inputs: any), 2 wrong use.";

// Even a command line that cannot be parsed is answered in JSON if it asks for that.
bool WantsJson(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) return true;
  }
  return false;
}

// CLI11 says of an unknown subcommand only that one is missing.
std::string Explain(const CLI::App& app, const CLI::ParseError& error) {
  std::string names = "mstpp";
  for (const CLI::App* chosen : app.get_subcommands()) names += " " + chosen->get_name();
  std::string message = error.what();
  if (const auto unknown = app.remaining(); app.get_subcommands().empty() && !unknown.empty()) {
    message = "'" + unknown.front() + "' is neither a subcommand nor an option";
  }
  return fmt::format("{} (see {} --help)", message, names);
}

ExitStatus Parse(CLI::App& app, int argc, char** argv, bool* ended) {
  *ended = true;
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    app.exit(request);
    return kDone;
  } catch (const CLI::ParseError& error) {
    PrintError(WantsJson(argc, argv), "wrong_use", "command line", Explain(app, error));
    return kWrongUse;
  }
  *ended = false;
  return kDone;
}

ExitStatus Main(int argc, char** argv) {
  CLI::App app("Photographs to hyperspectral cubes with MST++.", "mstpp");
  app.set_version_flag("--version", std::string("mstpp ") + Version());
  app.require_subcommand(1);
  app.footer(kExamples);
  Action action;
  for (const Subcommand& subcommand : kSubcommands) {
    CLI::App* child = app.add_subcommand(subcommand.name, subcommand.summary);
    child->callback([&action, run = subcommand.add(*child)] { action = run; });
  }
  bool ended = false;
  const ExitStatus status = Parse(app, argc, argv, &ended);
  return ended ? status : action();
}

// What the command was asked for and cannot be, and what failed, in one place.
ExitStatus Guarded(int argc, char** argv) {
  const bool json = WantsJson(argc, argv);
  try {
    return Main(argc, argv);
  } catch (const UsageError& error) {
    PrintError(json, "wrong_use", "command line", error.what());
    return kWrongUse;
  } catch (const Error& error) {
    PrintError(json, ToString(error.code()), error.where(), error.what());
    return error.code() == ErrorCode::kInvalidArgument ? kWrongUse : kFailed;
  } catch (const std::bad_alloc&) {
    PrintError(json, ToString(ErrorCode::kOutOfMemory), "", "not enough memory");
  } catch (const std::exception& error) {
    PrintError(json, ToString(ErrorCode::kInternal), "", error.what());
  }
  return kFailed;
}

}  // namespace
}  // namespace mstpp::cli

int main(int argc, char** argv) {
  mstpp::cli::HandleSignals();
  const mstpp::cli::ExitStatus status = mstpp::cli::Guarded(argc, argv);
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status == mstpp::cli::kDone) {
    std::fputs("mstpp: error: standard output: cannot write\n", stderr);
    return mstpp::cli::kFailed;
  }
  return status;
}
