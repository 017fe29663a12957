// SPDX-License-Identifier: Apache-2.0
// Weights out of ONNX files: this program's own, PyTorch's, simplified and damaged ones.
#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <vector>

#include "model/network.h"
#include "mstpp/error.h"
#include "mstpp/model.h"
#include "onnx/export.h"
#include "onnx_testing.h"

namespace mstpp::testing {
namespace {

using ::testing::HasSubstr;

const Model& Seed0() {
  static const Model model = Model::Load(GoldenFile("mstpp_seed0.pth"));
  return model;
}

// Weights unlike the initial ones, so that no two of a network's are equal.
const Model& Drawn() {
  static const Model model = Model::Random({.stages = 2, .blocks = {1, 2, 1}}, 7);
  return model;
}

// The same file with nothing that tells who wrote it.
std::string Anonymous(const std::string& bytes) {
  onnx::Model model = ParseOnnx(bytes);
  model.clear_producer_name();
  model.clear_metadata_props();
  for (onnx::Node& node : *model.mutable_graph()->mutable_node()) node.clear_name();
  return model.SerializeAsString();
}

void ExpectError(const std::string& bytes, ErrorCode code, const std::string& part) {
  try {
    ReadOnnxBytes(bytes);
    ADD_FAILURE() << "was read; expected: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(part));
  }
}

TEST(OnnxRead, PyTorchExportsHoldTheCheckpointsWeights) {
  for (const char* kind : {"raw", "simplified"}) {
    const Model model =
        Model::Load(GoldenFile(std::string("mstpp_seed0_1x3x24x40_") + kind + ".onnx"));
    EXPECT_EQ(model.config(), Seed0().config()) << kind;
    EXPECT_EQ(Difference(model.network().tensors, Seed0().network().tensors), "") << kind;
  }
}

TEST(OnnxRead, OwnExportsHoldTheirWeights) {
  for (AttentionForm form : {AttentionForm::kPublished, AttentionForm::kRestructured}) {
    for (int opset : {13, 17}) {
      for (bool taps : {false, true}) {
        const std::string bytes = BuildOnnx(Drawn(), {.opset = opset, .form = form, .taps = taps});
        EXPECT_EQ(Difference(ReadOnnxBytes(bytes).tensors, Drawn().network().tensors), "");
      }
    }
  }
}

TEST(OnnxRead, OwnExportsKeepMetadata) {
  const WeightsFile file = ReadOnnxBytes(BuildOnnx(Drawn(), {}));
  EXPECT_EQ(file.format, "onnx");
  EXPECT_EQ(file.metadata.at("name"), Drawn().name());
  EXPECT_EQ(file.metadata.at("scaling"), Drawn().scaling());
  EXPECT_EQ(file.metadata.at("weights_sha256"), Drawn().weights_sha256());
  EXPECT_THAT(file.metadata.at("wavelengths_nm"), HasSubstr("400,410,"));
  EXPECT_FALSE(file.metadata.contains("weights_checksum"));
}

TEST(OnnxRead, HalfPrecisionRoundsOnce) {
  for (AttentionForm form : {AttentionForm::kPublished, AttentionForm::kRestructured}) {
    const StateDict tensors =
        ReadOnnxBytes(BuildOnnx(Drawn(), {.precision = Precision::kFP16, .form = form})).tensors;
    ASSERT_EQ(tensors.size(), Drawn().network().tensors.size());
    for (const auto& [name, tensor] : Drawn().network().tensors) {
      ASSERT_EQ(tensors.at(name).shape, tensor.shape) << name;
      for (size_t i = 0; i < tensor.data.size(); ++i) {
        const float bound = std::max(std::abs(tensor.data[i]) * 0x1p-11F, 0x1p-25F);
        ASSERT_NEAR(tensors.at(name).data[i], tensor.data[i], bound) << name << " " << i;
      }
    }
  }
}

// The published form is known by its structure alone.
// As many bytes of another type, as many elements of another shape: no reader could tell otherwise.
TEST(OnnxRead, TypesAndShapesAreUnderTheChecksum) {
  const auto with = [](Precision precision, const std::function<void(onnx::Tensor&)>& change) {
    onnx::Model model = ParseOnnx(BuildOnnx(Drawn(), {.precision = precision}));
    for (onnx::Tensor& tensor : *model.mutable_graph()->mutable_initializer()) {
      if (tensor.name() == "body.1.embedding.weight") change(tensor);
    }
    return model.SerializeAsString();
  };
  EXPECT_NO_THROW(ReadOnnxBytes(with(Precision::kFP16, [](onnx::Tensor&) {})));
  ExpectError(with(Precision::kFP16,
                   [](onnx::Tensor& tensor) { tensor.set_data_type(onnx::Tensor::BFLOAT16); }),
              ErrorCode::kCorrupt, "their checksum is another");
  ExpectError(with(Precision::kFP32,
                   [](onnx::Tensor& tensor) {
                     const int64_t rows = tensor.dims(2);
                     tensor.mutable_dims()->RemoveLast();
                     tensor.set_dims(2, rows * rows);
                   }),
              ErrorCode::kCorrupt, "their checksum is another");
}

TEST(OnnxRead, NamesDoNotMatterInThePublishedForm) {
  for (int opset : {13, 17}) {
    const std::string bytes = Anonymous(BuildOnnx(Drawn(), {.opset = opset}));
    EXPECT_EQ(Difference(ReadOnnxBytes(bytes).tensors, Drawn().network().tensors), "") << opset;
  }
  const std::string raw = Slurp(GoldenFile("mstpp_seed0_1x3x24x40_raw.onnx"));
  EXPECT_EQ(Difference(ReadOnnxBytes(Anonymous(raw)).tensors, Seed0().network().tensors), "");
}

TEST(OnnxRead, RestructuredFormNeedsItsNames) {
  onnx::Model model = ParseOnnx(BuildOnnx(Drawn(), {.form = AttentionForm::kRestructured}));
  for (onnx::Tensor& tensor : *model.mutable_graph()->mutable_initializer()) {
    if (tensor.name() != "conv_out.weight") continue;
    tensor.set_name("other");
  }
  for (onnx::Node& node : *model.mutable_graph()->mutable_node()) {
    for (std::string& input : *node.mutable_input()) {
      if (input == "conv_out.weight") input = "other";
    }
  }
  ExpectError(model.SerializeAsString(), ErrorCode::kUnsupported, "published form");
}

// As simplifiers leave it: queries, keys and values in one product, divided by a Split.
TEST(OnnxRead, JoinedProductsAreDivided) {
  onnx::Model model = ParseOnnx(Slurp(GoldenFile("mstpp_seed0_1x3x24x40_raw.onnx")));
  onnx::Graph& graph = *model.mutable_graph();
  std::map<std::string, onnx::Tensor*> constants;
  for (onnx::Tensor& tensor : *graph.mutable_initializer()) constants[tensor.name()] = &tensor;
  google::protobuf::RepeatedPtrField<onnx::Node> nodes;
  int joined = 0;
  for (int i = 0; i < graph.node_size(); ++i) {
    const onnx::Node& node = graph.node(i);
    if (!node.name().ends_with("to_q/MatMul")) {
      *nodes.Add() = node;
      continue;
    }
    onnx::Tensor& all = *constants.at(node.input(1));  // queries' takes in keys' and values'
    const int64_t c = all.dims(0);
    std::vector<std::string> parts;
    onnx::Node split;
    for (int j = 0; j < 3; ++j) {
      parts.push_back(constants.at(graph.node(i + j).input(1))->raw_data());
      split.add_output(graph.node(i + j).output(0));
      if (j > 0) constants.at(graph.node(i + j).input(1))->set_name("unused");
    }
    std::string rows;
    const size_t row = static_cast<size_t>(c) * sizeof(float);
    for (int64_t r = 0; r < c; ++r) {
      for (const std::string& part : parts) rows.append(part, static_cast<size_t>(r) * row, row);
    }
    all.set_raw_data(rows);
    all.set_dims(1, 3 * c);
    onnx::Node& product = *nodes.Add();
    product = node;
    product.set_output(0, node.output(0) + "/joined");
    split.set_op_type("Split");
    split.add_input(product.output(0));
    *nodes.Add() = split;
    i += 2;
    ++joined;
  }
  graph.mutable_node()->Swap(&nodes);
  for (int i = graph.initializer_size() - 1; i >= 0; --i) {
    if (graph.initializer(i).name() == "unused") graph.mutable_initializer()->DeleteSubrange(i, 1);
  }
  EXPECT_EQ(joined, 15);
  EXPECT_EQ(Difference(ReadOnnxBytes(model.SerializeAsString()).tensors, Seed0().network().tensors),
            "");
}

// One change to a small file each, and what is said of it.
class OnnxReadHostile : public ::testing::Test {
 protected:
  const Model network_ = Model::Random({.bands = 4, .stages = 1, .blocks = {1, 1}}, 3);
  onnx::Model model_ = ParseOnnx(Anonymous(BuildOnnx(network_, {})));
  onnx::Graph& graph_ = *model_.mutable_graph();

  onnx::Tensor& Weight(const std::string& name) {
    for (onnx::Tensor& tensor : *graph_.mutable_initializer()) {
      if (tensor.name() == name) return tensor;
    }
    ADD_FAILURE() << name;
    return *graph_.add_initializer();
  }
  onnx::Node& Op(const std::string& op, int skip = 0) {
    for (onnx::Node& node : *graph_.mutable_node()) {
      if (node.op_type() == op && skip-- == 0) return node;
    }
    ADD_FAILURE() << op;
    return *graph_.add_node();
  }
  void Expect(ErrorCode code, const std::string& part) {
    ExpectError(model_.SerializeAsString(), code, part);
  }
};

TEST_F(OnnxReadHostile, ExternalData) {
  Weight("conv_in.weight").set_data_location(1);
  Expect(ErrorCode::kUnsupported, "external data are not read");
}

TEST_F(OnnxReadHostile, SizesThatDoNotFit) {
  const std::string raw = Weight("conv_in.weight").raw_data();
  Weight("conv_in.weight").set_raw_data(raw.substr(4));
  Expect(ErrorCode::kCorrupt, "its shape and its number of bytes disagree");
  Weight("conv_in.weight").set_raw_data(raw);
  for (int64_t extent : {int64_t{-1}, int64_t{0}, INT64_MAX, int64_t{1} << 40}) {
    Weight("conv_in.weight").set_dims(0, extent);
    EXPECT_THROW(ReadOnnxBytes(model_.SerializeAsString()), Error) << extent;
  }
}

TEST_F(OnnxReadHostile, ValuesThatNothingMakes) {
  Op("Softmax").set_input(0, "nowhere");
  Expect(ErrorCode::kCorrupt, "which nothing before it makes");
}

TEST_F(OnnxReadHostile, Loop) {
  Op("Conv").set_input(0, Op("Conv", 3).output(0));
  Expect(ErrorCode::kCorrupt, "which nothing before it makes");
}

TEST_F(OnnxReadHostile, ValueMadeTwice) {
  Op("Conv").set_output(0, Op("Conv", 1).output(0));
  EXPECT_THROW(ReadOnnxBytes(model_.SerializeAsString()), Error);
}

TEST_F(OnnxReadHostile, WeightInAnothersPlace) {
  Op("Conv", 3).set_input(1, Op("Conv", 2).input(1));
  Expect(ErrorCode::kCorrupt, "no node reads the constant");
}

TEST_F(OnnxReadHostile, OtherActivation) {
  Op("Erf").set_op_type("Tanh");
  Expect(ErrorCode::kUnsupported, "GELU");
}

// Nodes that no weight depends on may lack what they like.
TEST_F(OnnxReadHostile, NodesThatLackSomething) {
  const auto clear_input = [](onnx::Node& node) { node.clear_input(); };
  const auto empty_input = [](onnx::Node& node) { node.set_input(0, ""); };
  const auto clear_output = [](onnx::Node& node) { node.clear_output(); };
  const auto other_op = [](onnx::Node& node) { node.set_op_type("Relu"); };
  int refused = 0;
  for (const auto& change : std::vector<std::function<void(onnx::Node&)>>{clear_input, empty_input,
                                                                          clear_output, other_op}) {
    for (int i = 0; i < graph_.node_size(); ++i) {
      onnx::Model changed = model_;
      change(*changed.mutable_graph()->mutable_node(i));
      try {
        const StateDict tensors = ReadOnnxBytes(changed.SerializeAsString()).tensors;
        EXPECT_EQ(Difference(tensors, network_.network().tensors), "") << i;
      } catch (const Error&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 3 * graph_.node_size());
}

TEST_F(OnnxReadHostile, Nan) {
  std::string raw = Weight("conv_in.weight").raw_data();
  raw.replace(0, 4, std::string(4, '\xff'));
  Weight("conv_in.weight").set_raw_data(raw);
  Expect(ErrorCode::kCorrupt, "not a number");
}

// A message of two bytes each.
TEST_F(OnnxReadHostile, ManyMessages) {
  for (int i = 0; i < 1'000'001; ++i) graph_.add_node();
  Expect(ErrorCode::kUnsupported, "more than 1000000 fields");
}

// Each node doubles the ways from the first to the last.
TEST_F(OnnxReadHostile, ManyWays) {
  std::string last = "input";
  google::protobuf::RepeatedPtrField<onnx::Node> nodes;
  for (int i = 0; i < 200; ++i) {
    onnx::Node& node = *nodes.Add();
    node.set_op_type("Expand");
    node.add_input(last);
    node.add_input(last);
    node.add_output(last = "expand" + std::to_string(i));
  }
  nodes.MergeFrom(graph_.node());
  graph_.mutable_node()->Swap(&nodes);
  EXPECT_NO_THROW(ReadOnnxBytes(model_.SerializeAsString()));
}

// All attention blocks of a level share one's weights: a network for the bytes of a block.
TEST_F(OnnxReadHostile, SharedWeights) {
  const std::string blocks = "body.0.bottleneck.blocks.", first = blocks + "0.";
  const Model network = Model::Random({.stages = 1, .blocks = {1, 1, 16}}, 1);
  model_ = ParseOnnx(Anonymous(BuildOnnx(network, {})));
  onnx::Graph& graph = *model_.mutable_graph();
  const auto others = [&](const std::string& name) {
    return name.starts_with(blocks) && !name.starts_with(first);
  };
  google::protobuf::RepeatedPtrField<onnx::Tensor> kept;
  for (const onnx::Tensor& tensor : graph.initializer()) {
    if (!others(tensor.name())) *kept.Add() = tensor;
  }
  graph.mutable_initializer()->Swap(&kept);
  for (onnx::Node& node : *graph.mutable_node()) {
    for (std::string& input : *node.mutable_input()) {
      if (!others(input) || !network.network().tensors.contains(input)) continue;
      input = first + input.substr(input.find('.', blocks.size()) + 1);
    }
  }
  Expect(ErrorCode::kCorrupt, "uses the same constants too often");
}

}  // namespace
}  // namespace mstpp::testing
