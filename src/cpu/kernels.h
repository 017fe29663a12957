// SPDX-License-Identifier: Apache-2.0
// The blocks on the CPU. Each works on one tile of its output and is the same function for every
// instruction set; the best one the machine has is chosen when it is called (Highway).
//
// Weights are packed once, in panels of PanelWidth() output channels (two vectors): a panel is
// stored as (inputs) x (panel), so that the micro-kernel (simd-inl.h) reads it in order.
//
// `gram`, where it is not null, receives the sum over the tile's pixels of y y', the partial sum of
// S = X'X that the next S-MSA needs: padded x padded, only entries [i][j] with j >= i are valid.
// `work` is scratch memory of as many floats as the *Work function says. Every pixel is computed by
// the same operations in the same order wherever a tile's edges lie.
#pragma once

#include <string>
#include <vector>

#include "cpu/aligned_buffer.h"
#include "cpu/map.h"
#include "model/tensor.h"
#include "mstpp/engine.h"

namespace mstpp::cpu {

size_t PanelWidth();       // floats
std::string TargetName();  // e.g. "AVX2"

// A rows x columns matrix in panels of columns: element (k, n) of the product x * matrix, padded
// with zeros to whole panels.
class Panels {
 public:
  Panels() = default;
  Panels(size_t rows, size_t columns);
  void Set(size_t row, size_t column, float value) { data_.data()[Index(row, column)] = value; }
  const float* panel(size_t i) const { return data_.data() + i * rows_ * width_; }
  size_t rows() const { return rows_; }
  size_t count() const { return count_; }
  void Zero();

 private:
  size_t Index(size_t row, size_t column) const {
    return (column / width_ * rows_ + row) * width_ + column % width_;
  }
  size_t rows_ = 0, width_ = 0, count_ = 0;
  AlignedBuffer data_;
};

// Depthwise 3x3 weights: for each vector of channels its nine taps.
AlignedBuffer PackDepthwise(const Tensor& weight);

struct Conv3x3Weights {
  explicit Conv3x3Weights(const Tensor& weight);
  bool winograd = false;  // F(2x2, 3x3): 16 matrices of in x out; else 9, one a tap
  size_t in = 0, out = 0;
  std::vector<Panels> taps;
};
// Where the residual of a convolution comes from: a map, or another convolution of three channels,
// cheaper to do again than to keep.
struct Residual {
  const Map* map = nullptr;
  const Conv3x3Weights* weights = nullptr;
  const Map* input = nullptr;
};
size_t Conv3x3Work(const Conv3x3Weights& weights);
// y = conv(x) + residual. Tiles have even edges. If `planes` is given, the tile goes there (image 0
// of it; what lies beyond its height and width is dropped) instead of to y.
void Conv3x3(const Conv3x3Weights& weights, const Map& x, const Residual& residual, const Map& y,
             const MutableTensorView* planes, const Tile& tile, float* gram, float* work);

struct SpectralAttentionWeights {
  SpectralAttentionWeights(const StateDict& tensors, const std::string& name, int heads);
  int heads = 0;
  size_t channels = 0;
  std::vector<double> q, k, v, project, rescale;  // PyTorch's, row-major
  std::vector<double> q_transposed;
  Panels value;                       // Wv'
  AlignedBuffer bias, first, second;  // proj.bias; pos_emb.0 and .2
};
size_t SpectralAttentionWork(const SpectralAttentionWeights& weights);
// M' from S = X'X (row-major channels x channels, both triangles) into panels.
void AttentionMatrix(const SpectralAttentionWeights& weights, const std::vector<double>& gram,
                     std::vector<double>& scratch, Panels& product);
// y = x + X M' + bias + pos_emb(V). `product` is what AttentionMatrix gave.
void SpectralAttention(const SpectralAttentionWeights& weights, const Panels& product, const Map& x,
                       const Map& y, const Tile& tile, float* work);

struct FeedForwardWeights {
  FeedForwardWeights(const StateDict& tensors, const std::string& name);
  size_t channels = 0, hidden = 0;
  Panels expand;       // W1 diag(gain)
  AlignedBuffer bias;  // W1 times the LayerNorm's bias
  AlignedBuffer depthwise;
  Panels project;  // W2
};
size_t FeedForwardWork(const FeedForwardWeights& weights);
void FeedForward(const FeedForwardWeights& weights, const Map& x, const Map& y, const Tile& tile,
                 float* gram, float* work);

struct DownsampleWeights {
  // `even`: the output's height and width always are.
  DownsampleWeights(const Tensor& weight, bool even);
  bool winograd = false;  // F(2x2, 2x2): 9 matrices of (4 phases x in) x out; else 16, one a tap
  size_t in = 0, out = 0;
  std::vector<Panels> taps;
};
size_t DownsampleWork(const DownsampleWeights& weights);
void Downsample(const DownsampleWeights& weights, const Map& x, const Map& y, const Tile& tile,
                float* gram, float* work);

struct UpsampleFuseWeights {
  UpsampleFuseWeights(const Tensor& up, const Tensor& bias, const Tensor& fusion);
  size_t in = 0, out = 0;
  std::vector<Panels> up;  // 4: output (2y + a, 2x + b) is up[2a + b]
  Panels skip;
  AlignedBuffer bias;
};
size_t UpsampleFuseWork(const UpsampleFuseWeights& weights);
// The tile is of the output and has even edges; y may be the skip itself.
void UpsampleFuse(const UpsampleFuseWeights& weights, const Map& x, const Map& skip, const Map& y,
                  const Tile& tile, float* gram, float* work);

}  // namespace mstpp::cpu
