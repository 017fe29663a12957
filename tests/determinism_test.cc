// SPDX-License-Identifier: Apache-2.0
// The same bits, whatever the number of threads, the batch, the memory layout or the run.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "backend_testing.h"
#include "mstpp/model.h"

namespace mstpp::testing {
namespace {

const Model& TestModel() {
  static const Model model = Model::Random({.stages = 2}, 30);
  return model;
}

TEST(DeterminismTest, SameBitsForAnyNumberOfThreads) {
  const Array input = RandomArray(1, 3, 150, 203, 31);
  const Array one = RunBackend(*MakeBackend("cpu", TestModel(), 1), TestModel(), input);
  for (int threads : {2, 3, 4}) {
    const Array output = RunBackend(*MakeBackend("cpu", TestModel(), threads), TestModel(), input);
    EXPECT_EQ(output.data, one.data) << threads << " threads";
  }
}

TEST(DeterminismTest, SameBitsAloneAndInABatch) {
  const Array batch = RandomArray(3, 3, 50, 37, 32);
  const auto backend = MakeBackend("cpu", TestModel());
  const Array together = RunBackend(*backend, TestModel(), batch);
  const size_t in = batch.data.size() / 3;
  const size_t out = together.data.size() / 3;
  for (size_t i = 0; i < 3; ++i) {
    Array one(1, 3, 50, 37);
    std::copy_n(batch.data.begin() + static_cast<ptrdiff_t>(i * in), in, one.data.begin());
    const Array alone = RunBackend(*backend, TestModel(), one);
    EXPECT_TRUE(std::equal(alone.data.begin(), alone.data.end(),
                           together.data.begin() + static_cast<ptrdiff_t>(i * out)))
        << "image " << i;
  }
}

TEST(DeterminismTest, SameBitsForAnyLayout) {
  const Array input = RandomArray(1, 3, 41, 66, 33);
  const auto backend = MakeBackend("cpu", TestModel());
  const Array expected = RunBackend(*backend, TestModel(), input);
  // Pixels first, both ways.
  std::vector<float> pixels(input.data.size());
  for (int64_t i = 0; i < 41 * 66; ++i) {
    for (int64_t c = 0; c < 3; ++c) pixels[i * 3 + c] = input.data[c * 41 * 66 + i];
  }
  std::vector<float> cube(expected.data.size(), NAN);
  const auto scratch = backend->NewScratch();
  backend->Run(TensorView::Nhwc(pixels.data(), 1, 3, 41, 66),
               MutableTensorView::Nhwc(cube.data(), 1, 31, 41, 66), Padding::kReflect, *scratch);
  for (int64_t i = 0; i < 41 * 66; ++i) {
    for (int64_t c = 0; c < 31; ++c) {
      ASSERT_EQ(cube[i * 31 + c], expected.data[c * 41 * 66 + i]) << "pixel " << i;
    }
  }
}

TEST(DeterminismTest, SameBitsWhenRunsShareAnEngineAndScratchIsReused) {
  const auto backend = MakeBackend("cpu", TestModel(), 2);
  const Array small = RandomArray(1, 3, 24, 40, 34);
  const Array large = RandomArray(1, 3, 90, 61, 35);
  const Array small_expected = RunBackend(*backend, TestModel(), small);
  const Array large_expected = RunBackend(*backend, TestModel(), large);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      const auto scratch = backend->NewScratch();
      for (int i = 0; i < 3; ++i) {
        for (const auto& [input, expected] :
             {std::pair(&small, &small_expected), std::pair(&large, &large_expected)}) {
          Array output(1, 31, input->h, input->w);
          backend->Run(input->view(), output.view(), Padding::kReflect, *scratch);
          EXPECT_EQ(output.data, expected->data);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A tap reads what the run computes; it must not change it.
TEST(DeterminismTest, SameBitsWithTaps) {
  const Array input = RandomArray(1, 3, 30, 50, 36);
  const auto backend = MakeBackend("cpu", TestModel());
  const Array expected = RunBackend(*backend, TestModel(), input);
  Array output(1, 31, 30, 50);
  const auto scratch = backend->NewScratch();
  int taps = 0;
  backend->RunWithTaps(input.view(), output.view(), Padding::kReflect, *scratch,
                       [&](const std::string&, const TensorView&) { ++taps; });
  EXPECT_EQ(output.data, expected.data);
  EXPECT_EQ(taps, 2 + 2 * 16);
}

}  // namespace
}  // namespace mstpp::testing
