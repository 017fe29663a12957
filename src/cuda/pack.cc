// SPDX-License-Identifier: Apache-2.0
#include "cuda/pack.h"

#include <cuda_fp16.h>

#include <cstring>

namespace mstpp::cuda {

void Packer::Put(float value) {
  const size_t at = bytes_.size();
  if (type_ == WeightType::kHalf) {
    const __half_raw half = __float2half_rn(value);
    bytes_.resize(at + 2);
    std::memcpy(bytes_.data() + at, &half.x, 2);
  } else {
    bytes_.resize(at + 4);
    std::memcpy(bytes_.data() + at, &value, 4);
  }
}

// Word after word, in each lane after lane.
void Packer::Tile(const std::function<float(int n, int k)>& weight) {
  for (int first = 0; first < 8; first += per_word()) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = first; i < first + per_word(); ++i) Put(weight(lane / 4, 8 * (lane % 4) + i));
    }
  }
}

void Packer::Tiles(int outputs, int inputs, const Matrix& weight) {
  for (int o = 0; o < outputs; o += 32) {
    for (int i = 0; i < inputs; i += 32) {
      for (int j = 0; j < 4; ++j) {
        Tile([&](int n, int k) { return weight(o + 8 * (n / 2) + 2 * j + n % 2, i + k); });
      }
    }
  }
}

namespace {

// The channel at `index` of sixteen's place in a product, in the part of the channels that `first`
// begins: a lane's four are 2t, 2t + 1, 2t + 8 and 2t + 9.
int ChannelAt(Packer::Order order, int first, int index) {
  const int t = index % 8 / 2, of_lane = 2 * (index / 8) + index % 2;
  if (order == Packer::Order::kQuads) return first + 4 * t + of_lane;
  return first / 32 * 32 + 8 * t + first % 32 / 4 + of_lane;
}

}  // namespace

void Packer::Rows(int outputs, Order output_order, int inputs, Order input_order,
                  const Matrix& weight) {
  for (int o = 0; o < outputs; o += 16) {
    for (int i = 0; i < inputs; i += 16) {
      for (int lane = 0; lane < 32; ++lane) {
        for (int element = 0; element < 8; ++element) {
          const int row = lane / 4 + element / 2 % 2 * 8;
          const int column = lane % 4 * 2 + element / 4 * 8 + element % 2;
          Put(weight(ChannelAt(output_order, o, row), ChannelAt(input_order, i, column)));
        }
      }
    }
  }
}

void Packer::Depthwise(int channels, const std::function<float(int channel, int tap)>& weight) {
  if (type_ == WeightType::kHalf) return HalfDepthwise(channels, weight);
  for (int group = 0; group < channels; group += 32) {
    for (int tap = 0; tap < 9; ++tap) {
      for (int first = 0; first < 8; first += per_word()) {
        for (int t = 0; t < 4; ++t) {
          for (int i = first; i < first + per_word(); ++i) Put(weight(group + 8 * t + i, tap));
        }
      }
    }
  }
}

void Packer::HalfDepthwise(int channels, const std::function<float(int channel, int tap)>& weight) {
  for (int group = 0; group < channels; group += 32) {
    for (int ky = 0; ky < 3; ++ky) {
      for (int j = 0; j < 4; ++j) {
        for (int g = 0; g < 8; ++g) {
          const int channel = group + 8 * (g / 2) + 2 * j + g % 2;
          for (int kx : {0, 1, 1, 2}) {
            const float value = weight(channel, 3 * ky + kx);
            Put(g % 2 == 0 ? value : 0.0f);
            Put(g % 2 == 1 ? value : 0.0f);
          }
        }
      }
      for (int kx : {0, 2}) {
        for (int channel = 0; channel < 32; ++channel) Put(weight(group + channel, 3 * ky + kx));
      }
    }
  }
}

}  // namespace mstpp::cuda
