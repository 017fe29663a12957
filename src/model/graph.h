// SPDX-License-Identifier: Apache-2.0
// The network as plain data: a list of blocks in the order they run.
#pragma once

#include <string>
#include <vector>

#include "mstpp/model.h"

namespace mstpp {

enum class Op {
  kConv3x3,            // y = conv(x) [+ residual]; stride 1, zero padding 1, no bias
  kSpectralAttention,  // y = x + S_MSA(x)
  kFeedForward,        // y = x + FFN(LayerNorm(x))
  kDownsample,         // 4x4 convolution, stride 2, zero padding 1, no bias
  kUpsampleFuse,       // y = conv1x1(concat(transposed_conv2x2(x), skip))
};

// A feature map: channels at full resolution / 2^level.
struct Value {
  int level = 0;
  int channels = 0;
};

struct Node {
  Op op;
  std::string name;  // PyTorch module name; the weights are name + ".weight" and so on
  int input = -1;    // index into Graph::values
  int extra = -1;    // kConv3x3: residual, or -1; kUpsampleFuse: the skip
  int output = -1;
  std::string name2;  // kUpsampleFuse: the fusion's name; kFeedForward: unused
  int heads = 0;      // kSpectralAttention

  // The module whose output is the block's: the name of the tap on it, in every backend.
  const std::string& tap_name() const { return name2.empty() ? name : name2; }
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;
  int input = -1;   // the padded picture
  int output = -1;  // the padded cube
};

// The stem of the files that compute it: "spectral_attention".
const char* Stem(Op op);

// MST++ (Cai et al., CVPRW 2022): the whole network is in mstpp.cc.
Graph BuildMstPlusPlus(const Config& config);

}  // namespace mstpp
