// SPDX-License-Identifier: Apache-2.0
// The plain tensor operations that the blocks of a network come apart into (lower.h). A target that
// takes a network apart, as an ONNX graph does, implements them: one method an op.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/tensor.h"

namespace mstpp {

// Feature maps are N x channels x height x width. Every op has a name of its own; the value that it
// returns is known by the same name.
class Primitives {
 public:
  using Id = int;  // a value
  static constexpr Id kNone = -1;

  // A network in 16-bit arithmetic is not 16-bit everywhere: what is wide stays float32.
  enum class Width { kNetwork, kWide };

  struct ConvShape {
    int stride = 1;
    int padding = 0;  // zeros on all four sides
    int64_t groups = 1;
  };

  virtual ~Primitives() = default;

  // The elements of `tensor` in another shape, if one is given. What is no weight of the state
  // dictionary but made of one has a slash in its name.
  virtual Id Weight(const std::string& name, const Tensor& tensor,
                    const std::vector<int64_t>& shape = {}, Width width = Width::kNetwork) = 0;

  virtual Id Conv(const std::string& name, Id x, Id weight, Id bias, const ConvShape& shape) = 0;
  // A kernel as large as the stride, so that nothing overlaps.
  virtual Id ConvTranspose(const std::string& name, Id x, Id weight, Id bias, int stride) = 0;
  // Products of the last two axes; the others broadcast.
  virtual Id MatMul(const std::string& name, Id a, Id b) = 0;
  virtual Id MatMulTransposed(const std::string& name, Id a, Id b) = 0;  // a b'

  virtual Id Add(const std::string& name, Id a, Id b) = 0;  // these three broadcast
  virtual Id Mul(const std::string& name, Id a, Id b) = 0;
  virtual Id Div(const std::string& name, Id a, Id b) = 0;
  virtual Id Gelu(const std::string& name, Id x) = 0;  // x/2 (1 + erf(x / sqrt 2))

  // Over the channels of each pixel; epsilon 1e-5, computed wide. Gain and bias: channels.
  virtual Id LayerNorm(const std::string& name, Id x, const std::string& gain_name,
                       const Tensor& gain, const std::string& bias_name, const Tensor& bias) = 0;
  // These work along the last axis, the second and third keep it with an extent of 1.
  virtual Id Softmax(const std::string& name, Id x) = 0;
  virtual Id Norm(const std::string& name, Id x) = 0;  // sqrt of the sum of squares, >= 1e-12
  virtual Id Sum(const std::string& name, Id x) = 0;
  virtual Id SqrtOfAtLeast(const std::string& name, Id x, float least) = 0;

  // 0 keeps the extent at its place, one -1 takes what is left.
  virtual Id Reshape(const std::string& name, Id x, const std::vector<int64_t>& shape) = 0;
  // Back to a feature map, of the size that `map` has: level `level` of the network.
  virtual Id ReshapeToMap(const std::string& name, Id x, Id map, int channels, int level) = 0;
  virtual Id ConcatChannels(const std::string& name, Id a, Id b) = 0;

  // To float32, and back to the arithmetic of the network; nothing if that is float32.
  virtual Id Widen(const std::string& name, Id x) = 0;
  virtual Id Narrow(const std::string& name, Id x) = 0;

  // Called when a block is complete, before its output `y` is used. `name` is the block's PyTorch
  // name, and the name of `y`.
  virtual void EndBlock(const std::string& name, Id y) = 0;
};

}  // namespace mstpp
