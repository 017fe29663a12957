// SPDX-License-Identifier: Apache-2.0
// The feed-forward network behind a LayerNorm (MST++, section 3.2), as published.
#include <cmath>

#include "reference/blocks.h"

namespace mstpp::reference {
namespace {

Map LayerNorm(const Map& x, const Tensor& gain, const Tensor& bias) {
  constexpr double kEpsilon = 1e-5;
  Map y(x.height, x.width, x.channels);
  const auto n = static_cast<double>(x.channels);
  for (int64_t p = 0; p < x.pixels(); ++p) {
    const double* in = x.pixel(p);
    double mean = 0;
    for (int64_t c = 0; c < x.channels; ++c) mean += in[c] / n;
    double variance = 0;
    for (int64_t c = 0; c < x.channels; ++c) variance += (in[c] - mean) * (in[c] - mean) / n;
    const double scale = 1.0 / std::sqrt(variance + kEpsilon);
    for (int64_t c = 0; c < x.channels; ++c) {
      y.pixel(p)[c] = (in[c] - mean) * scale * gain.data[c] + bias.data[c];
    }
  }
  return y;
}

}  // namespace

Map FeedForward(const Map& x, const StateDict& tensors, const std::string& name) {
  Map h = LayerNorm(x, tensors.at(name + ".norm.weight"), tensors.at(name + ".norm.bias"));
  h = Linear(h, tensors.at(name + ".fn.net.0.weight"), nullptr);
  Gelu(h);
  h = DepthwiseConv3x3(h, tensors.at(name + ".fn.net.2.weight"));
  Gelu(h);
  Map y = Linear(h, tensors.at(name + ".fn.net.4.weight"), nullptr);
  for (size_t i = 0; i < y.data.size(); ++i) y.data[i] += x.data[i];
  return y;
}

}  // namespace mstpp::reference
