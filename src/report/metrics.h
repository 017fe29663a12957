// SPDX-License-Identifier: Apache-2.0
// How far a cube is from the expected one. Both are views of one shape, n = 1: bands x H x W; all
// values must be finite (CheckFinite).
#pragma once

#include <cstdint>
#include <string>

#include "mstpp/engine.h"

namespace mstpp {

// The view without `border` pixels on each side. Throws Error (kInvalidArgument) naming `where` if
// nothing would be left.
TensorView CropBorder(const TensorView& view, int64_t border, const std::string& where);

// Throws Error (kInvalidArgument) naming `where` if a value is NaN or infinite.
void CheckFinite(const TensorView& view, const std::string& where);

// Mean, median and maximum over all values.
struct Spread {
  double mean = 0, median = 0, max = 0;
};

struct Difference {
  Spread absolute;          // |value - expected|
  Spread relative;          // |value - expected| / |expected|, without the values expected to be 0
  double relative_rms = 0;  // root mean square of the error over that of the expected values
  int64_t zeros = 0;        // values expected to be 0, which have no relative error
};
// What has no value to be taken from is NaN.
Difference MeasureDifference(const TensorView& cube, const TensorView& expected);

// The mean of |value - expected| / |expected| (MRAE) is Difference::relative.mean: values expected
// to be 0, for which the published code gives infinity, are left out.

// sqrt(mean (value - expected)^2).
double Rmse(const TensorView& cube, const TensorView& expected);

// As the NTIRE challenge computes it: both clamped to [0, 1], full scale 1. Infinite if equal.
double Psnr(const TensorView& cube, const TensorView& expected);

// The spectral angle, in degrees, mean over the pixels. Pixels of which one spectrum is zero have
// no angle and are left out; NaN if there are no others.
double SpectralAngle(const TensorView& cube, const TensorView& expected);

// Structural similarity (Wang et al. 2004), mean over bands and pixels: both clamped to [0, 1], a
// Gaussian window of 11 x 11 with deviation 1.5, wholly inside the picture; K1 = 0.01, K2 = 0.03.
// NaN for less than 11 rows or columns.
double Ssim(const TensorView& cube, const TensorView& expected);

}  // namespace mstpp
