// SPDX-License-Identifier: Apache-2.0
// The blocks of the network as the paper and the official code publish them, one loop after the
// other in float64. Weights are PyTorch's tensors, unchanged.
#pragma once

#include <string>

#include "model/tensor.h"
#include "reference/map.h"

namespace mstpp::reference {

// Convolution with a square kernel, weight (out, in, k, k), zero padding of 1, no bias.
Map Conv(const Map& x, const Tensor& weight, int stride);

// Depthwise 3x3 convolution, weight (channels, 1, 3, 3), zero padding of 1, no bias.
Map DepthwiseConv3x3(const Map& x, const Tensor& weight);

// Every pixel times a matrix, weight (out, in) or (out, in, 1, 1), with a bias or without (null).
Map Linear(const Map& x, const Tensor& weight, const Tensor* bias);

// Transposed 2x2 convolution of stride 2, weight (in, out, 2, 2), then the 1x1 fusion of its output
// and the skip (in this order), weight (out, 2 out, 1, 1).
Map UpsampleFuse(const Map& x, const Map& skip, const Tensor& weight, const Tensor& bias,
                 const Tensor& fusion);

void Gelu(Map& x);  // x * Phi(x), with erf

// x + S_MSA(x); `name` is the PyTorch module, e.g. "body.0.bottleneck.blocks.0.0".
Map SpectralAttention(const Map& x, const StateDict& tensors, const std::string& name, int heads);

// x + FFN(LayerNorm(x)).
Map FeedForward(const Map& x, const StateDict& tensors, const std::string& name);

}  // namespace mstpp::reference
