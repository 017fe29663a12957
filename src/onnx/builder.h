// SPDX-License-Identifier: Apache-2.0
// Writes an ONNX graph, one method an op. A value has the name of the node that makes it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/primitives.h"
#include "weights/onnx.pb.h"

namespace mstpp {

class OnnxBuilder final : public Primitives {
 public:
  // Sides of the padded picture; 0 where the graph takes any.
  struct MapSize {
    int64_t height = 0, width = 0;
  };
  struct Settings {
    int opset = 17;  // 13 to 17
    bool half =
        false;  // 16-bit arithmetic; the graph's inputs and outputs are float32 all the same
    bool taps = false;  // blocks' outputs are graph outputs
    MapSize size;
  };
  explicit OnnxBuilder(const Settings& settings);

  Id Weight(const std::string& name, const Tensor& tensor, const std::vector<int64_t>& shape,
            Width width) override;
  Id Conv(const std::string& name, Id x, Id weight, Id bias, const ConvShape& shape) override;
  Id ConvTranspose(const std::string& name, Id x, Id weight, Id bias, int stride) override;
  Id MatMul(const std::string& name, Id a, Id b) override;
  Id MatMulTransposed(const std::string& name, Id a, Id b) override;
  Id Add(const std::string& name, Id a, Id b) override;
  Id Mul(const std::string& name, Id a, Id b) override;
  Id Div(const std::string& name, Id a, Id b) override;
  Id Gelu(const std::string& name, Id x) override;
  Id LayerNorm(const std::string& name, Id x, const std::string& gain_name, const Tensor& gain,
               const std::string& bias_name, const Tensor& bias) override;
  Id Softmax(const std::string& name, Id x) override;
  Id Norm(const std::string& name, Id x) override;
  Id Sum(const std::string& name, Id x) override;
  Id SqrtOfAtLeast(const std::string& name, Id x, float least) override;
  Id Reshape(const std::string& name, Id x, const std::vector<int64_t>& shape) override;
  Id ReshapeToMap(const std::string& name, Id x, Id map, int channels, int level) override;
  Id ConcatChannels(const std::string& name, Id a, Id b) override;
  Id Widen(const std::string& name, Id x) override;
  Id Narrow(const std::string& name, Id x) override;
  void EndBlock(const std::string& name, Id y) override;

  // What an input or output extends to: a number, a name for what is not fixed, or nothing.
  using Extents = std::vector<std::string>;
  Id Input(const std::string& name, const Extents& extents);
  void Output(const std::string& name, Id x, const Extents& extents);

  // Padding on the bottom and right: by so many, or up to a multiple whatever the size.
  enum class PadMode { kReflect, kZero };
  Id Pad(const std::string& name, Id x, PadMode mode, int64_t bottom, int64_t right);
  Id PadToMultiple(const std::string& name, Id x, PadMode mode, int64_t multiple);
  Id Crop(const std::string& name, Id x, int64_t height, int64_t width);
  Id CropLike(const std::string& name, Id x, Id picture);

  void AddProperty(const std::string& key, const std::string& value);

  // Adds the properties by which the reader knows the weights that were written.
  void AddChecksum();

  // The file's bytes. Throws Error (kUnsupported) beyond protobuf's 2 GiB.
  std::string Finish(const std::string& graph_name, const std::string& producer_version);

 private:
  struct Value {
    std::string name;
    int rank;
  };

  // Appends a node. Its value's rank is the highest of its inputs'; whoever knows better corrects.
  Id Node(const char* op, const std::string& name, const std::vector<Id>& inputs);
  // An attribute of the last node.
  void Set(const char* name, int64_t value);
  void Set(const char* name, float value);
  void Set(const char* name, const char* value);
  void Set(const char* name, const std::vector<int64_t>& values);

  Id NewValue(const std::string& name, int rank);
  Id Initializer(const std::string& name, const std::vector<int64_t>& shape,
                 onnx::Tensor::Type type, const void* data, size_t bytes);
  Id Integers(const std::vector<int64_t>& values);
  Id Scalar(float value, Width width = Width::kNetwork);
  Id Transpose(const std::string& name, Id x, const std::vector<int64_t>& order);
  Id CastTo(const std::string& name, Id x, onnx::Tensor::Type type);
  Id PadBy(const std::string& name, Id x, PadMode mode, Id pads);
  Id HeightAndWidth(Id x);
  Id LayerNormOp(const std::string& name, Id x, Id gain, Id bias);
  Id LayerNormByParts(const std::string& name, Id x, Id gain, Id bias);
  void Rename(Id x, const std::string& name);  // the value of the last node
  void AddOutput(const std::string& name, const Extents& extents);

  Settings settings_;
  onnx::Model model_;
  onnx::Graph& graph_;
  std::vector<Value> values_;
  std::map<std::string, Id> constants_;  // by what they hold: each is written once
  std::map<Id, Id> sizes_;               // HeightAndWidth of values
  Id exposed_ = kNone;                   // the last block's output, if it is a graph output
};

}  // namespace mstpp
