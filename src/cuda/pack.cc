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

void Packer::ThinTiles(int first, int tiles, int inputs, const Matrix& weight) {
  for (int i = 0; i < inputs; i += 32) {
    for (int j = 0; j < tiles; ++j) {
      Tile(
          [&](int n, int k) { return weight(first + 2 * tiles * (n / 2) + 2 * j + n % 2, i + k); });
    }
  }
}

void Packer::Depthwise(int channels, const std::function<float(int channel, int tap)>& weight) {
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

}  // namespace mstpp::cuda
