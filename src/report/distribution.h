// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace mstpp {

// How one figure is distributed over the images.
struct Distribution {
  std::vector<double> values;  // ascending, what was dropped left out
  size_t dropped = 0;          // of the lowest and the highest, together
  size_t undefined = 0;        // NaN: images that have no such figure

  double min() const { return values.front(); }
  double max() const { return values.back(); }
  double mean() const;
  double deviation() const;             // of the sample, n - 1; 0 for one value
  double Quantile(double share) const;  // linear between values, as NumPy's default
  double median() const { return Quantile(0.5); }
};

// Drops the `trim` lowest and the `trim` highest values, as many as leave at least one. The
// functions above need one.
Distribution Distribute(std::vector<double> values, size_t trim);

}  // namespace mstpp
