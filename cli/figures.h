// SPDX-License-Identifier: Apache-2.0
// What `mstpp accuracy` measures of every image.
#pragma once

#include <string>
#include <vector>

#include "console.h"
#include "mstpp/engine.h"

namespace mstpp::cli {

// One figure of an image. Undefined ones are NaN.
struct FigureSpec {
  std::string key;    // "truth_mrae": in JSON and CSV
  std::string title;  // "truth: MRAE"
};

// Those against another engine, against the truth, or both.
std::vector<FigureSpec> FigureSpecs(bool against, bool truth);

// Views (n = 1) of the cropped result and of what it is measured against; null data: not at all.
// In the order of FigureSpecs.
std::vector<double> MeasureFigures(const TensorView& result, const TensorView& against,
                                   const TensorView& truth);

// Every double, infinities and NaN too, there and back.
Json FiguresToJson(const std::vector<double>& figures);
std::vector<double> FiguresFromJson(const Json& json);

}  // namespace mstpp::cli
