// SPDX-License-Identifier: Apache-2.0
// Every backend against the official network's outputs, computed in float64 (tests/data/golden), to
// the tolerances of docs/accuracy.md.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "backend_testing.h"
#include "mstpp/model.h"
#include "weights/weights.h"

namespace mstpp::testing {
namespace {

struct Case {
  const char* weights;
  const char* name;
};

constexpr Case kCases[] = {
    {"cave", "photo_128x128"}, {"cave", "photo_61x90"},
    {"stress", "random_8x8"},  {"stress", "random_24x40"},
    {"stress", "random_5x7"},  {"stress", "batch2_50x37"},
    {"stress", "photo_64x96"}, {"stress_one_stage", "random_24x40"},
};

Model LoadWeights(const std::string& weights) {
  if (weights == "cave") {
    return Model::Load(std::string(MSTPP_SOURCE_DIR) + "/weights/mst_plus_plus_cave.safetensors");
  }
  return Model::Load(GoldenPath(weights + ".pth"));
}

// Largest error allowed; the reference only rounds its float64 result to float32.
double Tolerance(const std::string& backend, const std::string& weights, double largest) {
  if (backend == "reference") return 1e-6 * largest;
  return weights == "cave" ? 5e-6 : 1e-5 * largest;
}

class GoldenTest : public ::testing::TestWithParam<std::tuple<const char*, Case>> {};

TEST_P(GoldenTest, AgreesWithFloat64) {
  const auto& [backend, test_case] = GetParam();
  const std::string stem = std::string(test_case.weights) + "." + test_case.name;
  const Array input = ReadGolden(stem + ".input.npy");
  const Array expected = ReadGolden(stem + ".output.npy");
  const Model model = LoadWeights(test_case.weights);
  const Array output = RunBackend(*MakeBackend(backend, model), model, input);
  const double largest = LargestMagnitude(expected.data);
  const double error = LargestError(output.data, expected.data);
  EXPECT_LE(error, Tolerance(backend, test_case.weights, largest));
  RecordProperty("largest_error", std::to_string(error));
}

INSTANTIATE_TEST_SUITE_P(Backends, GoldenTest,
                         ::testing::Combine(::testing::Values("reference", "cpu"),
                                            ::testing::ValuesIn(kCases)),
                         [](const auto& info) {
                           const Case& c = std::get<1>(info.param);
                           return std::string(std::get<0>(info.param)) + "_" + c.weights + "_" +
                                  c.name;
                         });

// The module whose output in the golden layers is what a tap hands over. A tap of a residual block
// includes its input; PyTorch's module output does not.
class LayersTest : public ::testing::TestWithParam<const char*> {};

bool IsResidualBlock(const std::string& name) { return name.find(".blocks.") != std::string::npos; }

// Golden layers are (1, C, H, W), but for the attention blocks, which are (1, H, W, C).
float GoldenAt(const Tensor& layer, bool channels_last, int64_t c, int64_t y, int64_t x) {
  const auto& s = layer.shape;
  return channels_last ? layer.data[(y * s[2] + x) * s[3] + c]
                       : layer.data[(c * s[2] + y) * s[3] + x];
}

TEST_P(LayersTest, AgreesBlockByBlock) {
  const Model model = LoadWeights("stress_one_stage");
  const StateDict layers =
      ReadWeights(GoldenPath("stress_one_stage.random_24x40.layers.npz"), false).tensors;
  const Array input = ReadGolden("stress_one_stage.random_24x40.input.npy");
  const auto backend = MakeBackend(GetParam(), model);
  const auto scratch = backend->NewScratch();
  Array output(1, 31, input.h, input.w);

  int compared = 0;
  std::vector<float> previous;  // the block before, which residual blocks add
  backend->RunWithTaps(
      input.view(), output.view(), Padding::kReflect, *scratch,
      [&](const std::string& name, const TensorView& value) {
        ASSERT_TRUE(layers.contains(name)) << name;
        const Tensor& layer = layers.at(name);
        const bool residual = IsResidualBlock(name);
        std::vector<float> current;
        double error = 0;
        double largest = 0;
        for (int64_t c = 0; c < value.c; ++c) {
          for (int64_t y = 0; y < value.h; ++y) {
            for (int64_t x = 0; x < value.w; ++x) {
              const float got =
                  value.data[c * value.stride_c + y * value.stride_h + x * value.stride_w];
              current.push_back(got);
              double wanted = GoldenAt(layer, residual, c, y, x);
              if (residual) wanted += previous.at(current.size() - 1);
              // mapping and conv_out add the stage's and the network's input.
              if (name == "body.0.mapping")
                wanted += GoldenAt(layers.at("conv_in"), false, c, y, x);
              if (name == "conv_out") wanted += GoldenAt(layers.at("conv_in"), false, c, y, x);
              const double difference = std::abs(got - wanted);
              error = difference <= error ? error : difference;
              largest = std::max(largest, std::abs(wanted));
            }
          }
        }
        EXPECT_LE(error, 1e-5 * largest) << name;
        previous = std::move(current);
        ++compared;
      });
  // All blocks of one stage: 2 outer convolutions, embedding, mapping, 5 attention blocks of two
  // modules, 2 downsamplings, 2 fusions.
  EXPECT_EQ(compared, 2 + 2 + 10 + 2 + 2);
}

INSTANTIATE_TEST_SUITE_P(Backends, LayersTest, ::testing::Values("reference", "cpu"));

}  // namespace
}  // namespace mstpp::testing
