// SPDX-License-Identifier: Apache-2.0
#include "cuda/memory_plan.h"

#include <algorithm>
#include <numeric>

namespace mstpp::cuda {
namespace {

constexpr size_t kAlignment = 256;

bool Meet(const Lifetime& a, const Lifetime& b) { return a.first <= b.last && b.first <= a.last; }

}  // namespace

std::vector<Lifetime> ValueLifetimes(const mstpp::Graph& graph, bool taps,
                                     const std::function<size_t(const Value&)>& bytes) {
  std::vector<Lifetime> lifetimes(graph.values.size());
  const int end = static_cast<int>(graph.nodes.size());
  for (int i = 0; i < end; ++i) {
    const Node& node = graph.nodes[i];
    const bool is_cube = node.output == graph.output;
    lifetimes[node.output] = {is_cube ? 0 : bytes(graph.values[node.output]), i, taps ? end : i};
    for (int used : {node.input, node.extra}) {
      if (used >= 0) lifetimes[used].last = std::max(lifetimes[used].last, i);
    }
  }
  return lifetimes;
}

MemoryPlan PlanMemory(const std::vector<Lifetime>& lifetimes) {
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });
  MemoryPlan plan;
  plan.offsets.assign(lifetimes.size(), 0);
  std::vector<size_t> placed;  // by offset
  for (size_t item : order) {
    const Lifetime& lifetime = lifetimes[item];
    const size_t bytes = (lifetime.bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes == 0 || lifetime.last < lifetime.first) continue;
    size_t offset = 0;
    for (size_t other : placed) {
      if (!Meet(lifetime, lifetimes[other])) continue;
      if (offset + bytes <= plan.offsets[other]) break;
      offset = std::max(offset, plan.offsets[other] + (lifetimes[other].bytes + kAlignment - 1) /
                                                          kAlignment * kAlignment);
    }
    plan.offsets[item] = offset;
    plan.bytes = std::max(plan.bytes, offset + bytes);
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), item,
                         [&](size_t a, size_t b) { return plan.offsets[a] < plan.offsets[b]; }),
        item);
  }
  return plan;
}

}  // namespace mstpp::cuda
