// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace mstpp::cli {

// Of the times of equal runs, in seconds.
struct Latency {
  double min = 0, mean = 0, median = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};

// Percentiles are interpolated linearly between the nearest two. `seconds` must not be empty.
Latency Summarise(std::vector<double> seconds);

}  // namespace mstpp::cli
