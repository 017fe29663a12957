// SPDX-License-Identifier: Apache-2.0
// The CUDA backend on a GPU. Without one, only that it says so; the rest skips aloud.
#include "cuda/cuda.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <tuple>

#include "backend_testing.h"
#include "core/half.h"
#include "cuda/device.h"
#include "cuda/program.h"
#include "model/network.h"
#include "model/padding.h"
#include "mstpp/error.h"
#include "mstpp/model.h"

namespace mstpp::testing {
namespace {

enum class Kernels { kBest, kPortable };

std::unique_ptr<Backend> Make(const Model& model, Precision precision,
                              Kernels kernels = Kernels::kBest, bool fp16_transfers = false) {
  Options options;
  options.precision = precision;
  options.fp16_transfers = fp16_transfers;
  return kernels == Kernels::kBest ? CreateCudaBackend(model, options, 0)
                                   : CreatePortableCudaBackend(model, options, 0);
}

TEST(CudaQueryTest, SaysWhatItRunsOnOrWhyNot) {
  const BackendStatus status = QueryCuda(0);
  EXPECT_EQ(status.name, "cuda");
  EXPECT_FALSE(status.detail.empty());
  EXPECT_EQ(status.remedy.empty(), status.usable) << status.detail;
  EXPECT_EQ(status.precisions.empty(), !status.usable);
  const BackendStatus none = QueryCuda(1000);
  EXPECT_FALSE(none.usable);
  EXPECT_FALSE(none.remedy.empty());
}

class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const BackendStatus status = QueryCuda(0);
    if (!status.usable) GTEST_SKIP() << "no usable GPU: " << status.detail;
  }
};

Model LoadWeights(const std::string& weights) {
  if (weights == "cave") {
    return Model::Load(std::string(MSTPP_SOURCE_DIR) + "/weights/mst_plus_plus_cave.safetensors");
  }
  return Model::Load(GoldenPath(weights + ".pth"));
}

double RelativeRms(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double d = static_cast<double>(a[i]) - b[i];
    error += d * d;
    norm += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(error / norm);
}

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

// docs/accuracy.md: the largest error with trained weights, and with the stress weights the largest
// error relative to the largest output (FP32) or the relative root mean square.
struct Tolerance {
  double cave_largest, stress_largest, stress_rms;
};
Tolerance ToleranceOf(Precision precision) {
  switch (precision) {
    case Precision::kFP32:
      return {5e-6, 1e-5, 1e-5};
    case Precision::kTF32:
      return {1e-3, INFINITY, 3e-3};
    case Precision::kFP16:
      return {1.5e-3, INFINITY, 3e-3};
    default:
      return {1e-2, INFINITY, 2.5e-2};
  }
}

class CudaGoldenTest : public CudaTest,
                       public ::testing::WithParamInterface<std::tuple<Precision, Kernels, Case>> {
};

TEST_P(CudaGoldenTest, AgreesWithFloat64) {
  const auto& [precision, kernels, test_case] = GetParam();
  const std::string stem = std::string(test_case.weights) + "." + test_case.name;
  const Array input = ReadGolden(stem + ".input.npy");
  const Array expected = ReadGolden(stem + ".output.npy");
  const Model model = LoadWeights(test_case.weights);
  const Array output = RunBackend(*Make(model, precision, kernels), model, input);
  const double largest = LargestError(output.data, expected.data);
  const double rms = RelativeRms(output.data, expected.data);
  const double scale = LargestMagnitude(expected.data);
  const Tolerance tolerance = ToleranceOf(precision);
  if (std::string(test_case.weights) == "cave") {
    EXPECT_LE(largest, tolerance.cave_largest);
  } else {
    EXPECT_LE(largest / scale, tolerance.stress_largest);
    EXPECT_LE(rms, tolerance.stress_rms);
  }
  std::printf("  largest error %.2e (of %.2f), relative rms %.2e\n", largest, scale, rms);
}

INSTANTIATE_TEST_SUITE_P(All, CudaGoldenTest,
                         ::testing::Combine(::testing::Values(Precision::kFP32, Precision::kTF32,
                                                              Precision::kFP16, Precision::kBF16),
                                            ::testing::Values(Kernels::kBest, Kernels::kPortable),
                                            ::testing::ValuesIn(kCases)),
                         [](const auto& info) {
                           const Case& c = std::get<2>(info.param);
                           return std::string(ToString(std::get<0>(info.param))) +
                                  (std::get<1>(info.param) == Kernels::kBest ? "_" : "_portable_") +
                                  c.weights + "_" + c.name;
                         });

// Every size from 1 x 1 to 40 x 40, with reflect padding where it is defined and zeros elsewhere.
void TestSizes(Precision precision, Kernels kernels, double tolerance, int step) {
  const Model model = Model::Random({.stages = 1}, 20);
  const auto cpu = MakeBackend("cpu", model);
  const auto cuda = Make(model, precision, kernels);
  const auto scratch = cuda->NewScratch();
  const int64_t multiple = model.config().padding_multiple();
  for (int64_t h = 1; h <= 40; h += step) {
    for (int64_t w = 1; w <= 40; w += step) {
      const bool reflect = CanReflect(h, multiple) && CanReflect(w, multiple);
      const Padding padding = reflect ? Padding::kReflect : Padding::kZero;
      const Array input = RandomArray(1, 3, h, w, static_cast<unsigned>(h * 64 + w));
      const Array expected = RunBackend(*cpu, model, input, padding);
      Array output(1, 31, h, w);
      std::fill(output.data.begin(), output.data.end(), NAN);
      cuda->Run(input.view(), output.view(), padding, *scratch);
      ASSERT_LE(LargestError(output.data, expected.data),
                tolerance * LargestMagnitude(expected.data))
          << h << " x " << w << (reflect ? "" : ", zero padding");
    }
  }
}

TEST_F(CudaTest, EverySizeFp32) { TestSizes(Precision::kFP32, Kernels::kBest, 1e-5, 1); }
TEST_F(CudaTest, EverySizeFp16) { TestSizes(Precision::kFP16, Kernels::kBest, 1e-2, 1); }
TEST_F(CudaTest, EverySizeTf32) { TestSizes(Precision::kTF32, Kernels::kBest, 1e-2, 1); }
TEST_F(CudaTest, SizesTf32Portable) { TestSizes(Precision::kTF32, Kernels::kPortable, 1e-2, 3); }
TEST_F(CudaTest, SizesBf16) { TestSizes(Precision::kBF16, Kernels::kBest, 6e-2, 3); }
TEST_F(CudaTest, SizesPortable) { TestSizes(Precision::kFP32, Kernels::kPortable, 1e-5, 3); }

TEST_F(CudaTest, OtherNetworksOfTheFamily) {
  const Config configs[] = {
      {.in_channels = 1, .bands = 5, .stages = 1, .blocks = {1, 1}},
      {.in_channels = 8, .bands = 28, .stages = 1, .blocks = {1, 1, 1}},
      {.in_channels = 2, .bands = 28, .stages = 1, .blocks = {1, 1, 1}},
      {.in_channels = 3, .bands = 31, .stages = 2, .blocks = {2, 1, 3}},
      {.in_channels = 3, .bands = 31, .stages = 1, .blocks = {1, 2}},
      {.in_channels = 3, .bands = 16, .stages = 1, .blocks = {1, 1, 1, 1, 1}},
      {.in_channels = 12, .bands = 33, .stages = 1, .blocks = {1, 1, 1}},
      {.in_channels = 3, .bands = 70, .stages = 1, .blocks = {1, 1}},
  };
  for (const Config& config : configs) {
    const Model model = Model::Random(config, 21);
    const Array input = RandomArray(1, config.in_channels, 37, 75, 22);
    const Array expected = RunBackend(*MakeBackend("cpu", model), model, input);
    for (const auto& [precision, tolerance] :
         {std::pair{Precision::kFP32, 1e-5}, {Precision::kTF32, 1e-2}, {Precision::kFP16, 1e-2}}) {
      const Array output = RunBackend(*Make(model, precision), model, input);
      EXPECT_LE(LargestError(output.data, expected.data),
                tolerance * LargestMagnitude(expected.data))
          << ToString(precision) << ", " << config.bands << " bands, " << config.levels()
          << " levels";
    }
  }
}

constexpr Precision kPrecisions[] = {Precision::kFP32, Precision::kTF32, Precision::kFP16,
                                     Precision::kBF16};

Array ImageOf(const Array& batch, int64_t index) {
  Array image(1, batch.c, batch.h, batch.w);
  std::copy_n(batch.data.begin() + index * static_cast<int64_t>(image.data.size()),
              image.data.size(), image.data.begin());
  return image;
}

cuda::DeviceBuffer Upload(const std::vector<float>& values) {
  return cuda::DeviceBuffer(std::span(reinterpret_cast<const unsigned char*>(values.data()),
                                      values.size() * sizeof(float)));
}

// As RunBackend, with picture and cube in the GPU's memory.
Array RunOnDevice(const Backend& backend, const Model& model, const Array& input,
                  Scratch& scratch) {
  Array output(input.n, model.config().bands, input.h, input.w);
  std::fill(output.data.begin(), output.data.end(), NAN);
  const cuda::DeviceBuffer image = Upload(input.data), cube = Upload(output.data);
  backend.Run(TensorView::Nchw(image.as<float>(), input.n, input.c, input.h, input.w),
              MutableTensorView::Nchw(cube.as<float>(), output.n, output.c, output.h, output.w),
              Padding::kReflect, scratch);
  EXPECT_EQ(cudaMemcpy(output.data.data(), cube.data(), cube.size(), cudaMemcpyDeviceToHost),
            cudaSuccess);
  return output;
}

TEST_F(CudaTest, SameBitsOnEveryRunInEveryBatch) {
  struct Size {
    int64_t n, h, w;
  };
  // A group or two a lane, the last one smaller; the last two sizes fill groups by their number
  // and by their pixels.
  constexpr Size kSizes[] = {
      {2, 21, 43}, {5, 122, 163}, {11, 21, 43}, {197, 24, 40}, {13, 482, 512}};
  const Model model = Model::Random({.stages = 2}, 30);
  for (const Precision precision : kPrecisions) {
    const auto backend = Make(model, precision);
    const auto scratch = backend->NewScratch();  // one for all: its memory grows
    for (const auto& [n, h, w] : kSizes) {
      const std::string what = std::string(ToString(precision)) + ", " + std::to_string(n) +
                               " of " + std::to_string(h) + " x " + std::to_string(w);
      const Array batch = RandomArray(n, 3, h, w, 32);
      const Array together = RunBackend(*backend, model, batch);
      EXPECT_TRUE(RunBackend(*backend, model, batch).data == together.data) << what;
      for (int run = 0; run < 3; ++run) {
        EXPECT_TRUE(RunOnDevice(*backend, model, batch, *scratch).data == together.data) << what;
      }
      for (int64_t i = 0; i < n; ++i) {
        const Array alone = RunOnDevice(*backend, model, ImageOf(batch, i), *scratch);
        EXPECT_TRUE(alone.data == ImageOf(together, i).data) << what << ", image " << i;
      }
    }
  }
}

// Cubes that cross the bus in FP16 are those of FP32, rounded; those in the GPU's memory are left.
TEST_F(CudaTest, Fp16TransfersRoundAndNoMore) {
  struct Size {
    int64_t n, h, w;
  };
  constexpr Size kSizes[] = {{1, 8, 8},      {1, 37, 75},     {3, 41, 66},
                             {11, 21, 43},   {5, 122, 163},   {67, 24, 40},
                             {13, 482, 512}, {1, 1000, 1001}, {2, 50, 2}};
  const Model fused = Model::Random({.stages = 1}, 45);
  const Model wide = Model::Random({.bands = 40, .stages = 1, .blocks = {1, 1}}, 46);
  const auto test = [&](const Model& model, Precision precision, Kernels kernels) {
    const auto plain = Make(model, precision, kernels);
    const auto rounding = Make(model, precision, kernels, /*fp16_transfers=*/true);
    EXPECT_EQ(rounding->Description(), plain->Description() + ", cubes transferred in FP16");
    const auto scratch = rounding->NewScratch();  // one for all: its memory grows
    for (const auto& [n, h, w] : kSizes) {
      const int64_t multiple = model.config().padding_multiple();
      const bool reflect = CanReflect(h, multiple) && CanReflect(w, multiple);
      const Padding padding = reflect ? Padding::kReflect : Padding::kZero;
      const Array batch = RandomArray(n, 3, h, w, 47);
      const Array exact = RunBackend(*plain, model, batch, padding);
      Array expected = exact;
      for (float& v : expected.data) v = FromHalf(ToHalf(v));
      Array output(n, model.config().bands, h, w);
      for (int run = 0; run < 2; ++run) {
        std::fill(output.data.begin(), output.data.end(), NAN);
        rounding->Run(batch.view(), output.view(), padding, *scratch);
        EXPECT_TRUE(output.data == expected.data)
            << ToString(precision) << ", " << n << " of " << h << " x " << w;
      }
      if (reflect && n < 13) {
        EXPECT_TRUE(RunOnDevice(*rounding, model, batch, *scratch).data == exact.data);
      }
    }
  };
  test(fused, Precision::kFP16, Kernels::kBest);
  test(fused, Precision::kFP16, Kernels::kPortable);
  test(fused, Precision::kFP32, Kernels::kBest);
  test(wide, Precision::kBF16, Kernels::kBest);
  test(wide, Precision::kTF32, Kernels::kBest);
}

TEST_F(CudaTest, Fp16TransfersIntoAnyLayout) {
  const Model model = Model::Random({.stages = 1}, 48);
  const Array input = RandomArray(3, 3, 41, 66, 49);
  const auto backend = Make(model, Precision::kFP16, Kernels::kBest, /*fp16_transfers=*/true);
  const Array expected = RunBackend(*backend, model, input);
  std::vector<float> pixels(expected.data.size(), NAN);
  backend->Run(input.view(), MutableTensorView::Nhwc(pixels.data(), 3, 31, 41, 66),
               Padding::kReflect, *backend->NewScratch());
  const int64_t plane = 41 * 66;
  for (int64_t i = 0; i < 3 * 31 * plane; ++i) {
    const int64_t n = i / plane / 31, c = i / plane % 31, p = i % plane;
    ASSERT_EQ(pixels[(n * plane + p) * 31 + c], expected.data[i]);
  }
}

// With room for one picture only, a batch takes one at a time.
TEST_F(CudaTest, BatchNeedsNoMoreMemoryThanAPicture) {
  const Model model = Model::Random({.stages = 1}, 43);
  const Array batch = RandomArray(5, 3, 700, 700, 44);
  const auto backend = Make(model, Precision::kFP16);
  const cuda::DeviceBuffer image = Upload(batch.data);
  std::vector<float> cubes(static_cast<size_t>(5) * 31 * 700 * 700, NAN);
  const cuda::DeviceBuffer cube = Upload(cubes);
  const auto run = [&](int64_t n, Scratch& scratch) {
    backend->Run(TensorView::Nchw(image.as<float>(), n, 3, 700, 700),
                 MutableTensorView::Nchw(cube.as<float>(), n, 31, 700, 700), Padding::kReflect,
                 scratch);
  };
  const auto free_memory = [] {
    size_t free = 0, total = 0;
    EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    return free;
  };
  run(1, *backend->NewScratch());  // loads the kernels
  const auto scratch = backend->NewScratch();
  const size_t before = free_memory();
  run(1, *scratch);
  const size_t picture = before - free_memory();
  // `scratch` holds the memory of one picture; leave half as much more.
  cuda::DeviceBuffer hog(free_memory() - picture / 2);
  run(5, *scratch);
  hog = {};
  ASSERT_EQ(cudaMemcpy(cubes.data(), cube.data(), cube.size(), cudaMemcpyDeviceToHost),
            cudaSuccess);
  EXPECT_TRUE(cubes == RunBackend(*backend, model, batch).data);
}

TEST_F(CudaTest, SameBitsFromManyThreads) {
  const Model model = Model::Random({.stages = 1}, 31);
  const Array input = RandomArray(1, 3, 200, 240, 33);
  const auto half = Make(model, Precision::kFP16), other = Make(model, Precision::kFP32);
  const Array expected_half = RunBackend(*half, model, input);
  const Array expected_other = RunBackend(*other, model, input);
  std::vector<std::thread> threads;
  std::vector<int> wrong(8, 0);
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const Backend& backend = i % 2 == 0 ? *half : *other;
      const Array& expected = i % 2 == 0 ? expected_half : expected_other;
      for (int k = 0; k < 5; ++k) {
        if (RunBackend(backend, model, input).data != expected.data) ++wrong[i];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
}

void TestLayouts(Precision precision) {
  const Model model = Model::Random({.stages = 1}, 34);
  const Array input = RandomArray(2, 3, 41, 66, 35);
  const auto backend = Make(model, precision);
  const Array expected = RunBackend(*backend, model, input);
  std::vector<float> pixels(input.data.size());
  const int64_t plane = 41 * 66;
  for (int64_t n = 0; n < 2; ++n) {
    for (int64_t i = 0; i < plane; ++i) {
      for (int64_t c = 0; c < 3; ++c) {
        pixels[(n * plane + i) * 3 + c] = input.data[(n * 3 + c) * plane + i];
      }
    }
  }
  const cuda::DeviceBuffer image(std::span(reinterpret_cast<const unsigned char*>(pixels.data()),
                                           pixels.size() * sizeof(float)));
  const cuda::DeviceBuffer cube(expected.data.size() * sizeof(float));
  const auto scratch = backend->NewScratch();
  backend->Run(TensorView::Nhwc(image.as<float>(), 2, 3, 41, 66),
               MutableTensorView::Nhwc(cube.as<float>(), 2, 31, 41, 66), Padding::kReflect,
               *scratch);
  std::vector<float> got(expected.data.size());
  ASSERT_EQ(cudaMemcpy(got.data(), cube.data(), got.size() * 4, cudaMemcpyDeviceToHost),
            cudaSuccess);
  for (int64_t n = 0; n < 2; ++n) {
    for (int64_t c = 0; c < 31; ++c) {
      for (int64_t i = 0; i < plane; ++i) {
        ASSERT_EQ(got[(n * plane + i) * 31 + c], expected.data[(n * 31 + c) * plane + i]);
      }
    }
  }
}

TEST_F(CudaTest, TakesDeviceMemoryOfAnyLayoutFp16) { TestLayouts(Precision::kFP16); }
TEST_F(CudaTest, TakesDeviceMemoryOfAnyLayoutTf32) { TestLayouts(Precision::kTF32); }

// A weight that is no half leaves TF32 to the portable kernels, which have FP32's range.
TEST_F(CudaTest, WeightsBeyondHalvesRunOnPortableKernels) {
  const Model model = Model::Random({.stages = 1}, 45);
  const cuda::DeviceInfo gpu = cuda::QueryDevice(0);
  if (cuda::MakeFusedNetwork(model.network(), Precision::kTF32, gpu) == nullptr) {
    GTEST_SKIP() << "no fused kernels on this GPU";
  }
  for (const char* suffix : {"conv_in.weight", "proj.bias", "net.0.weight", "to_v.weight"}) {
    Network network = model.network();
    int changed = 0;
    for (auto& [name, tensor] : network.tensors) {
      if (changed == 0 && name.ends_with(suffix)) {
        tensor.data[0] = 1e6f;
        ++changed;
      }
    }
    EXPECT_EQ(changed, 1) << suffix;
    EXPECT_EQ(cuda::MakeFusedNetwork(network, Precision::kTF32, gpu), nullptr) << suffix;
    EXPECT_NE(cuda::MakeFusedNetwork(network, Precision::kFP16, gpu), nullptr) << suffix;
  }
}

// What a tap hands over, against the reference's.
TEST_F(CudaTest, TapsAgreeWithTheReference) {
  const Model model = Model::Random({.stages = 1}, 36);
  const Array input = RandomArray(1, 3, 21, 43, 37);
  using Values = std::map<std::string, std::vector<float>>;
  const auto run = [&](const Backend& backend) {
    Values values;
    Array output(1, 31, 21, 43);
    const auto scratch = backend.NewScratch();
    backend.RunWithTaps(
        input.view(), output.view(), Padding::kReflect, *scratch,
        [&](const std::string& name, const TensorView& v) {
          for (int64_t c = 0; c < v.c; ++c) {
            for (int64_t y = 0; y < v.h; ++y) {
              for (int64_t x = 0; x < v.w; ++x) {
                values[name].push_back(v.data[c * v.stride_c + y * v.stride_h + x * v.stride_w]);
              }
            }
          }
        });
    EXPECT_EQ(output.data, RunBackend(backend, model, input).data);
    return values;
  };
  const Values expected = run(*MakeBackend("reference", model));
  for (const auto& [precision, tolerance] : {std::pair{Precision::kFP32, 1e-5},
                                             {Precision::kTF32, 3e-3},
                                             {Precision::kFP16, 3e-3},
                                             {Precision::kBF16, 2.5e-2}}) {
    for (const Kernels kernels : {Kernels::kBest, Kernels::kPortable}) {
      const auto backend = Make(model, precision, kernels);
      const Values values = run(*backend);
      ASSERT_EQ(values.size(), expected.size());
      for (const auto& [name, wanted] : expected) {
        ASSERT_TRUE(values.contains(name)) << name;
        EXPECT_LE(RelativeRms(values.at(name), wanted), tolerance)
            << ToString(precision) << " " << name;
      }
      if (precision == Precision::kTF32 &&
          backend->Description().find("fused") != std::string::npos) {
        // The only block whose factors are not rounded: 2e-4 without its rests.
        EXPECT_LE(RelativeRms(values.at("conv_in"), expected.at("conv_in")), 0x1p-18);
      }
    }
  }
}

TEST_F(CudaTest, ProfilesEveryBlock) {
  const Model model = Model::Random({.stages = 1}, 41);
  const Array input = RandomArray(3, 3, 41, 66, 42);
  for (const Kernels kernels : {Kernels::kBest, Kernels::kPortable}) {
    const auto backend = Make(model, Precision::kFP16, kernels);
    Array output(3, 31, 41, 66);
    const auto scratch = backend->NewScratch();
    const std::vector<KernelTime> times =
        backend->Profile(input.view(), output.view(), Padding::kReflect, *scratch, 1, 4);
    std::vector<std::string> blocks;
    for (const KernelTime& time : times) {
      if (blocks.empty() || blocks.back() != time.block) blocks.push_back(time.block);
      EXPECT_FALSE(time.kernel.empty()) << time.block;
      EXPECT_THAT(time.ms, ::testing::SizeIs(4)) << time.block;
      EXPECT_THAT(time.ms, ::testing::Each(::testing::Gt(0.0))) << time.block;
    }
    std::vector<std::string> expected;
    for (const Node& node : model.network().graph.nodes) expected.push_back(node.tap_name());
    EXPECT_EQ(blocks, expected);
    EXPECT_EQ(output.data, RunBackend(*backend, model, input).data);
    // One time a kernel, also of those that are launched once a picture.
    const Array one = ImageOf(input, 0);
    Array cube(1, 31, 41, 66);
    EXPECT_THAT(backend->Profile(one.view(), cube.view(), Padding::kReflect, *scratch, 0, 1),
                ::testing::SizeIs(times.size()));
  }
}

TEST_F(CudaTest, SaysThatMemoryIsExhausted) {
  const Model model = Model::Random({.stages = 1}, 38);
  const auto backend = Make(model, Precision::kFP32, Kernels::kPortable);
  // Hold nearly all of it.
  size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  void* hog = nullptr;
  ASSERT_EQ(cudaMalloc(&hog, free - (size_t{300} << 20)), cudaSuccess);
  const Array input = RandomArray(1, 3, 1000, 1000, 39);
  try {
    RunBackend(*backend, model, input);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory) << error.what();
    EXPECT_THAT(error.what(), ::testing::HasSubstr("memory"));
  }
  cudaFree(hog);
  const Array small = RandomArray(1, 3, 40, 40, 40);
  RunBackend(*backend, model, small);  // the device is still well
}

}  // namespace
}  // namespace mstpp::testing
