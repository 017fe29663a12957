// SPDX-License-Identifier: Apache-2.0
// Every size from 1 x 1 to 40 x 40: the fast backend against the reference, with reflect padding
// where it is defined and zero padding elsewhere.
#include <gtest/gtest.h>

#include "backend_testing.h"
#include "model/padding.h"
#include "mstpp/model.h"

namespace mstpp::testing {
namespace {

constexpr int64_t kLargestSide = 40;
constexpr int kShards = 8;  // so that ctest runs them side by side

class SizesTest : public ::testing::TestWithParam<int> {};

TEST_P(SizesTest, CpuAgreesWithReference) {
  const Model model = Model::Random({.stages = 1}, 20);
  const auto reference = MakeBackend("reference", model);
  const auto cpu = MakeBackend("cpu", model);
  const int64_t multiple = model.config().padding_multiple();
  for (int64_t h = 1 + GetParam(); h <= kLargestSide; h += kShards) {
    for (int64_t w = 1; w <= kLargestSide; ++w) {
      const bool reflect = CanReflect(h, multiple) && CanReflect(w, multiple);
      const Padding padding = reflect ? Padding::kReflect : Padding::kZero;
      const Array input = RandomArray(1, 3, h, w, static_cast<unsigned>(h * 64 + w));
      const Array expected = RunBackend(*reference, model, input, padding);
      const Array output = RunBackend(*cpu, model, input, padding);
      ASSERT_LE(LargestError(output.data, expected.data), 5e-6 * LargestMagnitude(expected.data))
          << h << " x " << w << (reflect ? "" : ", zero padding");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Heights, SizesTest, ::testing::Range(0, kShards));

// The other shapes of the family, at sizes that are not multiples of anything.
TEST(FamilyTest, CpuAgreesWithReference) {
  const Config configs[] = {
      {.in_channels = 1, .bands = 5, .stages = 1, .blocks = {1, 1}},
      {.in_channels = 8, .bands = 28, .stages = 1, .blocks = {1, 1, 1}},
      {.in_channels = 4, .bands = 31, .stages = 2, .blocks = {2, 1, 3}},
      {.in_channels = 3, .bands = 16, .stages = 1, .blocks = {1, 1, 1, 1, 1}},
      {.in_channels = 12, .bands = 33, .stages = 1, .blocks = {1, 1, 1}},
      {.in_channels = 3, .bands = 70, .stages = 1, .blocks = {1, 1}},
  };
  for (const Config& config : configs) {
    const Model model = Model::Random(config, 21);
    const Array input = RandomArray(1, config.in_channels, 37, 75, 22);
    const Array expected = RunBackend(*MakeBackend("reference", model), model, input);
    const Array output = RunBackend(*MakeBackend("cpu", model), model, input);
    EXPECT_LE(LargestError(output.data, expected.data), 5e-6 * LargestMagnitude(expected.data))
        << config.bands << " bands, " << config.levels() << " levels";
  }
}

}  // namespace
}  // namespace mstpp::testing
