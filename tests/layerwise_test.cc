// SPDX-License-Identifier: Apache-2.0
// Two engines in lock step: the first block that differs is the one that was changed.
#include "report/layerwise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "backend_testing.h"
#include "model/network.h"
#include "mstpp/error.h"
#include "weights/weights.h"

namespace mstpp {
namespace {

using mstpp::testing::Array;
using mstpp::testing::RandomArray;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Config kSmall{.stages = 2, .blocks = {1, 1}};

Model Small() { return Model::Random(kSmall, 7); }

// A copy whose tensor `name` is `factor` times as large.
Model WithScaled(const Model& model, const std::string& name, float factor) {
  StateDict tensors = model.network().tensors;
  for (float& value : tensors.at(name).data) value *= factor;
  const std::string path = ::testing::TempDir() + "mstpp_layerwise.safetensors";
  WriteSafetensors(path, tensors, {});
  return Model::Load(path);
}

std::vector<BlockError> CompareBlocks(const Engine& a, const Engine& b, const Array& input) {
  LayerwiseComparison comparison(a, b);
  Array out_a(1, 31, input.h, input.w), out_b(1, 31, input.h, input.w);
  comparison.Run(input.view(), out_a.view(), out_b.view());
  Array expected(1, 31, input.h, input.w);
  a.Run(input.view(), expected.view());
  EXPECT_EQ(out_a.data, expected.data);
  b.Run(input.view(), expected.view());
  EXPECT_EQ(out_b.data, expected.data);
  return comparison.blocks();
}

TEST(Layerwise, EveryBlockInTheOrderTheyRun) {
  const Model model = Small();
  const Engine a(model, {.device = "reference"}), b(model, {.device = "reference"});
  const std::vector<BlockError> blocks = CompareBlocks(a, b, RandomArray(1, 3, 13, 18, 1));
  ASSERT_EQ(blocks.size(), 1U + 2 * 10 + 1);
  EXPECT_EQ(blocks.front().name, "conv_in");
  EXPECT_EQ(blocks.back().name, "conv_out");
  std::vector<std::string> names;
  for (size_t i = 1; i <= 10; ++i) names.push_back(blocks[i].name);
  EXPECT_THAT(names,
              ElementsAre("body.0.embedding", "body.0.encoder_layers.0.0.blocks.0.0",
                          "body.0.encoder_layers.0.0.blocks.0.1", "body.0.encoder_layers.0.1",
                          "body.0.bottleneck.blocks.0.0", "body.0.bottleneck.blocks.0.1",
                          "body.0.decoder_layers.0.1", "body.0.decoder_layers.0.2.blocks.0.0",
                          "body.0.decoder_layers.0.2.blocks.0.1", "body.0.mapping"));
  for (const BlockError& block : blocks) {
    EXPECT_EQ(block.error.max(), 0) << block.name;
    EXPECT_EQ(block.error.count(), block.channels * block.height * block.width) << block.name;
  }
  EXPECT_EQ(blocks.front().height, 16);
  EXPECT_EQ(blocks.front().width, 24);
}

TEST(Layerwise, NamesTheBlockWhoseLayerNormChanged) {
  const Model model = Small();
  const std::string block = "body.1.encoder_layers.0.0.blocks.0.1";
  const Model changed = WithScaled(model, block + ".norm.weight", 1.01F);
  for (const char* device : {"reference", "cpu"}) {
    const Engine a(changed, {.device = "cpu"}), b(model, {.device = device});
    bool departed = false;
    for (const BlockError& error : CompareBlocks(a, b, RandomArray(1, 3, 16, 24, 2))) {
      departed = departed || error.name == block;
      EXPECT_EQ(error.error.Within(1e-6, 1e-5), !departed) << error.name;
    }
  }
}

TEST(Layerwise, ImagesAddUp) {
  const Model model = Small();
  const Engine a(model, {.device = "cpu"}), b(model, {.device = "reference"});
  LayerwiseComparison comparison(a, b);
  for (const unsigned seed : {1U, 2U, 3U}) {
    const Array input = RandomArray(1, 3, 8, 8, seed);
    Array out_a(1, 31, 8, 8), out_b(1, 31, 8, 8);
    comparison.Run(input.view(), out_a.view(), out_b.view());
  }
  EXPECT_EQ(comparison.blocks().front().error.count(), 3 * 31 * 8 * 8);
}

TEST(Layerwise, OtherNetworksAreRefused) {
  const Engine a(Small(), {.device = "cpu"});
  const Engine b(Model::Random({.stages = 1, .blocks = {1, 1}}, 7), {.device = "cpu"});
  try {
    const LayerwiseComparison comparison(a, b);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr("another network"));
  }
}

// One side pads by reflection, which such a small picture does not have, and fails; the other must
// not wait for it for ever. In either order.
TEST(Layerwise, AFailureEndsBoth) {
  const Model model = Small();
  const Engine fails(model, {.device = "cpu"});
  const Engine runs(model, {.device = "cpu", .padding = Padding::kZero});
  const Array input = RandomArray(1, 3, 3, 8, 4);
  Array out_a(1, 31, 3, 8), out_b(1, 31, 3, 8);
  for (const auto& [a, b] : {std::pair(&fails, &runs), std::pair(&runs, &fails)}) {
    LayerwiseComparison comparison(*a, *b);
    EXPECT_THROW(comparison.Run(input.view(), out_a.view(), out_b.view()), Error);
  }
  // The one that was abandoned still works.
  runs.Run(input.view(), out_a.view());
  EXPECT_TRUE(std::isfinite(out_a.data.front()));
}

}  // namespace
}  // namespace mstpp
