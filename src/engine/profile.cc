// SPDX-License-Identifier: Apache-2.0
#include "engine/profile.h"

#include <chrono>

namespace mstpp {

std::vector<KernelTime> ProfileByTaps(const Backend& backend, const Graph& graph,
                                      const TensorView& input, const MutableTensorView& output,
                                      Padding padding, Scratch& scratch, int warm_up, int runs) {
  using Clock = std::chrono::steady_clock;
  std::vector<KernelTime> times;
  for (const Node& node : graph.nodes) times.push_back({node.tap_name(), Stem(node.op), {}});
  for (int run = -warm_up; run < runs; ++run) {
    std::vector<double> ms(times.size(), 0.0);
    size_t done = 0;
    Clock::time_point last = Clock::now();
    backend.RunWithTaps(input, output, padding, scratch, [&](const std::string&, const auto&) {
      const Clock::time_point now = Clock::now();
      // Pictures of a batch run one after another.
      ms.at(done++ % ms.size()) += std::chrono::duration<double, std::milli>(now - last).count();
      last = now;
    });
    if (run < 0) continue;
    for (size_t i = 0; i < times.size(); ++i) times[i].ms.push_back(ms[i]);
  }
  return times;
}

}  // namespace mstpp
