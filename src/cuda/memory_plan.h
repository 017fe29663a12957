// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "model/graph.h"

namespace mstpp::cuda {

// What needs memory from one step of a program to another, both included.
struct Lifetime {
  size_t bytes = 0;
  int first = 0, last = -1;  // never alive if last < first
};

// Of the graph's values, in its order: from the node that writes one to the last that reads it,
// with `taps` to the end. The picture and the cube are the caller's and take nothing.
std::vector<Lifetime> ValueLifetimes(const mstpp::Graph& graph, bool taps,
                                     const std::function<size_t(const Value&)>& bytes);

struct MemoryPlan {
  std::vector<size_t> offsets;  // one a lifetime, multiples of 256
  size_t bytes = 0;
};

// Places in one arena, shared by what is not alive together. Largest first, each at the lowest
// offset that is free while it lives.
MemoryPlan PlanMemory(const std::vector<Lifetime>& lifetimes);

}  // namespace mstpp::cuda
