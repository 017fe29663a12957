// SPDX-License-Identifier: Apache-2.0
// The ONNX graphs that are written, by what they hold; tests/python/test_onnx.py runs them.
#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "core/half.h"
#include "model/network.h"
#include "mstpp/error.h"
#include "mstpp/model.h"
#include "onnx/builder.h"
#include "onnx/export.h"
#include "onnx_testing.h"

namespace mstpp::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const Model& Small() {
  static const Model model = Model::Random({.bands = 4, .stages = 2, .blocks = {1, 1}}, 5);
  return model;
}

onnx::Graph GraphOf(const OnnxOptions& options) {
  return ParseOnnx(BuildOnnx(Small(), options)).graph();
}

std::map<std::string, int> CountOps(const onnx::Graph& graph) {
  std::map<std::string, int> counts;
  for (const onnx::Node& node : graph.node()) ++counts[node.op_type()];
  return counts;
}

std::string ExtentsOf(const onnx::ValueInfo& value) {
  std::string extents;
  for (const onnx::Dimension& d : value.type().tensor_type().shape().dim()) {
    extents += (extents.empty() ? "" : " ") +
               (d.has_dim_value() ? std::to_string(d.dim_value()) : d.dim_param());
  }
  return extents;
}

TEST(OnnxExport, InputsAndOutputs) {
  struct Case {
    OnnxOptions options;
    const char* input;
    const char* output;
  };
  const Case cases[] = {
      {{}, "batch 3 height width", "batch 4 height width"},
      {{.crop = false}, "batch 3 height width", "batch 4 padded_height padded_width"},
      {{.padding = std::nullopt}, "batch 3 height width", "batch 4 height width"},
      {{.batch = 2, .height = 13, .width = 16}, "2 3 13 16", "2 4 13 16"},
      {{.height = 13, .width = 16, .crop = false}, "batch 3 13 16", "batch 4 16 16"},
      {{.precision = Precision::kFP16}, "batch 3 height width", "batch 4 height width"},
  };
  for (const Case& c : cases) {
    const onnx::Graph graph = GraphOf(c.options);
    ASSERT_EQ(graph.input_size(), 1);
    ASSERT_EQ(graph.output_size(), 1);
    EXPECT_EQ(graph.input(0).name(), "input");
    EXPECT_EQ(graph.output(0).name(), "output");
    EXPECT_EQ(ExtentsOf(graph.input(0)), c.input);
    EXPECT_EQ(ExtentsOf(graph.output(0)), c.output);
    EXPECT_EQ(graph.output(0).type().tensor_type().elem_type(), onnx::Tensor::FLOAT);
  }
}

// Every value has one maker and every reader a maker before it; whatever is made is read.
TEST(OnnxExport, GraphsAreWhole) {
  for (AttentionForm form : {AttentionForm::kPublished, AttentionForm::kRestructured}) {
    for (Precision precision : {Precision::kFP32, Precision::kFP16}) {
      for (int opset : {13, 17}) {
        for (bool taps : {false, true}) {
          const onnx::Graph graph =
              GraphOf({.opset = opset, .precision = precision, .form = form, .taps = taps});
          std::set<std::string> made{"input"}, read, nodes;
          for (const onnx::Tensor& tensor : graph.initializer()) {
            EXPECT_TRUE(made.insert(tensor.name()).second) << tensor.name();
          }
          for (const onnx::Node& node : graph.node()) {
            EXPECT_TRUE(nodes.insert(node.name()).second) << node.name();
            for (const std::string& input : node.input()) {
              EXPECT_TRUE(made.contains(input)) << node.name() << " reads " << input;
              read.insert(input);
            }
            EXPECT_TRUE(made.insert(node.output(0)).second) << node.output(0);
          }
          for (const onnx::ValueInfo& output : graph.output()) read.insert(output.name());
          EXPECT_EQ(made, read);
        }
      }
    }
  }
}

TEST(OnnxExport, FixedSizesNeedNoShapeArithmetic) {
  for (AttentionForm form : {AttentionForm::kPublished, AttentionForm::kRestructured}) {
    auto ops = CountOps(GraphOf({.height = 13, .width = 16, .form = form}));
    for (const char* op : {"Shape", "Gather", "Mod", "Cast", "Identity", "Unsqueeze"}) {
      EXPECT_EQ(ops[op], 0) << op;
    }
    EXPECT_EQ(ops["Pad"], 1);
    EXPECT_EQ(ops["Slice"], 1);
    ops = CountOps(GraphOf({.height = 16, .width = 16, .form = form}));
    EXPECT_EQ(ops["Pad"] + ops["Slice"], 0) << "16 x 16 need no padding";
    ops = CountOps(GraphOf({.padding = std::nullopt, .form = form}));
    EXPECT_EQ(ops["Pad"] + ops["Slice"] + ops["Mod"], 0);
  }
}

// Two around each LayerNormalization, none below opset 17; one for KQ' or XX'. None of a constant.
TEST(OnnxExport, TransposesAreFew) {
  constexpr int kBlocks = 6;  // 2 stages of 3 attention blocks
  for (AttentionForm form : {AttentionForm::kPublished, AttentionForm::kRestructured}) {
    EXPECT_EQ(CountOps(GraphOf({.opset = 17, .form = form}))["Transpose"], kBlocks * 3);
    EXPECT_EQ(CountOps(GraphOf({.opset = 13, .form = form}))["Transpose"], kBlocks);
  }
}

TEST(OnnxExport, NoNodeMovesAConstant) {
  for (AttentionForm form : {AttentionForm::kPublished, AttentionForm::kRestructured}) {
    const onnx::Graph graph = GraphOf({.form = form});
    std::set<std::string> constants;
    for (const onnx::Tensor& tensor : graph.initializer()) constants.insert(tensor.name());
    for (const onnx::Node& node : graph.node()) {
      for (const char* op : {"Reshape", "Transpose", "Cast", "Slice", "Identity"}) {
        EXPECT_FALSE(node.op_type() == op && constants.contains(node.input(0))) << node.name();
      }
    }
  }
}

TEST(OnnxExport, LayerNormalizationFromOpset17On) {
  EXPECT_EQ(CountOps(GraphOf({.opset = 17}))["LayerNormalization"], 6);
  for (int opset : {13, 14, 15, 16}) {
    const onnx::Model model = ParseOnnx(BuildOnnx(Small(), {.opset = opset}));
    EXPECT_EQ(model.opset_import(0).version(), opset);
    EXPECT_EQ(CountOps(model.graph())["LayerNormalization"], 0);
    EXPECT_EQ(CountOps(model.graph())["Erf"], 18);
  }
}

TEST(OnnxExport, NodesAndTapsHavePyTorchNames) {
  const onnx::Graph graph = GraphOf({.taps = true});
  std::set<std::string> nodes, outputs;
  for (const onnx::Node& node : graph.node()) nodes.insert(node.name());
  for (const onnx::ValueInfo& output : graph.output()) outputs.insert(output.name());
  const std::string block = "body.0.encoder_layers.0.0.blocks.0.";
  for (const std::string& name :
       {std::string("conv_in"), block + "0.to_q", block + "0.pos_emb.2", block + "1.fn.net.4",
        std::string("body.1.decoder_layers.0.1"), std::string("conv_out")}) {
    EXPECT_THAT(nodes, Contains(name));
  }
  EXPECT_EQ(outputs.size(), Small().network().graph.nodes.size() + 1);
  for (const Node& node : Small().network().graph.nodes) {
    EXPECT_THAT(outputs, Contains(node.tap_name()));
  }
}

TEST(OnnxExport, Properties) {
  const onnx::Model model = ParseOnnx(BuildOnnx(Small(), {.form = AttentionForm::kRestructured}));
  std::map<std::string, std::string> properties;
  for (const onnx::Property& property : model.metadata_props()) {
    properties[property.key()] = property.value();
  }
  EXPECT_EQ(model.producer_name(), "mstpp");
  EXPECT_EQ(properties["name"], Small().name());
  EXPECT_EQ(properties["scaling"], "unit");
  EXPECT_EQ(properties["weights_sha256"], Small().weights_sha256());
  EXPECT_EQ(properties["attention"], "restructured");
  EXPECT_EQ(properties["padding"], "reflect");
}

// What depends on sums over pixels is computed wide.
TEST(OnnxExport, HalfPrecisionKeepsSumsWide) {
  for (AttentionForm form : {AttentionForm::kPublished, AttentionForm::kRestructured}) {
    const onnx::Graph graph = GraphOf({.precision = Precision::kFP16, .form = form});
    std::map<std::string, int> type;
    for (const onnx::Tensor& tensor : graph.initializer()) type[tensor.name()] = tensor.data_type();
    const std::string block = "body.0.encoder_layers.0.0.blocks.0.";
    EXPECT_EQ(type[block + "0.rescale"], onnx::Tensor::FLOAT);
    EXPECT_EQ(type[block + "0.to_v.weight"], onnx::Tensor::FLOAT16);
    EXPECT_EQ(type[block + "1.fn.net.0.weight"], onnx::Tensor::FLOAT16);
    EXPECT_EQ(type[block + "0.to_q.weight"],
              form == AttentionForm::kRestructured ? onnx::Tensor::FLOAT : onnx::Tensor::FLOAT16);
  }
}

TEST(OnnxExport, RefusesWhatHasNoMeaning) {
  const auto failure = [](const OnnxOptions& options) -> std::string {
    try {
      BuildOnnx(Small(), options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(failure({.opset = 12}), HasSubstr("from 13 to 17"));
  EXPECT_THAT(failure({.opset = 18}), HasSubstr("from 13 to 17"));
  EXPECT_THAT(failure({.batch = -1}), HasSubstr("batch"));
  EXPECT_THAT(failure({.height = 16}), HasSubstr("size"));
  EXPECT_THAT(failure({.height = -8, .width = 8}), HasSubstr("size"));
  EXPECT_THAT(failure({.height = INT64_MAX, .width = 8}), HasSubstr("size"));
  EXPECT_THAT(failure({.height = 13, .width = 16, .padding = std::nullopt}),
              HasSubstr("multiples of 8"));
  EXPECT_THAT(failure({.height = 4, .width = 16}), HasSubstr("--pad zero"));
  EXPECT_THAT(failure({.precision = Precision::kBF16}), HasSubstr("fp32 or fp16"));
}

TEST(OnnxExport, RefusesWeightsBeyondHalf) {
  OnnxBuilder builder({.half = true});
  EXPECT_NO_THROW(builder.Weight("w", {{1}, {-65519.0F}}, {}, Primitives::Width::kNetwork));
  EXPECT_THROW(builder.Weight("w", {{1}, {65520.0F}}, {}, Primitives::Width::kNetwork), Error);
}

// All halves there are, and the midpoints between neighbours.
TEST(Half, RoundsToNearestEven) {
  const auto value = [](uint32_t bits) {
    const int exponent = static_cast<int>(bits >> 10);
    const float mantissa = static_cast<float>(bits & 0x3FFU);
    return exponent == 0 ? std::ldexp(mantissa, -24)
                         : std::ldexp(mantissa + 1024.0F, exponent - 25);
  };
  for (uint32_t bits = 0; bits < 0x7C00; ++bits) {
    const float low = value(bits), high = value(bits + 1);
    const float middle = low + (high - low) / 2;
    ASSERT_EQ(ToHalf(low), bits);
    ASSERT_EQ(ToHalf(-low), bits | 0x8000U);
    ASSERT_EQ(ToHalf(middle), bits + (bits & 1U)) << bits;
    ASSERT_EQ(ToHalf(std::nextafter(middle, 0.0F)), bits) << bits;
    ASSERT_EQ(ToHalf(std::nextafter(middle, high)), bits + 1) << bits;
  }
  EXPECT_EQ(ToHalf(INFINITY), 0x7C00);
  EXPECT_EQ(ToHalf(NAN) & 0x7C00, 0x7C00);
  EXPECT_NE(ToHalf(NAN) & 0x3FF, 0);
}

}  // namespace
}  // namespace mstpp::testing
