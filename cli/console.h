// SPDX-License-Identifier: Apache-2.0
// What the command prints, and where.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "flags.h"
#include "mstpp/error.h"

namespace mstpp::cli {

using Json = nlohmann::ordered_json;

// Lines for people, and a progress bar below them on a terminal. Safe to use from several threads.
class Console {
 public:
  explicit Console(const OutputFlags& flags) : flags_(flags) {}
  ~Console() { EndProgress(); }
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  bool json() const { return flags_.json; }

  void Result(const std::string& line);   // standard output; with --json standard error
  void Note(const std::string& line);     // standard error
  void Problem(const std::string& line);  // standard error, in spite of --quiet

  // A bar on standard error if that is a terminal, from one second on until EndProgress.
  void BeginProgress(size_t total);
  void Progress(size_t done, const std::string& current);
  void EndProgress();

 private:
  using Clock = std::chrono::steady_clock;

  void Print(std::FILE* stream, const std::string& line);
  void DrawUntilEnd();
  void Draw();   // with mutex_ held
  void Erase();  // likewise
  std::string BarText(size_t columns) const;

  const OutputFlags flags_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::thread painter_;
  bool running_ = false, drawn_ = false;
  size_t total_ = 0, done_ = 0;
  std::string current_;
  Clock::time_point start_;
};

// On standard output. Names that are not UTF-8 are mended, so that the object always is.
void PrintJson(const Json& object);

const char* ToString(ErrorCode code);  // "not_found"

// One line, "mstpp: error: ..."; with --json also {"error": {...}} on standard output.
void PrintError(bool json, const std::string& code, const std::string& where,
                const std::string& message);

}  // namespace mstpp::cli
