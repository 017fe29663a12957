// SPDX-License-Identifier: Apache-2.0
#include "latency.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mstpp::cli {
namespace {

double Percentile(const std::vector<double>& sorted, double percent) {
  const double position = percent / 100.0 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], position - static_cast<double>(below));
}

}  // namespace

Latency Summarise(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  Latency latency;
  latency.min = seconds.front();
  latency.max = seconds.back();
  latency.mean =
      std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(seconds.size());
  latency.median = Percentile(seconds, 50);
  latency.p90 = Percentile(seconds, 90);
  latency.p95 = Percentile(seconds, 95);
  latency.p99 = Percentile(seconds, 99);
  return latency;
}

}  // namespace mstpp::cli
