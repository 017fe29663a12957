// SPDX-License-Identifier: Apache-2.0
// The pipeline around a backend, on a backend whose result is known in closed form.
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <thread>

#include "engine/pipeline.h"
#include "engine/registry.h"
#include "mstpp/error.h"
#include "mstpp/mstpp.h"

namespace mstpp {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Depends on every input channel, and on the place, so that a variant that is turned back wrongly
// shows: out[b, y, x] = sum_c (b + c + 1) in[c, y, x] + (y + 3 x) (b + 1) / 100.
float Expected(const std::function<float(int, int64_t, int64_t)>& in, int band, int64_t y,
               int64_t x) {
  float value = static_cast<float>((y + 3 * x) * (band + 1)) / 100.0f;
  for (int c = 0; c < 3; ++c) value += static_cast<float>(band + c + 1) * in(c, y, x);
  return value;
}

struct Counters {
  std::atomic<int> scratches = 0, runs = 0;
};

class FakeBackend : public Backend {
 public:
  explicit FakeBackend(Counters* counters = nullptr) : counters_(counters) {}

  std::unique_ptr<Scratch> NewScratch() const override {
    if (counters_ != nullptr) ++counters_->scratches;
    return std::make_unique<Scratch>();
  }
  std::string Description() const override { return "a fake"; }

  void Run(const TensorView& in, const MutableTensorView& out, Padding, Scratch&) const override {
    if (counters_ != nullptr) ++counters_->runs;
    for (int64_t n = 0; n < in.n; ++n) {
      for (int b = 0; b < out.c; ++b) {
        for (int64_t y = 0; y < in.h; ++y) {
          for (int64_t x = 0; x < in.w; ++x) {
            const auto at = [&](int c, int64_t row, int64_t column) {
              return in.data[n * in.stride_n + c * in.stride_c + row * in.stride_h +
                             column * in.stride_w];
            };
            out.data[n * out.stride_n + b * out.stride_c + y * out.stride_h + x * out.stride_w] =
                Expected(at, b, y, x);
          }
        }
      }
    }
  }
  void RunWithTaps(const TensorView& in, const MutableTensorView& out, Padding padding,
                   Scratch& scratch, const Engine::Tap& tap) const override {
    Run(in, out, padding, scratch);
    tap("conv_out", {out.data, out.n, out.c, out.h, out.w, out.stride_n, out.stride_c, out.stride_h,
                     out.stride_w});
  }

 private:
  Counters* counters_;
};

// Throws what a machine without memory throws.
class HungryBackend final : public FakeBackend {
 public:
  void Run(const TensorView&, const MutableTensorView&, Padding, Scratch&) const override {
    throw std::bad_alloc();
  }
};

const Model& TestModel() {
  static const Model model = Model::Random({.stages = 1}, 1);
  return model;
}

Pipeline Make(Options options = {}, Counters* counters = nullptr) {
  options.device = "cuda:1";  // what the registry would have filled in
  return {TestModel(), options, std::make_unique<FakeBackend>(counters)};
}

Image RandomImage(int64_t width, int64_t height, uint32_t seed) {
  Image image{.width = width, .height = height, .source = "photo.jpg"};
  std::mt19937 generator(seed);
  for (int64_t i = 0; i < 3 * width * height; ++i) {
    image.data.push_back(static_cast<float>(generator() % 200 + 20));
  }
  return image;
}

// A plane as rows, and the turns, in the plainest way.
using Plane = std::vector<std::vector<float>>;
Plane FlipX(Plane p) {
  for (auto& row : p) std::reverse(row.begin(), row.end());
  return p;
}
Plane FlipY(Plane p) {
  std::reverse(p.begin(), p.end());
  return p;
}
Plane Transpose(const Plane& p) {
  Plane t(p[0].size(), std::vector<float>(p.size()));
  for (size_t y = 0; y < p.size(); ++y) {
    for (size_t x = 0; x < p[y].size(); ++x) t[x][y] = p[y][x];
  }
  return t;
}

std::array<Plane, 3> ScaledPlanes(const Image& image) {
  const auto [min, max] = std::minmax_element(image.data.begin(), image.data.end());
  std::array<Plane, 3> planes;
  for (int c = 0; c < 3; ++c) {
    planes[c].assign(image.height, std::vector<float>(image.width));
    for (int64_t y = 0; y < image.height; ++y) {
      for (int64_t x = 0; x < image.width; ++x) {
        const float count = image.data[c * image.pixels() + y * image.width + x];
        planes[c][y][x] = (count - *min) / (*max - *min);
      }
    }
  }
  return planes;
}

// The eight results for one band, turned back.
std::vector<Plane> VariantResults(const Image& image, int band) {
  std::vector<Plane> results;
  for (bool flip_x : {false, true}) {
    for (bool flip_y : {false, true}) {
      for (bool transpose : {false, true}) {
        std::array<Plane, 3> planes = ScaledPlanes(image);
        for (Plane& p : planes) {
          if (flip_x) p = FlipX(p);
          if (flip_y) p = FlipY(p);
          if (transpose) p = Transpose(p);
        }
        Plane result = planes[0];
        for (size_t y = 0; y < result.size(); ++y) {
          for (size_t x = 0; x < result[y].size(); ++x) {
            result[y][x] =
                Expected([&](int c, int64_t row, int64_t column) { return planes[c][row][column]; },
                         band, static_cast<int64_t>(y), static_cast<int64_t>(x));
          }
        }
        if (transpose) result = Transpose(result);
        if (flip_y) result = FlipY(result);
        if (flip_x) result = FlipX(result);
        results.push_back(result);
      }
    }
  }
  return results;
}

template <typename Work>
std::string Failure(ErrorCode code, Work work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(PipelineTest, ScalesByMinMaxRunsAndDescribes) {
  const Image image = RandomImage(11, 7, 1);
  const Cube cube = Make({.scaling = Scaling::kMinMax, .clip = false}).Run(image);
  EXPECT_EQ(cube.width, 11);
  EXPECT_EQ(cube.height, 7);
  EXPECT_EQ(cube.bands, 31);
  EXPECT_EQ(cube.wavelengths_nm, TestModel().wavelengths_nm());
  const std::array<Plane, 3> planes = ScaledPlanes(image);
  const auto at = [&](int c, int64_t y, int64_t x) { return planes[c][y][x]; };
  for (int b = 0; b < 31; ++b) {
    for (int64_t y = 0; y < 7; ++y) {
      for (int64_t x = 0; x < 11; ++x) {
        ASSERT_EQ(cube.data[(b * 7 + y) * 11 + x], Expected(at, b, y, x));
      }
    }
  }
  const auto [min, max] = std::minmax_element(image.data.begin(), image.data.end());
  const Provenance& p = cube.provenance;
  EXPECT_EQ(p.version, Version());
  EXPECT_EQ(p.source, "photo.jpg");
  EXPECT_EQ(p.weights, TestModel().name());
  EXPECT_EQ(p.weights_sha256, TestModel().weights_sha256());
  EXPECT_EQ(p.backend, "cuda");
  EXPECT_EQ(p.device, "a fake");
  EXPECT_EQ(p.precision, "fp32");
  EXPECT_EQ(p.scaling, "minmax");
  EXPECT_EQ(p.scale_min, *min);
  EXPECT_EQ(p.scale_max, *max);
  EXPECT_EQ(p.padding, "reflect");
  EXPECT_EQ(p.ensemble, "none");
  EXPECT_EQ(p.clipped, false);
}

TEST(PipelineTest, UnitScalingDividesByWhite) {
  Image image = RandomImage(8, 8, 2);
  image.white = 65535.0f;
  const Cube cube = Make({.scaling = Scaling::kUnit, .clip = false}).Run(image);
  const auto at = [&](int c, int64_t, int64_t) { return image.data[c * 64] / 65535.0f; };
  EXPECT_EQ(cube.data[0], Expected(at, 0, 0, 0));
  EXPECT_EQ(cube.provenance.scaling, "unit");
  EXPECT_EQ(cube.provenance.scale_min, 0.0);
  EXPECT_EQ(cube.provenance.scale_max, 65535.0);
}

TEST(PipelineTest, NoScalingTakesCountsAsTheyAre) {
  const Image image = RandomImage(8, 8, 3);
  const Cube cube = Make({.scaling = Scaling::kNone, .clip = false}).Run(image);
  const auto at = [&](int c, int64_t, int64_t) { return image.data[c * 64]; };
  EXPECT_EQ(cube.data[0], Expected(at, 0, 0, 0));
  EXPECT_EQ(cube.provenance.scaling, "none");
  EXPECT_FALSE(cube.provenance.scale_min.has_value());
}

TEST(PipelineTest, ScalingComesFromTheWeightsUnlessGiven) {
  EXPECT_EQ(Make().Run(RandomImage(8, 8, 4)).provenance.scaling, TestModel().scaling());
}

TEST(PipelineTest, ConstantImageBecomesZeros) {
  Image image{.width = 8, .height = 8, .data = std::vector<float>(192, 77.0f)};
  const Cube cube = Make({.scaling = Scaling::kMinMax, .clip = false}).Run(image);
  const auto zero = [](int, int64_t, int64_t) { return 0.0f; };
  for (int b = 0; b < 31; ++b) ASSERT_EQ(cube.data[b * 64 + 9], Expected(zero, b, 1, 1));
  EXPECT_EQ(cube.provenance.scale_min, 77.0);
  EXPECT_EQ(cube.provenance.scale_max, 77.0);
}

TEST(PipelineTest, ClipsToZeroAndOne) {
  const Image image = RandomImage(9, 9, 5);
  const std::vector<float> raw = Make({.scaling = Scaling::kUnit, .clip = false}).Run(image).data;
  const Cube clipped = Make({.scaling = Scaling::kUnit}).Run(image);
  EXPECT_GT(*std::max_element(raw.begin(), raw.end()), 1.0f);
  for (size_t i = 0; i < raw.size(); ++i) {
    ASSERT_EQ(clipped.data[i], std::min(std::max(raw[i], 0.0f), 1.0f));
  }
  EXPECT_EQ(clipped.provenance.clipped, true);
}

class EnsembleTest : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(EnsembleTest, MeanAndMedianOfTheTurnedBackVariants) {
  const auto [width, height] = GetParam();
  const Image image = RandomImage(width, height, 6);
  Options options{.padding = Padding::kZero, .scaling = Scaling::kMinMax, .clip = false};
  options.ensemble = Ensemble::kMean;
  const Cube mean = Make(options).Run(image);
  options.ensemble = Ensemble::kMedian;
  const Cube median = Make(options).Run(image);
  for (int band : {0, 30}) {
    const std::vector<Plane> results = VariantResults(image, band);
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        std::vector<float> values;
        for (const Plane& result : results) values.push_back(result[y][x]);
        float sum = 0;
        for (float value : values) sum += value;
        std::sort(values.begin(), values.end());
        const size_t i = (static_cast<size_t>(band) * height + y) * width + x;
        ASSERT_EQ(mean.data[i], sum / 8);
        ASSERT_EQ(median.data[i], values[3]) << "the lower of the two in the middle";
      }
    }
  }
  EXPECT_EQ(mean.provenance.ensemble, "mean");
  EXPECT_EQ(median.provenance.ensemble, "median");
}

// Smaller than a tile of the transposition, larger, and one pixel.
INSTANTIATE_TEST_SUITE_P(Sizes, EnsembleTest,
                         testing::Values(std::pair(5, 7), std::pair(70, 33), std::pair(32, 32),
                                         std::pair(1, 1), std::pair(1, 9)));

TEST(PipelineTest, RefusesPicturesThatMakeNoSense) {
  const Pipeline pipeline = Make();
  Image none{.width = 0, .height = 5, .source = "empty.png"};
  EXPECT_THAT(Failure(ErrorCode::kInvalidArgument, [&] { pipeline.Run(none); }),
              AllOf(HasSubstr("empty.png"), HasSubstr("no pixels")));
  Image grey = RandomImage(8, 8, 1);
  grey.channels = 1;
  EXPECT_THAT(Failure(ErrorCode::kInvalidArgument, [&] { pipeline.Run(grey); }),
              HasSubstr("1 channels, but the network takes 3"));
  Image torn = RandomImage(8, 8, 1);
  torn.data.pop_back();
  EXPECT_THAT(Failure(ErrorCode::kInvalidArgument, [&] { pipeline.Run(torn); }),
              HasSubstr("191 values"));
  Image vast{.width = int64_t{1} << 40, .height = int64_t{1} << 40};
  Failure(ErrorCode::kInvalidArgument, [&] { pipeline.Run(vast); });
}

TEST(PipelineTest, RefusesCountsThatAreNotFinite) {
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Image image = RandomImage(8, 9, 1);
    image.data[72 + 8 * 5 + 3] = bad;
    EXPECT_THAT(Failure(ErrorCode::kInvalidArgument, [&] { Make().Run(image); }),
                HasSubstr("channel 1 at x = 3, y = 5"));
  }
}

TEST(PipelineTest, RefusesWhiteThatIsNotPositive) {
  Image image = RandomImage(8, 8, 1);
  image.white = 0.0f;
  Failure(ErrorCode::kInvalidArgument, [&] { Make({.scaling = Scaling::kUnit}).Run(image); });
}

TEST(PipelineTest, SidesTooShortToReflectNameTheRemedy) {
  for (int64_t side = 1; side <= 20; ++side) {
    for (const auto& [w, h] : {std::pair(side, int64_t{8}), std::pair(int64_t{8}, side)}) {
      const Image image = RandomImage(w, h, 1);
      if (side <= 4) {
        EXPECT_THAT(Failure(ErrorCode::kInvalidArgument, [&] { Make().Run(image); }),
                    AllOf(HasSubstr("photo.jpg"), HasSubstr("--pad zero")));
      } else {
        EXPECT_NO_THROW(Make().Run(image));
      }
      EXPECT_NO_THROW(Make({.padding = Padding::kZero}).Run(image));
    }
  }
}

TEST(PipelineTest, MemoryExhaustedNamesTheSize) {
  const Pipeline pipeline(TestModel(), {}, std::make_unique<HungryBackend>());
  EXPECT_THAT(Failure(ErrorCode::kOutOfMemory, [&] { pipeline.Run(RandomImage(512, 482, 1)); }),
              AllOf(HasSubstr("photo.jpg"), HasSubstr("512 x 482"), HasSubstr("29 MiB")));
}

struct Tensors {
  Tensors(int64_t n, int64_t h, int64_t w) : in(n * 3 * h * w), out(n * 31 * h * w) {
    std::mt19937 generator(7);
    for (float& value : in) value = static_cast<float>(generator() % 1000) / 1000.0f;
    input = TensorView::Nchw(in.data(), n, 3, h, w);
    output = MutableTensorView::Nchw(out.data(), n, 31, h, w);
  }
  std::vector<float> in, out;
  TensorView input;
  MutableTensorView output;
};

TEST(PipelineTest, TensorsGoThroughAsTheyAre) {
  Tensors t(2, 8, 9);
  Make({.scaling = Scaling::kMinMax, .ensemble = Ensemble::kMean}).Run(t.input, t.output);
  const auto at = [&](int c, int64_t y, int64_t x) { return t.in[((3 + c) * 8 + y) * 9 + x]; };
  EXPECT_EQ(t.out[((31 + 4) * 8 + 5) * 9 + 6], Expected(at, 4, 5, 6));
}

TEST(PipelineTest, TapsAreHandedOn) {
  Tensors t(1, 8, 8);
  std::vector<std::string> names;
  Make().RunWithTaps(t.input, t.output,
                     [&](const std::string& name, const TensorView&) { names.push_back(name); });
  EXPECT_THAT(names, ElementsAre("conv_out"));
}

TEST(PipelineTest, RefusesTensorsThatMakeNoSense) {
  const Pipeline pipeline = Make();
  const auto failure = [&](const std::function<void(Tensors&)>& spoil) {
    Tensors t(1, 8, 8);
    spoil(t);
    return Failure(ErrorCode::kInvalidArgument, [&] { pipeline.Run(t.input, t.output); });
  };
  EXPECT_THAT(failure([](Tensors& t) { t.input.data = nullptr; }), HasSubstr("input: "));
  EXPECT_THAT(failure([](Tensors& t) { t.output.data = nullptr; }), HasSubstr("output: "));
  EXPECT_THAT(failure([](Tensors& t) { t.input.c = 4; }),
              AllOf(HasSubstr("1 x 4 x 8 x 8"), HasSubstr("3 channels")));
  EXPECT_THAT(failure([](Tensors& t) { t.input.h = 0; }), HasSubstr("1 or more"));
  EXPECT_THAT(failure([](Tensors& t) { t.output.w = 7; }), HasSubstr("1 x 31 x 8 x 8"));
  EXPECT_THAT(failure([](Tensors& t) { t.output.stride_w = 0; }), HasSubstr("stride"));
  EXPECT_THAT(failure([](Tensors& t) { t.input.data = t.out.data() + 100; }),
              HasSubstr("overlaps"));
  EXPECT_THAT(failure([](Tensors& t) {
                t.input = TensorView::Nchw(t.in.data(), 1, 3, 4, 8);
                t.output = MutableTensorView::Nchw(t.out.data(), 1, 31, 4, 8);
              }),
              HasSubstr("--pad zero"));
}

TEST(PipelineTest, StridesMayBeNegativeAndViewsMayTouch) {
  std::vector<float> memory(34 * 64, 0.5f);
  TensorView input = TensorView::Nchw(memory.data(), 1, 3, 8, 8);
  const auto output = MutableTensorView::Nchw(memory.data() + 3 * 64, 1, 31, 8, 8);
  EXPECT_NO_THROW(Make().Run(input, output));
  input.data += 63;  // the picture turned by 180 degrees
  input.stride_h = -8;
  input.stride_w = -1;
  EXPECT_NO_THROW(Make().Run(input, output));
  input.data += 64;  // now the last channel reaches into the output
  EXPECT_THAT(Failure(ErrorCode::kInvalidArgument, [&] { Make().Run(input, output); }),
              HasSubstr("overlaps"));
}

TEST(PipelineTest, ScratchIsUsedAgain) {
  Counters counters;
  const Pipeline pipeline = Make({.ensemble = Ensemble::kMean}, &counters);
  for (int i = 0; i < 3; ++i) pipeline.Run(RandomImage(8, 8, 1));
  EXPECT_EQ(counters.scratches, 1);
  EXPECT_EQ(counters.runs, 24);
}

TEST(PipelineTest, ThreadsShareAnEngine) {
  Counters counters;
  const Pipeline pipeline = Make({.ensemble = Ensemble::kMedian}, &counters);
  std::vector<Image> images;
  std::vector<Cube> expected;
  for (int i = 0; i < 4; ++i) {
    images.push_back(RandomImage(16 + i, 12, i));
    expected.push_back(pipeline.Run(images.back()));
  }
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 8; ++i) {
        const int k = (t + i) % 4;
        if (pipeline.Run(images[k]).data != expected[k].data) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(counters.scratches, 8);
}

// The registry, on a table of its own.
template <bool usable>
BackendStatus QueryFake(int index) {
  if (!usable || index > 1) {
    return {.name = "x", .usable = false, .detail = "no such card", .remedy = "buy one"};
  }
  return {.name = "x",
          .usable = true,
          .detail = "a fake",
          .precisions = {Precision::kFP32, Precision::kFP16}};
}
BackendStatus QuerySimple(int) {
  return {.name = "cpu", .usable = true, .precisions = {Precision::kFP32}};
}
BackendStatus QueryBroken(int) {
  return {.name = "cpu", .usable = false, .detail = "too old", .remedy = ""};
}
constexpr std::array<BackendEntry, 2> kWithGpu{
    {{"cpu", QuerySimple, nullptr}, {"cuda", QueryFake<true>, nullptr, true}}};
constexpr std::array<BackendEntry, 3> kWithoutGpu{{{"reference", QuerySimple, nullptr},
                                                   {"cpu", QuerySimple, nullptr},
                                                   {"cuda", QueryFake<false>, nullptr, true}}};
constexpr std::array<BackendEntry, 2> kNothing{
    {{"cpu", QueryBroken, nullptr}, {"reference", QuerySimple, nullptr}}};

TEST(ChooseDeviceTest, AutoTakesTheFastestUsable) {
  EXPECT_EQ(ChooseDevice(kWithGpu, "auto", Precision::kFP32).Name(), "cuda:0");
  EXPECT_EQ(ChooseDevice(kWithoutGpu, "auto", Precision::kFP32).Name(), "cpu");
}

TEST(ChooseDeviceTest, AutoTakesOneThatHasThePrecision) {
  EXPECT_EQ(ChooseDevice(kWithGpu, "auto", Precision::kFP16).Name(), "cuda:0");
  EXPECT_THAT(
      Failure(ErrorCode::kUnsupported, [] { ChooseDevice(kWithoutGpu, "auto", Precision::kFP16); }),
      AllOf(HasSubstr("fp16"), HasSubstr("cpu has fp32")));
}

TEST(ChooseDeviceTest, AutoNeverTakesTheReference) {
  EXPECT_THAT(Failure(ErrorCode::kDeviceUnavailable,
                      [] { ChooseDevice(kNothing, "auto", Precision::kFP32); }),
              HasSubstr("cpu: too old"));
}

TEST(ChooseDeviceTest, NamesAndNumbers) {
  EXPECT_EQ(ChooseDevice(kWithGpu, "cuda", Precision::kFP32).Name(), "cuda:0");
  EXPECT_EQ(ChooseDevice(kWithGpu, "cuda:1", Precision::kFP16).index, 1);
  EXPECT_EQ(ChooseDevice(kWithoutGpu, "reference", Precision::kFP32).Name(), "reference");
  for (const char* name :
       {"gpu", "", "cpu:0", "cuda:", "cuda:-1", "cuda:1x", "cuda:99999999999", "CPU", "auto:0"}) {
    Failure(ErrorCode::kInvalidArgument, [&] { ChooseDevice(kWithGpu, name, Precision::kFP32); });
  }
  EXPECT_THAT(
      Failure(ErrorCode::kInvalidArgument, [] { ChooseDevice(kWithGpu, "gpu", Precision::kFP32); }),
      HasSubstr("auto, cpu, cuda[:N]"));
}

TEST(ChooseDeviceTest, ANamedDeviceIsNeverReplaced) {
  EXPECT_THAT(Failure(ErrorCode::kDeviceUnavailable,
                      [] { ChooseDevice(kWithoutGpu, "cuda", Precision::kFP32); }),
              HasSubstr("cuda: no such card; buy one"));
  Failure(ErrorCode::kDeviceUnavailable,
          [] { ChooseDevice(kWithGpu, "cuda:2", Precision::kFP32); });
  EXPECT_THAT(
      Failure(ErrorCode::kUnsupported, [] { ChooseDevice(kWithGpu, "cuda", Precision::kINT8); }),
      HasSubstr("int8; it has fp32, fp16"));
}

TEST(EngineTest, SaysWhatItRunsOn) {
  const Engine engine(TestModel(), {.device = "reference"});
  EXPECT_EQ(engine.options().device, "reference");
  EXPECT_FALSE(engine.device_description().empty());
  EXPECT_EQ(engine.model().name(), TestModel().name());
  const Cube cube = engine.Run(RandomImage(8, 8, 1));
  EXPECT_EQ(cube.provenance.backend, "reference");
}

TEST(EngineTest, AutoIsResolved) { EXPECT_NE(Engine(TestModel()).options().device, "auto"); }

TEST(EngineTest, RefusesOptionsThatMakeNoSense) {
  EXPECT_THAT(
      Failure(ErrorCode::kInvalidArgument, [] { Engine(TestModel(), {.device = "abacus"}); }),
      HasSubstr("auto, cuda[:N], cpu, tensorrt[:N], onnxruntime, onnxruntime-cuda[:N], reference"));
  Failure(ErrorCode::kInvalidArgument, [] { Engine(TestModel(), {.threads = -1}); });
  Failure(ErrorCode::kDeviceUnavailable, [] { Engine(TestModel(), {.device = "tensorrt"}); });
}

TEST(QueryBackendsTest, EveryBackendIsUsableOrSaysWhyNot) {
  std::vector<std::string> names;
  for (const BackendStatus& status : QueryBackends()) {
    names.push_back(status.name);
    EXPECT_FALSE(status.detail.empty()) << status.name;
    EXPECT_EQ(status.usable, status.remedy.empty()) << status.name;
    EXPECT_EQ(status.usable, !status.precisions.empty()) << status.name;
  }
  EXPECT_THAT(names, ElementsAre("cuda", "cpu", "tensorrt", "onnxruntime", "onnxruntime-cuda",
                                 "reference"));
}

}  // namespace
}  // namespace mstpp
