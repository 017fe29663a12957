// SPDX-License-Identifier: Apache-2.0
// Weights in the order in which the fused kernels' lanes load them (kernels/lanes.cuh).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace mstpp::cuda {

// Appends halves.
class Packer {
 public:
  // The weight from input i to output o, both padded: 0 where there is none.
  using Matrix = std::function<float(int o, int i)>;

  // How a lane's eight of 32 channels lie: 8t .. 8t + 7, or two of every block of eight, 8q + 2t
  // and 8q + 2t + 1.
  enum class Lanes { kVecs, kBlocks };

  // Tiles [outputs / 32][inputs / 32][4] of 8 outputs by 32 inputs, for lanes that hold their
  // inputs so and get their outputs so: tile j gives pair j.
  void Tiles(int outputs, Lanes output_lanes, int inputs, Lanes input_lanes, const Matrix& weight);

  // How sixteen channels lie in a warp whose lane (g, t) has four of pixel g: those from 4t on, or
  // half the Vec from 8t on; or, plain, as a product has them, 2t, 2t + 1, 2t + 8 and 2t + 9.
  enum class Order { kQuads, kVecs, kPlain };

  // WeightRows [outputs / 16][inputs / 16] (kernels/weight_rows.cuh).
  void Rows(int outputs, Order output_order, int inputs, Order input_order, const Matrix& weight);

  // The second factor of kernels/hopper.cuh: [inputs / 8][outputs][8 inputs].
  void Bricks(int outputs, int inputs, const Matrix& weight);

  // The same with outputs and inputs in Order::kVecs: a lane gets its Vec's pairs one after the
  // other, and gives its inputs so.
  void VecBricks(int outputs, int inputs, const Matrix& weight);

  // [channels / 32] as Depthwise of kernels/depthwise.cuh reads them: [9 taps] of a warp's Vecs.
  // `left_diagonals`: those of the left taps too are diagonals (Sides::kTensorCores).
  void Depthwise(int channels, bool left_diagonals,
                 const std::function<float(int channel, int tap)>& weight);

  // The same for BandedDepthwise: [3 rows][2 channels of a pair][2 halves of the inputs].
  void BandedDepthwise(int channels, const std::function<float(int channel, int tap)>& weight);

  // [channels][9 taps and seven zeros].
  void Taps(int channels, const std::function<float(int channel, int tap)>& weight);

  std::vector<unsigned char> Take() { return std::move(bytes_); }
  size_t size() const { return bytes_.size(); }
  // Whether all weights are within the range of halves.
  bool finite() const { return finite_; }

 private:
  void Put(float value);

  std::vector<unsigned char> bytes_;
  bool finite_ = true;
};

// What the half nearest to a weight leaves of it.
float HalfRest(float value);

// The weights of a feed-forward network as the portable kernel copies them, 16 hidden channels
// after another (kernels/portable_feed_forward.cuh). All counts are multiples of 16. Those of the
// products are TF32 in the order in which lanes load them: 128 of a warp, rounded, and with `parts`
// = 2 behind them what that leaves of each.
std::vector<float> FirstFactors(int parts, int hidden, int inputs, const Packer::Matrix& weight);
std::vector<float> SecondFactors(int parts, int outputs, int hidden, const Packer::Matrix& weight);
// [hidden / 16][9 taps and the bias][16]; beyond the biases there are zeros.
std::vector<float> DepthwiseAndBias(int hidden, const Packer::Matrix& tap,
                                    const std::vector<float>& bias);

}  // namespace mstpp::cuda
