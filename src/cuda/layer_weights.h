// SPDX-License-Identifier: Apache-2.0
// Each block's weights in the form the kernels compute with: constant factors folded, and for the
// fused kernels padded, with the biases in the column of the channel that is 1 (lanes.cuh).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/pack.h"
#include "model/graph.h"
#include "model/tensor.h"

namespace mstpp::cuda {

// A PyTorch weight, any number of dimensions, read as [output][input][position].
class WeightView {
 public:
  explicit WeightView(const Tensor& tensor);
  int outputs() const { return outputs_; }
  int inputs() const { return inputs_; }
  // 0 outside.
  float at(int output, int input, int position = 0) const {
    if (output >= outputs_ || input >= inputs_) return 0.0f;
    return data_[(static_cast<int64_t>(output) * inputs_ + input) * positions_ + position];
  }

 private:
  const float* data_;
  int outputs_, inputs_, positions_ = 1;
};

// W1 diag(gamma), and W1 beta in the column `channels`; [4 channels][channels + 1].
struct FoldedNorm {
  int hidden = 0, channels = 0;
  std::vector<float> weight;
  std::vector<float> bias;
  float at(int output, int input) const {
    return output < hidden && input < channels ? weight[output * channels + input] : 0.0f;
  }
};
// `centred`: every row minus its mean, so that the product needs no centred input.
FoldedNorm FoldNorm(const StateDict& tensors, const std::string& name, bool centred);

// F1 Wup[:, :, phase]': [channels][2 channels], phase = 2 row + column; and F1 b_up.
struct FoldedUpsample {
  int channels = 0;
  std::vector<float> weight[4];
  std::vector<float> bias;
  float at(int phase, int output, int input) const {
    return output < channels && input < 2 * channels ? weight[phase][output * 2 * channels + input]
                                                     : 0.0f;
  }
};
FoldedUpsample FoldUpsample(const StateDict& tensors, const Node& node);

// Transposed and padded to rows of a multiple of four: [inputs][stride], with room to read past the
// end, as attention_matrix.cuh does.
std::vector<float> Transposed(const Tensor& tensor);
// The same without transposing.
std::vector<float> PaddedRows(const Tensor& tensor);

}  // namespace mstpp::cuda
