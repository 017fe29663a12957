// SPDX-License-Identifier: Apache-2.0
#include "report/distribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace mstpp {

Distribution Distribute(std::vector<double> values, size_t trim) {
  Distribution result;
  result.undefined = std::erase_if(values, [](double value) { return std::isnan(value); });
  std::sort(values.begin(), values.end());
  if (!values.empty()) trim = std::min(trim, (values.size() - 1) / 2);
  result.dropped = values.empty() ? 0 : 2 * trim;
  if (result.dropped > 0) {
    values.erase(values.end() - static_cast<std::ptrdiff_t>(trim), values.end());
    values.erase(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(trim));
  }
  result.values = std::move(values);
  return result;
}

double Distribution::mean() const {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double Distribution::deviation() const {
  if (values.size() < 2) return 0;
  const double center = mean();
  double sum = 0;
  for (const double value : values) sum += (value - center) * (value - center);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

double Distribution::Quantile(double share) const {
  const double at = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(at);
  const double part = at - static_cast<double>(below);
  if (part == 0) return values[below];  // also keeps infinity from becoming NaN
  return values[below] + part * (values[below + 1] - values[below]);
}

}  // namespace mstpp
