// SPDX-License-Identifier: Apache-2.0
// Plots as SVG, to stand in an HtmlPage.
#pragma once

#include <string>

#include "report/distribution.h"

namespace mstpp {

// How often each range of values occurs, and above it on the same axis the box: quartiles, median,
// whiskers to the 5th and 95th percentile, the mean as a dot. The axis is logarithmic if all values
// are positive and span more than a factor of 30. Infinite values are left out and counted; empty
// if none are left.
std::string PlotDistribution(const Distribution& distribution, const std::string& label);

}  // namespace mstpp
