// SPDX-License-Identifier: Apache-2.0
#include "cuda/layer_weights.h"

namespace mstpp::cuda {

WeightView::WeightView(const Tensor& tensor)
    : data_(tensor.data.data()),
      outputs_(static_cast<int>(tensor.shape.at(0))),
      inputs_(static_cast<int>(tensor.shape.at(1))) {
  for (size_t i = 2; i < tensor.shape.size(); ++i) positions_ *= static_cast<int>(tensor.shape[i]);
}

FoldedNorm FoldNorm(const StateDict& tensors, const std::string& name, bool centred) {
  const WeightView w(tensors.at(name + ".fn.net.0.weight"));
  const std::vector<float>& gain = tensors.at(name + ".norm.weight").data;
  const std::vector<float>& offset = tensors.at(name + ".norm.bias").data;
  FoldedNorm folded{w.outputs(), w.inputs(), {}, {}};
  for (int o = 0; o < w.outputs(); ++o) {
    double bias = 0, mean = 0;
    for (int i = 0; i < w.inputs(); ++i) {
      bias += static_cast<double>(w.at(o, i)) * offset[i];
      mean += static_cast<double>(w.at(o, i)) * gain[i] / w.inputs();
    }
    folded.bias.push_back(static_cast<float>(bias));
    for (int i = 0; i < w.inputs(); ++i) {
      const double weight = static_cast<double>(w.at(o, i)) * gain[i];
      folded.weight.push_back(static_cast<float>(centred ? weight - mean : weight));
    }
  }
  return folded;
}

FoldedUpsample FoldUpsample(const StateDict& tensors, const Node& node) {
  const Tensor& up = tensors.at(node.name + ".weight");  // [2 c][c][2][2]: inputs first
  const WeightView fusion(tensors.at(node.name2 + ".weight"));
  const std::vector<float>& bias = tensors.at(node.name + ".bias").data;
  const int c = static_cast<int>(up.shape.at(1));
  FoldedUpsample folded;
  folded.channels = c;
  for (int o = 0; o < c; ++o) {
    double sum = 0;
    for (int k = 0; k < c; ++k) sum += static_cast<double>(fusion.at(o, k)) * bias[k];
    folded.bias.push_back(static_cast<float>(sum));
  }
  for (int phase = 0; phase < 4; ++phase) {
    for (int o = 0; o < c; ++o) {
      for (int i = 0; i < 2 * c; ++i) {
        double sum = 0;
        for (int k = 0; k < c; ++k) {
          sum += static_cast<double>(fusion.at(o, k)) *
                 up.data[(static_cast<int64_t>(i) * c + k) * 4 + phase];
        }
        folded.weight[phase].push_back(static_cast<float>(sum));
      }
    }
  }
  return folded;
}

namespace {

std::vector<float> Rows(const Tensor& tensor, bool transpose) {
  const WeightView w(tensor);
  const int rows = transpose ? w.inputs() : w.outputs();
  const int columns = transpose ? w.outputs() : w.inputs();
  const int stride = (columns + 3) / 4 * 4;
  std::vector<float> padded(static_cast<size_t>(rows) * stride + 16, 0.0f);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      padded[static_cast<size_t>(r) * stride + c] = transpose ? w.at(c, r) : w.at(r, c);
    }
  }
  return padded;
}

}  // namespace

std::vector<float> Transposed(const Tensor& tensor) { return Rows(tensor, true); }
std::vector<float> PaddedRows(const Tensor& tensor) { return Rows(tensor, false); }

}  // namespace mstpp::cuda
