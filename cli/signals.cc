// SPDX-License-Identifier: Apache-2.0
#include "signals.h"

#include <signal.h>

#include <condition_variable>
#include <mutex>
#include <thread>

namespace mstpp::cli {
namespace {

std::mutex mutex;
std::condition_variable changed;
int open_files = 0;
bool stopping = false;

// Those that whoever started us wants heeded: nohup ignores SIGHUP, a shell SIGINT in background.
sigset_t EndingSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    sigaction(number, nullptr, &action);
    if (action.sa_handler != SIG_IGN) sigaddset(&set, number);
  }
  return set;
}

int WaitFor(const sigset_t& set) {
  int number = 0;
  while (sigwait(&set, &number) != 0) {
  }
  return number;
}

// By the signal itself: a shell whose loop runs this command stops only if it sees that.
[[noreturn]] void DieOf(int number) {
  signal(number, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  raise(number);
  _Exit(128 + number);
}

}  // namespace

void HandleSignals() {
  const sigset_t set = EndingSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // Neither a closed pipe on standard output nor the limit on a file's size may end a write to a
  // file half-way: printing or writing fails instead.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  std::thread([set] {
    const int number = WaitFor(set);
    std::thread([set] { DieOf(WaitFor(set)); }).detach();
    std::unique_lock lock(mutex);
    stopping = true;
    changed.wait(lock, [] { return open_files == 0; });
    DieOf(number);
  }).detach();
}

WritingFile::WritingFile() {
  std::unique_lock lock(mutex);
  changed.wait(lock, [] { return !stopping; });
  ++open_files;
}

WritingFile::~WritingFile() {
  const std::lock_guard lock(mutex);
  --open_files;
  changed.notify_all();
}

bool StopRequested() {
  const std::lock_guard lock(mutex);
  return stopping;
}

}  // namespace mstpp::cli
