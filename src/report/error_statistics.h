// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "mstpp/engine.h"

namespace mstpp {

// How far values are from the expected ones. Takes any number of them in a fixed amount of memory.
class ErrorStatistics {
 public:
  void Add(float value, float expected);
  // Two views of one shape.
  void Add(const TensorView& values, const TensorView& expected);

  int64_t count() const { return count_; }
  // Pairs of which one is NaN or infinite. They count in nothing else but make max() infinite.
  int64_t not_finite() const { return not_finite_; }
  double max() const;                          // |value - expected|
  double mean() const;                         // likewise
  double largest() const { return largest_; }  // |expected|
  // Root mean square of the error over that of the expected values.
  double relative() const;
  // Of the angle between the two as vectors; 1 if both are zero.
  double cosine() const;

  // NumPy's criterion, for the whole rather than each value: rounding errors of a sum are
  // proportional to its terms, so a small value beside large ones owes its error to those.
  bool Within(double atol, double rtol) const { return max() <= atol + rtol * largest_; }

 private:
  int64_t count_ = 0, not_finite_ = 0;
  double max_ = 0, sum_ = 0, largest_ = 0;
  double error_square_ = 0, value_square_ = 0, expected_square_ = 0, product_ = 0;
};

}  // namespace mstpp
