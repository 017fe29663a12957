// SPDX-License-Identifier: Apache-2.0
// Spectral-wise multi-head self-attention (MST++, section 3.2), as published: queries, keys and
// values of every pixel; attention between channels over all pixels.
#include <algorithm>
#include <cmath>

#include "reference/blocks.h"

namespace mstpp::reference {
namespace {

// Divides each channel by its norm over all pixels (torch.nn.functional.normalize: at least 1e-12).
void NormalizeChannels(Map& x) {
  std::vector<double> squares(static_cast<size_t>(x.channels));
  for (int64_t p = 0; p < x.pixels(); ++p) {
    for (int64_t c = 0; c < x.channels; ++c) squares[c] += x.pixel(p)[c] * x.pixel(p)[c];
  }
  for (int64_t p = 0; p < x.pixels(); ++p) {
    for (int64_t c = 0; c < x.channels; ++c) {
      x.pixel(p)[c] /= std::max(std::sqrt(squares[c]), 1e-12);
    }
  }
}

void SoftmaxRow(double* row, int64_t n) {
  const double highest = *std::max_element(row, row + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += row[i] = std::exp(row[i] - highest);
  for (int64_t i = 0; i < n; ++i) row[i] /= sum;
}

// One head's attention: d x d, rows are channels of the keys. `first` is the head's first channel.
std::vector<double> Attention(const Map& q, const Map& k, int64_t first, int64_t d,
                              double rescale) {
  std::vector<double> attention(static_cast<size_t>(d * d));
  for (int64_t p = 0; p < q.pixels(); ++p) {
    for (int64_t i = 0; i < d; ++i) {
      const double key = k.pixel(p)[first + i];
      for (int64_t j = 0; j < d; ++j) attention[i * d + j] += key * q.pixel(p)[first + j];
    }
  }
  for (double& a : attention) a *= rescale;
  for (int64_t i = 0; i < d; ++i) SoftmaxRow(&attention[i * d], d);
  return attention;
}

}  // namespace

Map SpectralAttention(const Map& x, const StateDict& tensors, const std::string& name, int heads) {
  const auto weight = [&](const char* suffix) -> const Tensor& {
    return tensors.at(name + suffix);
  };
  Map q = Linear(x, weight(".to_q.weight"), nullptr);
  Map k = Linear(x, weight(".to_k.weight"), nullptr);
  const Map v = Linear(x, weight(".to_v.weight"), nullptr);
  NormalizeChannels(q);
  NormalizeChannels(k);

  const int64_t d = x.channels / heads;
  Map attended(x.height, x.width, x.channels);
  for (int64_t head = 0; head < heads; ++head) {
    const std::vector<double> attention =
        Attention(q, k, head * d, d, weight(".rescale").data[head]);
    for (int64_t p = 0; p < x.pixels(); ++p) {
      const double* value = v.pixel(p) + head * d;
      double* out = attended.pixel(p) + head * d;
      for (int64_t i = 0; i < d; ++i) {
        for (int64_t j = 0; j < d; ++j) out[i] += attention[i * d + j] * value[j];
      }
    }
  }
  Map y = Linear(attended, weight(".proj.weight"), &weight(".proj.bias"));

  Map position = DepthwiseConv3x3(v, weight(".pos_emb.0.weight"));
  Gelu(position);
  position = DepthwiseConv3x3(position, weight(".pos_emb.2.weight"));
  for (size_t i = 0; i < y.data.size(); ++i) y.data[i] += position.data[i] + x.data[i];
  return y;
}

}  // namespace mstpp::reference
