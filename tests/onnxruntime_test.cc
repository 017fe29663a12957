// SPDX-License-Identifier: Apache-2.0
// The backends that have ONNX Runtime run the network, against the golden data. They need its
// library: that of the Python environment which `./dev test` makes, or the system's.
#include "onnxruntime/onnxruntime.h"

#include <gmock/gmock.h>

#include <array>
#include <filesystem>
#include <thread>
#include <tuple>
#include <vector>

#include "backend_testing.h"
#include "mstpp/error.h"
#include "mstpp/model.h"
#include "onnx/export.h"
#include "onnxruntime/library.h"
#include "weights/weights.h"

namespace mstpp::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// "" if the project's environment has none.
std::string LibraryInVenv() {
  std::error_code error;
  const fs::path lib = fs::path(MSTPP_SOURCE_DIR) / ".venv" / "lib";
  for (const fs::directory_entry& python : fs::directory_iterator(lib, error)) {
    const fs::path folder = python.path() / "site-packages/onnxruntime/capi";
    for (const fs::directory_entry& file : fs::directory_iterator(folder, error)) {
      if (file.path().filename().string().starts_with("libonnxruntime.so")) return file.path();
    }
  }
  return "";
}

class OnnxRuntimeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.onnxruntime_library = LibraryInVenv();
    const BackendStatus status = QueryOnnxRuntime(options_, 0);
    if (!status.usable) GTEST_SKIP() << status.detail;
  }

  std::unique_ptr<Backend> Make(const Model& model) const {
    return CreateOnnxRuntimeBackend(model, options_, 0);
  }

  Options options_;
};

Model LoadWeights(const std::string& weights) {
  if (weights == "cave") {
    return Model::Load(std::string(MSTPP_SOURCE_DIR) + "/weights/mst_plus_plus_cave.safetensors");
  }
  return Model::Load(GoldenPath(weights + ".pth"));
}

// To the tolerances of the cpu backend.
TEST_F(OnnxRuntimeTest, AgreesWithFloat64) {
  const std::pair<const char*, std::vector<const char*>> cases[] = {
      {"cave", {"photo_128x128", "photo_61x90"}},
      {"stress", {"random_8x8", "random_24x40", "random_5x7", "batch2_50x37", "photo_64x96"}},
      {"stress_one_stage", {"random_24x40"}}};
  for (const auto& [weights, names] : cases) {
    const Model model = LoadWeights(weights);
    const std::unique_ptr<Backend> backend = Make(model);
    for (const char* name : names) {  // one session for all sizes
      const std::string stem = std::string(weights) + "." + name;
      const Array expected = ReadGolden(stem + ".output.npy");
      const Array output = RunBackend(*backend, model, ReadGolden(stem + ".input.npy"));
      const double tolerance =
          std::string(weights) == "cave" ? 5e-6 : 1e-5 * LargestMagnitude(expected.data);
      EXPECT_LE(LargestError(output.data, expected.data), tolerance) << stem;
    }
  }
}

TEST_F(OnnxRuntimeTest, PadsAsTheReferenceDoes) {
  const Model model = LoadWeights("stress_one_stage");
  const std::unique_ptr<Backend> backend = Make(model), reference = MakeBackend("reference", model);
  for (Padding padding : {Padding::kReflect, Padding::kZero}) {
    for (const auto& [h, w] : {std::pair{5, 13}, {16, 9}, {23, 8}}) {
      const Array input = RandomArray(2, 3, h, w, 1);
      const Array expected = RunBackend(*reference, model, input, padding);
      const Array output = RunBackend(*backend, model, input, padding);
      EXPECT_LE(LargestError(output.data, expected.data), 1e-5 * LargestMagnitude(expected.data))
          << h << " x " << w;
    }
  }
}

// Among them ones seen before: what a session keeps of a shape must not leak into another.
TEST_F(OnnxRuntimeTest, OneSessionTakesAnySizeAndBatch) {
  const Model model = LoadWeights("stress_one_stage");
  const std::unique_ptr<Backend> backend = Make(model), reference = MakeBackend("reference", model);
  const std::array<std::array<int64_t, 3>, 12> shapes{{{1, 8, 8},
                                                       {2, 8, 16},
                                                       {3, 5, 7},
                                                       {1, 13, 18},
                                                       {4, 21, 9},
                                                       {2, 40, 24},
                                                       {1, 64, 33},
                                                       {5, 16, 16},
                                                       {1, 7, 50},
                                                       {2, 31, 31},
                                                       {2, 8, 16},
                                                       {1, 13, 18}}};
  unsigned seed = 0;
  for (const auto& [n, h, w] : shapes) {
    const Array input = RandomArray(n, 3, h, w, ++seed);
    const Array expected = RunBackend(*reference, model, input);
    EXPECT_LE(LargestError(RunBackend(*backend, model, input).data, expected.data),
              1e-5 * LargestMagnitude(expected.data))
        << n << " x " << h << " x " << w;
  }
}

// An exported file's output, by the C library alone.
Array RunFile(const ort::Library& library, const std::string& bytes, Array input) {
  const ort::Api& api = library.api();
  const auto options = ort::Create<ort::SessionOptions>(
      library, "options", api.CreateSessionOptions, api.ReleaseSessionOptions);
  const auto session =
      ort::Create<ort::Session>(library, "loading", api.CreateSessionFromArray, api.ReleaseSession,
                                library.env(), bytes.data(), bytes.size(), options.get());
  const auto memory = ort::Create<ort::MemoryInfo>(library, "memory", api.CreateCpuMemoryInfo,
                                                   api.ReleaseMemoryInfo, ort::kDeviceAllocator,
                                                   ort::kDefaultMemory);
  const auto wrap = [&](Array& array) {
    const std::array<int64_t, 4> shape{array.n, array.c, array.h, array.w};
    return ort::Create<ort::Value>(library, "wrapping", api.CreateTensorWithDataAsOrtValue,
                                   api.ReleaseValue, memory.get(), array.data.data(),
                                   array.data.size() * sizeof(float), shape.data(), shape.size(),
                                   ort::kFloat);
  };
  Array output(input.n, 31, input.h, input.w);
  const auto x = wrap(input), y = wrap(output);
  const char *from = "input", *to = "output";
  const ort::Value* in = x.get();
  ort::Value* out = y.get();
  library.Check(api.Run(session.get(), nullptr, &from, &in, 1, &to, 1, &out), "running");
  return output;
}

TEST_F(OnnxRuntimeTest, RunsExportedFiles) {
  const ort::Library& library = ort::Library::Load(options_.onnxruntime_library);
  const Model model = LoadWeights("stress_one_stage");
  const std::unique_ptr<Backend> reference = MakeBackend("reference", model);
  const Array input = RandomArray(2, 3, 13, 18, 6);
  for (Padding padding : {Padding::kReflect, Padding::kZero}) {
    const Array expected = RunBackend(*reference, model, input, padding);
    for (AttentionForm form : {AttentionForm::kPublished, AttentionForm::kRestructured}) {
      for (int opset : {13, 17}) {
        for (bool fixed : {false, true}) {
          for (const auto& [precision, tolerance] :
               {std::pair{Precision::kFP32, 1e-5}, {Precision::kFP16, 0x1p-8}}) {
            OnnxOptions options{
                .opset = opset, .padding = padding, .precision = precision, .form = form};
            if (fixed)
              std::tie(options.batch, options.height, options.width) = std::tuple(2, 13, 18);
            const Array output = RunFile(library, BuildOnnx(model, options), input);
            EXPECT_LE(LargestError(output.data, expected.data),
                      tolerance * LargestMagnitude(expected.data))
                << "opset " << opset << ", fixed " << fixed << ", " << ToString(precision);
          }
        }
      }
    }
  }
}

TEST_F(OnnxRuntimeTest, TakesAnyStrides) {
  const Model model = LoadWeights("stress_one_stage");
  const std::unique_ptr<Backend> backend = Make(model);
  const auto scratch = backend->NewScratch();
  const Array input = RandomArray(2, 3, 12, 11, 2);
  const Array expected = RunBackend(*backend, model, input);
  std::vector<float> pixels(input.data.size()), result(expected.data.size());
  for (int64_t n = 0; n < 2; ++n) {
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t i = 0; i < 12 * 11; ++i) {
        pixels[(n * 12 * 11 + i) * 3 + c] = input.data[(n * 3 + c) * 12 * 11 + i];
      }
    }
  }
  backend->Run(TensorView::Nhwc(pixels.data(), 2, 3, 12, 11),
               MutableTensorView::Nhwc(result.data(), 2, 31, 12, 11), Padding::kReflect, *scratch);
  for (int64_t n = 0; n < 2; ++n) {
    for (int64_t c = 0; c < 31; ++c) {
      for (int64_t i = 0; i < 12 * 11; ++i) {
        ASSERT_EQ(result[(n * 12 * 11 + i) * 31 + c], expected.data[(n * 31 + c) * 12 * 11 + i]);
      }
    }
  }
}

// The same names in the same order as the reference's, and the same values.
TEST_F(OnnxRuntimeTest, TapsAreTheReferences) {
  const Model model = LoadWeights("stress_one_stage");
  const Array input = RandomArray(2, 3, 13, 18, 3);
  struct Tapped {
    std::string name;
    std::vector<float> values;
  };
  const auto run = [&](const Backend& backend, Array& output) {
    std::vector<Tapped> taps;
    const auto scratch = backend.NewScratch();
    backend.RunWithTaps(
        input.view(), output.view(), Padding::kReflect, *scratch,
        [&](const std::string& name, const TensorView& v) {
          taps.push_back({name, {}});
          for (int64_t i = 0; i < v.n * v.c * v.h * v.w; ++i) {
            const int64_t x = i % v.w, y = i / v.w % v.h, c = i / (v.w * v.h) % v.c,
                          n = i / (v.w * v.h * v.c);
            taps.back().values.push_back(
                v.data[n * v.stride_n + c * v.stride_c + y * v.stride_h + x * v.stride_w]);
          }
        });
    return taps;
  };
  Array output(2, 31, 13, 18), expected_output(2, 31, 13, 18);
  const std::vector<Tapped> taps = run(*Make(model), output);
  const std::vector<Tapped> expected = run(*MakeBackend("reference", model), expected_output);
  ASSERT_EQ(taps.size(), expected.size());
  for (size_t i = 0; i < taps.size(); ++i) {
    EXPECT_EQ(taps[i].name, expected[i].name);
    EXPECT_LE(LargestError(taps[i].values, expected[i].values),
              1e-5 * LargestMagnitude(expected[i].values))
        << taps[i].name;
  }
  EXPECT_LE(LargestError(output.data, expected_output.data),
            1e-5 * LargestMagnitude(expected_output.data));
}

TEST_F(OnnxRuntimeTest, RunsFromSeveralThreads) {
  const Model model = LoadWeights("stress_one_stage");
  const std::unique_ptr<Backend> backend = Make(model);
  const Array input = RandomArray(1, 3, 24, 16, 4);
  const Array expected = RunBackend(*backend, model, input);
  std::vector<Array> outputs(3);
  std::vector<std::thread> threads;
  threads.reserve(outputs.size());
  for (Array& output : outputs) {
    threads.emplace_back([&] { output = RunBackend(*backend, model, input); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Array& output : outputs) EXPECT_EQ(output.data, expected.data);
}

TEST_F(OnnxRuntimeTest, SaysWhatItIs) {
  const BackendStatus status = QueryOnnxRuntime(options_, 0);
  EXPECT_THAT(status.detail, HasSubstr("ONNX Runtime 1."));
  EXPECT_THAT(status.detail, HasSubstr("CPUExecutionProvider"));
  options_.threads = 1;
  EXPECT_THAT(Make(LoadWeights("stress_one_stage"))->Description(), HasSubstr("CPU, 1 thread"));
}

TEST_F(OnnxRuntimeTest, CudaIsUsableOrSaysWhyNot) {
  const BackendStatus status = QueryOnnxRuntimeCuda(options_, 0);
  EXPECT_EQ(status.usable, status.remedy.empty());
  EXPECT_FALSE(status.detail.empty());
}

TEST(OnnxRuntimeLibrary, AbsentOrOtherLibrariesAreNamed) {
  Options options;
  options.onnxruntime_library = "/nowhere/libonnxruntime.so";
  BackendStatus status = QueryOnnxRuntime(options, 0);
  EXPECT_FALSE(status.usable);
  EXPECT_THAT(status.detail, HasSubstr("/nowhere/libonnxruntime.so"));
  EXPECT_THAT(status.remedy, HasSubstr("pip install onnxruntime"));
  options.onnxruntime_library = "libm.so.6";
  status = QueryOnnxRuntime(options, 0);
  EXPECT_FALSE(status.usable);
  EXPECT_THAT(status.detail, HasSubstr("is not ONNX Runtime's library"));
}

}  // namespace
}  // namespace mstpp::testing
