// SPDX-License-Identifier: Apache-2.0
#include "report/layerwise.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <exception>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>

#include "model/network.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

constexpr int kStart = -1, kEnd = std::numeric_limits<int>::max();

// Thrown through the engine whose partner failed.
struct Abandoned {};

// Where two threads that pass the same points in the same order wait for each other.
class Rendezvous {
 public:
  using Compare = std::function<void(int point, const TensorView& a, const TensorView& b)>;
  explicit Rendezvous(Compare compare) : compare_(std::move(compare)) {}

  // Returns when the other side has passed this point too, or has left it out.
  void Meet(int side, int point, const TensorView& view) {
    std::unique_lock lock(mutex_);
    if (point <= at_[side]) {
      throw Error(ErrorCode::kInternal, "compare", "blocks were handed over out of order");
    }
    at_[side] = point;
    views_[side] = &view;
    const int other = 1 - side;
    if (at_[other] == point) {
      compare_(point, *views_[0], *views_[1]);
      compared_ = point;
    }
    changed_.notify_all();
    changed_.wait(lock, [&] { return compared_ == point || at_[other] > point || abandoned_; });
    if (compared_ != point && abandoned_) throw Abandoned();
  }

  void Leave(int side) {
    const std::lock_guard lock(mutex_);
    at_[side] = kEnd;
    changed_.notify_all();
  }

  void Abandon() {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    changed_.notify_all();
  }

 private:
  const Compare compare_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<int, 2> at_{kStart, kStart};
  std::array<const TensorView*, 2> views_{};
  int compared_ = kStart;
  bool abandoned_ = false;
};

}  // namespace

LayerwiseComparison::LayerwiseComparison(const Engine& a, const Engine& b) : a_(a), b_(b) {
  if (a.model().config() != b.model().config()) {
    throw Error(ErrorCode::kInvalidArgument, b.model().name(),
                fmt::format("is another network than {}, so their blocks cannot be compared",
                            a.model().name()));
  }
  for (const Node& node : a.model().network().graph.nodes) {
    blocks_.push_back({BlockName(node)});
  }
}

void LayerwiseComparison::Run(const TensorView& input, const MutableTensorView& output_a,
                              const MutableTensorView& output_b) {
  Rendezvous rendezvous([this](int point, const TensorView& a, const TensorView& b) {
    BlockError& block = blocks_[point];
    if (a.n != b.n || a.c != b.c || a.h != b.h || a.w != b.w) {
      throw Error(ErrorCode::kInternal, block.name, "its two outputs differ in shape");
    }
    block.channels = a.c;
    block.height = a.h;
    block.width = a.w;
    block.error.Add(a, b);
  });
  std::array<std::exception_ptr, 2> failures;
  const auto run = [&](int side, const Engine& engine, const MutableTensorView& output) {
    try {
      engine.RunWithTaps(input, output, [&](const std::string& name, const TensorView& view) {
        const auto block = std::find_if(blocks_.begin(), blocks_.end(),
                                        [&](const BlockError& b) { return b.name == name; });
        if (block == blocks_.end()) {
          throw Error(ErrorCode::kInternal, name, "is no block of the network");
        }
        rendezvous.Meet(side, static_cast<int>(block - blocks_.begin()), view);
      });
      rendezvous.Leave(side);
    } catch (const Abandoned&) {
      return;
    } catch (...) {
      failures[side] = std::current_exception();
      rendezvous.Abandon();
    }
  };
  std::thread other([&] { run(1, b_, output_b); });
  run(0, a_, output_a);
  other.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace mstpp
