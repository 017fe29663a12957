// SPDX-License-Identifier: Apache-2.0
// Weights as files: golden and bundled ones, round trips, and what every format refuses.
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "core/sha256.h"
#include "weights_testing.h"

namespace mstpp::weights_testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kGolden = MSTPP_TEST_DATA "/golden/";
const std::string kBundled = MSTPP_SOURCE_DIR "/weights/mst_plus_plus_cave.safetensors";
constexpr size_t kParameters = 1619625;

std::string Slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

size_t Parameters(const StateDict& tensors) {
  size_t parameters = 0;
  for (const auto& [name, tensor] : tensors) parameters += tensor.data.size();
  return parameters;
}

void ExpectSame(const StateDict& a, const StateDict& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    EXPECT_EQ(tensor.shape, b.at(name).shape) << name;
    EXPECT_EQ(Raw(tensor.data), Raw(b.at(name).data)) << name;  // bit for bit
  }
}

class WeightsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "mstpp_weights_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  fs::path folder_;
};

TEST_F(WeightsTest, GoldenCheckpoints) {
  const WeightsFile stress = ReadWeights(kGolden + "stress.pth", false);
  EXPECT_EQ(stress.format, "pth");
  EXPECT_EQ(stress.tensors.size(), 227);
  EXPECT_EQ(Parameters(stress.tensors), kParameters);
  EXPECT_THAT(stress.tensors.at("conv_in.weight").shape, ElementsAre(31, 3, 3, 3));
  EXPECT_THAT(stress.tensors.at("body.2.bottleneck.blocks.0.0.rescale").shape,
              ElementsAre(4, 1, 1));
  const std::string bytes = Slurp(kGolden + "stress.pth");
  EXPECT_EQ(stress.sha256, Sha256(bytes.data(), bytes.size()));

  const WeightsFile one_stage = ReadWeights(kGolden + "stress_one_stage.pth", false);
  EXPECT_EQ(Parameters(one_stage.tensors), 546199);
  EXPECT_TRUE(one_stage.tensors.contains("module.conv_in.weight"));  // stripped by the model
  EXPECT_EQ(Parameters(ReadWeights(kGolden + "mstpp_seed0.pth", false).tensors), kParameters);
}

TEST_F(WeightsTest, BundledWeights) {
  const WeightsFile file = ReadWeights(kBundled, false);
  EXPECT_EQ(file.format, "safetensors");
  EXPECT_EQ(Parameters(file.tensors), kParameters);
  EXPECT_EQ(file.metadata.at("name"), "mst_plus_plus_cave");
  EXPECT_EQ(file.metadata.at("scaling"), "unit");
  EXPECT_THAT(file.metadata.at("wavelengths_nm"), AllOf(HasSubstr("400,410,"), HasSubstr(",700")));
  EXPECT_THAT(file.metadata.at("license"), AllOf(HasSubstr("Apache-2.0"), HasSubstr("CAVE")));
  EXPECT_FALSE(file.metadata.at("description").empty());
}

TEST_F(WeightsTest, RoundTripsAreExactAndTheSameBytesEveryTime) {
  const StateDict tensors = ReadWeights(kGolden + "stress_one_stage.pth", false).tensors;
  const std::map<std::string, std::string> metadata = {{"name", "stress \"1\""}, {"unit", "µm\n"}};
  for (const std::string extension : {"safetensors", "npz"}) {
    SCOPED_TRACE(extension);
    const auto write = extension == "npz" ? WriteNpz : WriteSafetensors;
    const std::string first = Path("1." + extension), second = Path("2." + extension);
    write(first, tensors, metadata);
    const WeightsFile file = ReadWeights(first, false);
    EXPECT_EQ(file.format, extension);
    EXPECT_EQ(file.metadata, metadata);
    ExpectSame(file.tensors, tensors);
    write(second, file.tensors, file.metadata);
    EXPECT_EQ(Slurp(first), Slurp(second));
  }
}

TEST_F(WeightsTest, WrittenTensorsOfEveryRank) {
  StateDict tensors;
  tensors["scalar"] = {{}, {1.5F}};
  tensors["empty"] = {{0}, {}};
  tensors["vector"] = {{2}, {-0.0F, std::numeric_limits<float>::denorm_min()}};
  tensors["deep"] = {{1, 1, 2, 1, 1, 1, 1, 1}, {1, std::numeric_limits<float>::max()}};
  WriteSafetensors(Path("w.safetensors"), tensors, {});
  WriteNpz(Path("w.npz"), tensors, {});
  for (const char* name : {"w.safetensors", "w.npz"}) {
    const WeightsFile file = ReadWeights(Path(name), false);
    ExpectSame(file.tensors, tensors);
    EXPECT_TRUE(file.metadata.empty());
  }
}

TEST_F(WeightsTest, SafetensorsDataAreAligned) {
  for (const char* name : {"a", "ab", "abc", "abcd"}) {
    WriteSafetensors(Path("w"), {{name, {{1}, {1}}}}, {});
    EXPECT_EQ((Slurp(Path("w")).size() - sizeof(float)) % 8, 0);
  }
}

TEST_F(WeightsTest, WritersRefuseWhatNoReaderWouldTake) {
  const auto refused = [&](const StateDict& tensors,
                           const std::map<std::string, std::string>& metadata) {
    for (const auto write : {WriteSafetensors, WriteNpz}) {
      try {
        write(Path("w"), tensors, metadata);
        ADD_FAILURE() << "was written";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << error.what();
      }
      EXPECT_TRUE(fs::is_empty(folder_));
    }
  };
  const Tensor one = {{1}, {1}};
  refused({}, {});
  refused({{"", one}}, {});
  refused({{"a\nb", one}}, {});
  refused({{"__metadata__", one}}, {});
  refused({{"__metadata__.json", one}}, {});
  refused({{"a", {{2}, {1}}}}, {});
  refused({{"a", {{-1}, {1}}}}, {});
  refused({{"a", {std::vector<int64_t>(9, 1), {1}}}}, {});
  refused({{"a", one}}, {{"name", "\xff"}});
}

TEST_F(WeightsTest, WritersSayWhyTheyCannotWrite) {
  for (const auto write : {WriteSafetensors, WriteNpz}) {
    try {
      write(Path("missing/w"), {{"a", {{1}, {1}}}}, {});
      ADD_FAILURE() << "was written";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
      EXPECT_THAT(error.what(), AllOf(HasSubstr("missing/w"), HasSubstr("create it")));
    }
  }
}

ErrorCode CodeOf(const std::string& path) {
  try {
    ReadWeights(path, false);
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), path);
    return error.code();
  }
  return ErrorCode::kInternal;
}

TEST_F(WeightsTest, FilesThatCannotBeRead) {
  EXPECT_EQ(CodeOf(Path("missing")), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf(folder_.string()), ErrorCode::kIo);
  EXPECT_EQ(CodeOf("/dev/zero"), ErrorCode::kIo);
  std::ofstream(Path("empty"));
  EXPECT_EQ(CodeOf(Path("empty")), ErrorCode::kCorrupt);
  std::ofstream(Path("huge"));
  fs::resize_file(Path("huge"), (uint64_t{4} << 30) + 1);  // sparse
  EXPECT_EQ(CodeOf(Path("huge")), ErrorCode::kUnsupported);
}

TEST_F(WeightsTest, OtherContents) {
  for (const char* text : {"x", "not weights at all", "PK", "\x89HDF\r\n\x1a\n"}) {
    ExpectError(text, ErrorCode::kUnsupported, {"no format of weights"});
  }
  ExpectError("\x08\x07\x12\x07pytorch", ErrorCode::kCorrupt,
              {"ONNX file holds no graph", "download it again"});
}

TEST_F(WeightsTest, NotANumberAndInfinityAreRefusedUnlessAllowed) {
  const auto formats = [](float last) {
    const std::string data = Raw<float>({0, 0, 0, last});
    return std::vector<std::string>{
        MakeZip({{"w.npy",
                  MakeNpy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}", data)}}),
        MakeSafetensors(R"({"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})", data),
        MakePth(PickleDict({{"w", PickleTensor(PickleStorage("FloatStorage", "0", 4), 0, {2, 2},
                                               {2, 1})}}),
                {{"0", data}})};
  };
  for (const std::string& bytes : formats(NAN)) {
    ExpectError(bytes, ErrorCode::kCorrupt, {"tensor 'w'", "[1, 1]", "not a number"});
    EXPECT_TRUE(std::isnan(Read(bytes, true).tensors.at("w").data[3]));
  }
  for (const std::string& bytes : formats(-INFINITY)) {
    ExpectError(bytes, ErrorCode::kCorrupt, {"tensor 'w'", "[1, 1]", "infinite"});
    EXPECT_EQ(Read(bytes, true).tensors.at("w").data[3], -INFINITY);
  }
  // Finite as float64, but not as float32.
  const std::string wide = MakeSafetensors(
      R"({"w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", Raw<double>({1e300}));
  ExpectError(wide, ErrorCode::kCorrupt, {"[0]", "infinite as float32"});
}

}  // namespace
}  // namespace mstpp::weights_testing
