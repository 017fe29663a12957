// SPDX-License-Identifier: Apache-2.0
#include "cuda/pack.h"

#include <cuda_fp16.h>

#include <bit>
#include <cstring>

namespace mstpp::cuda {

float HalfRest(float value) { return value - __half2float(__float2half_rn(value)); }

void Packer::Put(float value) {
  const __half_raw half = __float2half_rn(value);
  finite_ = finite_ && (half.x & 0x7c00) != 0x7c00;
  const size_t at = bytes_.size();
  bytes_.resize(at + 2);
  std::memcpy(bytes_.data() + at, &half.x, 2);
}

namespace {

// The channel of lane t's element i of eight.
int ChannelOf(Packer::Lanes lanes, int t, int i) {
  return lanes == Packer::Lanes::kVecs ? 8 * t + i : i / 2 * 8 + 2 * t + i % 2;
}

}  // namespace

void Packer::Tiles(int outputs, Lanes output_lanes, int inputs, Lanes input_lanes,
                   const Matrix& weight) {
  for (int o = 0; o < outputs; o += 32) {
    for (int i = 0; i < inputs; i += 32) {
      for (int j = 0; j < 4; ++j) {
        for (int lane = 0; lane < 32; ++lane) {
          const int g = lane / 4, t = lane % 4;
          const int out = o + ChannelOf(output_lanes, g / 2, 2 * j + g % 2);
          for (int e = 0; e < 8; ++e) Put(weight(out, i + ChannelOf(input_lanes, t, e)));
        }
      }
    }
  }
}

namespace {

// The channel at `index` of sixteen's place in a product, in the part of the channels that `first`
// begins: a lane's four are 2t, 2t + 1, 2t + 8 and 2t + 9.
int ChannelAt(Packer::Order order, int first, int index) {
  if (order == Packer::Order::kPlain) return first + index;
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

void Packer::Bricks(int outputs, int inputs, const Matrix& weight) {
  for (int i = 0; i < inputs; i += 8) {
    for (int o = 0; o < outputs; ++o) {
      for (int e = 0; e < 8; ++e) Put(weight(o, i + e));
    }
  }
}

void Packer::VecBricks(int outputs, int inputs, const Matrix& weight) {
  const auto channel = [](int i) { return ChannelAt(Order::kVecs, i / 16 * 16, i % 16); };
  Bricks(outputs, inputs, [&](int o, int i) { return weight(channel(o), channel(i)); });
}

void Packer::Taps(int channels, const std::function<float(int channel, int tap)>& weight) {
  for (int c = 0; c < channels; ++c) {
    for (int tap = 0; tap < 16; ++tap) Put(tap < 9 ? weight(c, tap) : 0.0f);
  }
}

void Packer::Depthwise(int channels, bool left_diagonals,
                       const std::function<float(int channel, int tap)>& weight) {
  for (int group = 0; group < channels; group += 32) {
    for (int tap = 0; tap < 9; ++tap) {
      const bool diagonal = tap % 3 != 0 || left_diagonals;
      for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int e = 0; e < 8; ++e) {
          // Of a diagonal, column g of tile e / 2; it is not 0 in row g only.
          const int channel = diagonal ? ChannelOf(Lanes::kVecs, g / 2, e / 2 * 2 + g % 2)
                                       : ChannelOf(Lanes::kVecs, t, e);
          const bool zero = diagonal && 2 * t + e % 2 != g;
          Put(zero ? 0.0f : weight(group + channel, tap));
        }
      }
    }
  }
}

void Packer::BandedDepthwise(int channels,
                             const std::function<float(int channel, int tap)>& weight) {
  for (int group = 0; group < channels; group += 32) {
    for (int i = 0; i < 12; ++i) {
      const int ky = i / 4, of_pair = i / 2 % 2, half = i % 2;
      for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int e = 0; e < 8; ++e) {
          // Column g is output g % 2 of channel g / 2, which has the inputs of lanes t = g / 2
          // only.
          const int channel = group + ChannelOf(Lanes::kVecs, g / 2, e / 2 * 2 + of_pair);
          const int kx = 2 * half + e % 2 - g % 2;
          const bool zero = t != g / 2 || kx < 0 || kx > 2;
          Put(zero ? 0.0f : weight(channel, 3 * ky + kx));
        }
      }
    }
  }
}

namespace {

// Rounded as SplitFactor of kernels/portable.cuh does it.
void AppendSplit(std::vector<float>& packed, int parts,
                 const std::function<float(int g, int t, int element)>& weight) {
  for (int part = 0; part < parts; ++part) {
    for (int i = 0; i < 128; ++i) {
      const float value = weight(i / 16, i / 4 % 4, i % 4);
      const auto big =
          std::bit_cast<float>((std::bit_cast<uint32_t>(value) + 0x1000u) & 0xffffe000u);
      packed.push_back(part == 0 ? big : value - big);
    }
  }
}

}  // namespace

std::vector<float> FirstFactors(int parts, int hidden, int inputs, const Packer::Matrix& weight) {
  std::vector<float> packed;
  for (int h = 0; h < hidden; h += 16) {
    for (int i = 0; i < inputs; i += 8) {
      AppendSplit(packed, parts, [&](int g, int t, int element) {
        return weight(h + 2 * g + element % 2, i / 16 * 16 + 4 * t + i % 16 / 4 + element / 2);
      });
    }
  }
  return packed;
}

std::vector<float> SecondFactors(int parts, int outputs, int hidden, const Packer::Matrix& weight) {
  std::vector<float> packed;
  for (int h = 0; h < hidden; h += 16) {
    for (int o = 0; o < outputs; o += 8) {
      AppendSplit(packed, parts,
                  [&](int g, int t, int element) { return weight(o + g, h + 4 * t + element); });
    }
  }
  return packed;
}

std::vector<float> DepthwiseAndBias(int hidden, const Packer::Matrix& tap,
                                    const std::vector<float>& bias) {
  std::vector<float> packed;
  for (int h = 0; h < hidden; h += 16) {
    for (int t = 0; t < 10; ++t) {
      for (int o = h; o < h + 16; ++o) {
        const bool exists = o < static_cast<int>(bias.size());
        packed.push_back(!exists ? 0.0f : t < 9 ? tap(o, t) : bias[o]);
      }
    }
  }
  return packed;
}

}  // namespace mstpp::cuda
