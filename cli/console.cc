// SPDX-License-Identifier: Apache-2.0
#include "console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

namespace mstpp::cli {
namespace {

using std::chrono::duration;
using std::chrono::milliseconds;

constexpr milliseconds kPatience{1000};  // work that ends sooner needs no bar
constexpr milliseconds kPeriod{200};

size_t TerminalColumns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

// A message of several lines would break what reads ours line by line.
std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

void Console::Result(const std::string& line) {
  if (!flags_.quiet) Print(flags_.json ? stderr : stdout, line);
}

void Console::Note(const std::string& line) {
  if (!flags_.quiet) Print(stderr, line);
}

void Console::Problem(const std::string& line) { Print(stderr, OneLine(line)); }

void Console::Print(std::FILE* stream, const std::string& line) {
  const std::lock_guard lock(mutex_);
  Erase();
  // A reader that went away must not stop the work: main() finds out at the end.
  std::fputs((line + "\n").c_str(), stream);
  std::fflush(stream);
}

void Console::BeginProgress(size_t total) {
  if (flags_.quiet || isatty(STDERR_FILENO) == 0) return;
  total_ = total;
  start_ = Clock::now();
  running_ = true;
  painter_ = std::thread([this] { DrawUntilEnd(); });
}

void Console::Progress(size_t done, const std::string& current) {
  const std::lock_guard lock(mutex_);
  done_ = done;
  current_ = current;
}

void Console::EndProgress() {
  {
    const std::lock_guard lock(mutex_);
    running_ = false;
  }
  ended_.notify_all();
  if (painter_.joinable()) painter_.join();
}

void Console::DrawUntilEnd() {
  std::unique_lock lock(mutex_);
  const auto ended = [this] { return !running_; };
  if (!ended_.wait_for(lock, kPatience, ended)) {
    do {
      Draw();
    } while (!ended_.wait_for(lock, kPeriod, ended));
  }
  Erase();
}

void Console::Draw() {
  fmt::print(stderr, "\r\x1b[K{}", BarText(TerminalColumns() - 1));
  std::fflush(stderr);
  drawn_ = true;
}

void Console::Erase() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  drawn_ = false;
}

std::string Console::BarText(size_t columns) const {
  constexpr size_t kWidth = 24;
  const double elapsed = duration<double>(Clock::now() - start_).count();
  const size_t filled = total_ > 0 ? kWidth * done_ / total_ : 0;
  std::string text = fmt::format("[{:#<{}}{:-<{}}] {}/{}  {:.0f} s", "", filled, "",
                                 kWidth - filled, done_, total_, elapsed);
  if (done_ > 0) {
    const double left = elapsed / static_cast<double>(done_) * static_cast<double>(total_ - done_);
    text += fmt::format(", {:.0f} s left", left);
  }
  text += "  " + current_;
  return text.substr(0, columns);
}

void PrintJson(const Json& object) {
  std::puts(object.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

const char* ToString(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kOutOfMemory:
      return "out_of_memory";
    case ErrorCode::kDeviceUnavailable:
      return "device_unavailable";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

void PrintError(bool json, const std::string& code, const std::string& where,
                const std::string& message) {
  fmt::print(stderr, "mstpp: error: {}\n", OneLine(message));
  if (json) {
    PrintJson({{"error", {{"code", code}, {"where", where}, {"message", message}}}});
  }
}

}  // namespace mstpp::cli
