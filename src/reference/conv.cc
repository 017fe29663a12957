// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "reference/blocks.h"

namespace mstpp::reference {
namespace {

// out[o] += sum over i of weight[o, i] * in[i], with the weight's elements `stride` apart.
void Accumulate(const double* in, int64_t ins, const float* weight, int64_t stride, double* out,
                int64_t outs) {
  for (int64_t o = 0; o < outs; ++o) {
    double sum = 0;
    for (int64_t i = 0; i < ins; ++i)
      sum += static_cast<double>(weight[(o * ins + i) * stride]) * in[i];
    out[o] += sum;
  }
}

}  // namespace

Map Conv(const Map& x, const Tensor& weight, int stride) {
  const int64_t outs = weight.shape[0];
  const int64_t ins = weight.shape[1];
  const int64_t side = weight.shape[2];
  Map y(x.height / stride, x.width / stride, outs);
  for (int64_t r = 0; r < y.height; ++r) {
    for (int64_t c = 0; c < y.width; ++c) {
      for (int64_t i = 0; i < side; ++i) {
        for (int64_t j = 0; j < side; ++j) {
          const int64_t row = r * stride + i - 1;
          const int64_t column = c * stride + j - 1;
          if (!x.Contains(row, column)) continue;
          Accumulate(x.at(row, column), ins, &weight.data[i * side + j], side * side, y.at(r, c),
                     outs);
        }
      }
    }
  }
  return y;
}

Map DepthwiseConv3x3(const Map& x, const Tensor& weight) {
  Map y(x.height, x.width, x.channels);
  for (int64_t r = 0; r < y.height; ++r) {
    for (int64_t c = 0; c < y.width; ++c) {
      for (int64_t i = 0; i < 3; ++i) {
        for (int64_t j = 0; j < 3; ++j) {
          if (!x.Contains(r + i - 1, c + j - 1)) continue;
          const double* in = x.at(r + i - 1, c + j - 1);
          double* out = y.at(r, c);
          for (int64_t k = 0; k < x.channels; ++k) out[k] += weight.data[k * 9 + i * 3 + j] * in[k];
        }
      }
    }
  }
  return y;
}

Map Linear(const Map& x, const Tensor& weight, const Tensor* bias) {
  Map y(x.height, x.width, weight.shape[0]);
  for (int64_t p = 0; p < x.pixels(); ++p) {
    double* out = y.pixel(p);
    if (bias != nullptr) {
      for (int64_t o = 0; o < y.channels; ++o) out[o] = bias->data[o];
    }
    Accumulate(x.pixel(p), x.channels, weight.data.data(), 1, out, y.channels);
  }
  return y;
}

Map UpsampleFuse(const Map& x, const Map& skip, const Tensor& weight, const Tensor& bias,
                 const Tensor& fusion) {
  const int64_t outs = weight.shape[1];
  Map both(skip.height, skip.width, 2 * outs);
  for (int64_t r = 0; r < skip.height; ++r) {
    for (int64_t c = 0; c < skip.width; ++c) {
      const double* in = x.at(r / 2, c / 2);
      double* out = both.at(r, c);
      for (int64_t o = 0; o < outs; ++o) {
        double sum = bias.data[o];
        for (int64_t i = 0; i < x.channels; ++i) {
          sum += in[i] * weight.data[((i * outs + o) * 2 + r % 2) * 2 + c % 2];
        }
        out[o] = sum;
        out[outs + o] = skip.at(r, c)[o];
      }
    }
  }
  return Linear(both, fusion, nullptr);
}

void Gelu(Map& x) {
  for (double& v : x.data) v = 0.5 * v * (1.0 + std::erf(v * std::sqrt(0.5)));
}

}  // namespace mstpp::reference
