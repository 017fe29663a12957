// SPDX-License-Identifier: Apache-2.0
// Cube files that are damaged, and ENVI files of other origin.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "cube_testing.h"

// HDF5 loses some memory whenever it refuses a damaged file.
extern "C" const char* __lsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier)
  return "leak:libhdf5";
}

namespace mstpp {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;

class DamagedTest : public FolderTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    cube_ = MakeCube(2, 3, 4);
    cube_.provenance = MakeProvenance();
    WriteCube(path_ = Path(std::string("cube") + GetParam()), cube_);
  }

  Cube cube_;
  std::string path_;
};

INSTANTIATE_TEST_SUITE_P(Formats, DamagedTest, ::testing::Values(".mat", ".hdr", ".npy", ".tif"),
                         [](const auto& info) { return std::string(info.param + 1); });

TEST_P(DamagedTest, CutAnywhere) {
  for (const std::string& file : CubePaths(path_)) {
    const std::string whole = ReadBytes(file);
    for (size_t bytes = whole.size(); bytes-- > 0;) {
      std::filesystem::resize_file(file, bytes);
      try {
        const Cube read = ReadCube(path_);
        // Only the end of a text may be missing.
        ASSERT_TRUE(file.ends_with(".hdr") || bytes + 1 == whole.size()) << file << ": " << bytes;
        ASSERT_TRUE(read.data == cube_.data) << file << " cut at " << bytes;
      } catch (const Error& error) {
        ASSERT_THAT(error.code(), AnyOf(Eq(ErrorCode::kCorrupt), Eq(ErrorCode::kUnsupported)));
        ASSERT_FALSE(error.where().empty());
      }
    }
    WriteBytes(file, whole);
  }
}

// Whatever is read, nothing crashes and nothing else than Error is thrown.
TEST_P(DamagedTest, AnyBitWrong) {
  int refused = 0;
  for (const std::string& file : CubePaths(path_)) {
    const std::string bytes = ReadBytes(file);
    std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
    const auto put = [&](size_t at, int byte) {
      stream.seekp(static_cast<std::streamoff>(at));
      stream.put(static_cast<char>(byte)).flush();
    };
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      put(bit / 8, bytes[bit / 8] ^ (1 << bit % 8));
      try {
        const Cube read = ReadCube(path_);
        ASSERT_EQ(read.data.size(), static_cast<size_t>(read.bands * read.pixels()));
      } catch (const Error&) {
        ++refused;
      }
      put(bit / 8, bytes[bit / 8]);
    }
  }
  EXPECT_GT(refused, 50);
  ExpectEqual(ReadCube(path_), cube_);
}

TEST_P(DamagedTest, NothingIsPrinted) {
  const std::string data = CubePaths(path_)[0];
  std::filesystem::resize_file(data, std::filesystem::file_size(data) / 2);
  ::testing::internal::CaptureStderr();
  EXPECT_THROW(ReadCube(path_), Error);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

herr_t CountErrors(hid_t, void* count) {
  ++*static_cast<int*>(count);
  return 0;
}

TEST_P(DamagedTest, TheProgramsOwnUseOfHdf5IsLeftAlone) {
  int errors = 0;
  ASSERT_GE(H5Eset_auto2(H5E_DEFAULT, CountErrors, &errors), 0);
  ReadCube(path_);
  std::filesystem::resize_file(CubePaths(path_)[0], 20);
  EXPECT_THROW(ReadCube(path_), Error);
  EXPECT_EQ(errors, 0);
  EXPECT_LT(H5Fopen("none", H5F_ACC_RDONLY, H5P_DEFAULT), 0);
  EXPECT_EQ(errors, 1);
  ASSERT_GE(H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr), 0);
}

class ReadCubeTest : public FolderTest {
 protected:
  // Reads an ENVI pair whose usual header is changed: "lines = 3" sets a field, "-lines" removes
  // it.
  Cube ReadEnvi(const std::string& data, const std::vector<std::string>& changes) {
    std::map<std::string, std::string> fields = {{"samples", "3"},    {"lines", "2"},
                                                 {"bands", "2"},      {"data type", "1"},
                                                 {"byte order", "0"}, {"interleave", "bsq"}};
    for (const std::string& change : changes) {
      const size_t equals = change.find(" = ");
      if (equals == std::string::npos) {
        fields.erase(change.substr(1));
      } else {
        fields[change.substr(0, equals)] = change.substr(equals + 3);
      }
    }
    std::string header = "ENVI\n";
    for (const auto& [name, value] : fields) header += name + " = " + value + "\n";
    WriteBytes(Path("a.hdr"), header);
    WriteBytes(Path("a.img"), data);
    return ReadCube(Path("a.hdr"));
  }

  Error EnviError(const std::string& data, const std::vector<std::string>& changes) {
    return ErrorOf([&] { ReadEnvi(data, changes); });
  }

  template <typename T>
  static std::string Bytes(const std::vector<T>& values, bool big_endian = false) {
    std::string bytes;
    for (const T& value : values) {
      char one[sizeof(T)];
      std::memcpy(one, &value, sizeof(T));
      if (big_endian) std::reverse(one, one + sizeof(T));
      bytes.append(one, sizeof(T));
    }
    return bytes;
  }

  const std::string kTwelve = "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C";
};

TEST_F(ReadCubeTest, EnviInterleaves) {
  EXPECT_THAT(ReadEnvi(kTwelve, {}).data, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
  EXPECT_THAT(ReadEnvi(kTwelve, {"interleave = BIL"}).data,
              ElementsAre(1, 2, 3, 7, 8, 9, 4, 5, 6, 10, 11, 12));
  EXPECT_THAT(ReadEnvi(kTwelve, {"interleave = Bip"}).data,
              ElementsAre(1, 3, 5, 7, 9, 11, 2, 4, 6, 8, 10, 12));
}

template <typename T>
class EnviTypeTest : public ReadCubeTest {};

template <typename T, int kType>
struct EnviType {
  using Number = T;
  static constexpr int kNumber = kType;
};
using EnviTypes = ::testing::Types<EnviType<uint8_t, 1>, EnviType<int16_t, 2>, EnviType<int32_t, 3>,
                                   EnviType<float, 4>, EnviType<double, 5>, EnviType<uint16_t, 12>,
                                   EnviType<uint32_t, 13>>;
TYPED_TEST_SUITE(EnviTypeTest, EnviTypes);

TYPED_TEST(EnviTypeTest, BothByteOrders) {
  using Number = typename TypeParam::Number;
  const auto least = static_cast<Number>(-1.5);
  const std::vector<Number> values = {least, 0, 1, 2, 3, 200};
  for (const bool big : {false, true}) {
    const Cube cube = this->ReadEnvi(
        this->Bytes(values, big), {"bands = 1", "data type = " + std::to_string(TypeParam::kNumber),
                                   std::string("byte order = ") + (big ? "1" : "0")});
    EXPECT_THAT(cube.data, ElementsAre(static_cast<float>(least), 0, 1, 2, 3, 200));
  }
}

TEST_F(ReadCubeTest, EnviHeadersAsOthersWriteThem) {
  WriteBytes(Path("a.img"), "skip" + kTwelve);
  WriteBytes(Path("a.hdr"),
             "ENVI\r\n"
             "; a comment = {\r\n"
             "description = {made {elsewhere}\r\n by hand}\r\n"
             "Samples= 3\r\n"
             "LINES   =2\r\n"
             "\r\n"
             "bands = 2\r\n"
             "Header Offset = 4\r\n"
             "data type = 1\r\n"
             "Interleave = BSQ\r\n"
             "sensor type = Unknown\r\n"
             "wavelength units = Micrometers\r\n"
             "wavelength = {0.4,\r\n"
             "; in between\r\n"
             "  7.1e-1}");
  const Cube cube = ReadCube(Path("a.img"));
  EXPECT_EQ(cube.data.size(), 12);
  EXPECT_EQ(cube.data[0], 1);
  EXPECT_THAT(cube.wavelengths_nm, ElementsAre(400, 710));
  ExpectEqual(cube.provenance, {});
}

TEST_F(ReadCubeTest, EnviWavelengthUnits) {
  const auto wavelengths = [&](const std::string& list, const std::vector<std::string>& units) {
    std::vector<std::string> changes = units;
    changes.push_back("wavelength = {" + list + "}");
    return ReadEnvi(kTwelve, changes).wavelengths_nm;
  };
  EXPECT_THAT(wavelengths("400, 700", {"wavelength units = nm"}), ElementsAre(400, 700));
  EXPECT_THAT(wavelengths("400, 700", {}), ElementsAre(400, 700));
  EXPECT_THAT(wavelengths("0.5, 12", {}), ElementsAre(500, 12000));
  EXPECT_THAT(wavelengths("0.5, 2", {"wavelength units = Unknown"}), ElementsAre(500, 2000));
  EXPECT_THAT(wavelengths("0.5, 2,", {"wavelength units = um"}), ElementsAre(500, 2000));
  EXPECT_THAT(wavelengths("1, 2", {"wavelength units = Index"}), ElementsAre());
  EXPECT_THAT(wavelengths("25000, 2000", {"wavelength units = Wavenumber"}), ElementsAre());
}

TEST_F(ReadCubeTest, EnviHeadersThatAreWrong) {
  const auto expect = [&](const std::string& change, const std::string& reason) {
    const Error error = EnviError(kTwelve, {change});
    EXPECT_THAT(error.code(), AnyOf(Eq(ErrorCode::kCorrupt), Eq(ErrorCode::kUnsupported)));
    EXPECT_THAT(error.what(), HasSubstr(reason)) << change;
  };
  expect("-samples", "'samples' is missing");
  expect("-interleave", "'interleave' is not bsq, bil or bip");
  expect("interleave = bsx", "'interleave' is not bsq, bil or bip");
  expect("samples = 0", "'samples = 0' is not an integer from 1");
  expect("samples = -3", "not an integer");
  expect("samples = 3.0", "not an integer");
  expect("samples = 99999999999999999999", "not an integer");
  expect("samples = 1099511627776", "its header");
  expect("data type = 6", "data type 6; 1, 2, 3, 4, 5, 12 and 13 are read");
  expect("data type = 4", "12 bytes; its header");
  expect("lines = 1", "12 bytes; its header");
  expect("header offset = 1", "12 bytes; its header");
  expect("header offset = 13", "12 bytes; its header");
  expect("byte order = 2", "'byte order = 2'");
  expect("file compression = 1", "compressed data");
  expect("wavelength = {400}", "1 wavelengths for 2 bands");
  expect("wavelength = {400, x}", "'wavelength' 2 is not a positive number");
  expect("wavelength = {400, -1}", "'wavelength' 2 is not a positive number");
  expect("wavelength = {400, 410", "the braces of 'wavelength' are not closed");
  expect("x = 1\nx = 1", "the field 'x' is given twice");
  const Error error =
      EnviError(Bytes<float>(std::vector<float>(12)), {"data type = 4", "-byte order"});
  EXPECT_THAT(error.what(), HasSubstr("'byte order' is missing"));
}

TEST_F(ReadCubeTest, EnviHeaderOfMoreThanAddressable) {
  const Error error = EnviError(
      kTwelve, {"samples = 1099511627776", "lines = 1099511627776", "bands = 1099511627776"});
  EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  EXPECT_THAT(error.what(), HasSubstr("cannot be"));
}

TEST_F(ReadCubeTest, HalfAnEnviPair) {
  WriteCube(Path("a.hdr"), MakeCube(1, 2, 3));
  std::filesystem::remove(Path("a.img"));
  Error error = ErrorOf([&] { ReadCube(Path("a.hdr")); });
  EXPECT_EQ(error.code(), ErrorCode::kNotFound);
  EXPECT_THAT(error.what(), HasSubstr("a.img is not there"));
  EXPECT_EQ(ErrorOf([&] { ReadCube(Path("a.img")); }).code(), ErrorCode::kNotFound);

  WriteBytes(Path("b.img"), kTwelve);
  error = ErrorOf([&] { ReadCube(Path("b.img")); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(error.what(), HasSubstr("its header " + Path("b.hdr") + " beside it"));
}

TEST_F(ReadCubeTest, FilesThatAreNoCubes) {
  EXPECT_EQ(ErrorOf([&] { ReadCube(Path("none.mat")); }).code(), ErrorCode::kNotFound);
  EXPECT_EQ(ErrorOf([&] { ReadCube(folder_.string()); }).code(), ErrorCode::kIo);
  EXPECT_EQ(ErrorOf([] { ReadCube("/dev/null"); }).code(), ErrorCode::kIo);
  WriteBytes(Path("empty.mat"), "");
  EXPECT_EQ(ErrorOf([&] { ReadCube(Path("empty.mat")); }).code(), ErrorCode::kUnsupported);
  WriteBytes(Path("old.mat"), "MATLAB 5.0 MAT-file, Platform: GLNXA64" + std::string(500, ' '));
  const Error error = ErrorOf([&] { ReadCube(Path("old.mat")); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(error.what(), HasSubstr("save(..., '-v7.3')"));
}

TEST_F(ReadCubeTest, TheMetadataBesideNpy) {
  const Cube cube = MakeCube(2, 3, 4);
  WriteCube(Path("a.npy"), cube);
  const auto reason = [&](const std::string& json) {
    WriteBytes(Path("a.json"), json);
    const Error error = ErrorOf([&] { ReadCube(Path("a.npy")); });
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt) << json;
    EXPECT_EQ(error.where(), Path("a.json"));
    return std::string(error.what());
  };
  EXPECT_THAT(reason("no"), HasSubstr("not JSON"));
  EXPECT_THAT(reason("[400, 410]"), HasSubstr("not JSON"));
  EXPECT_THAT(reason(R"({"wavelengths_nm": [400]})"), HasSubstr("not a list of 2 numbers"));
  EXPECT_THAT(reason(R"({"wavelengths_nm": 400})"), HasSubstr("not a list of 2 numbers"));
  EXPECT_THAT(reason(R"({"wavelengths_nm": [400, "x"]})"), HasSubstr("not a positive number"));
  EXPECT_THAT(reason(R"({"wavelengths_nm": [400, 0]})"), HasSubstr("not a positive number"));
  EXPECT_THAT(reason(R"({"mstpp": 1})"), HasSubstr("\"mstpp\" is not a JSON object"));
  EXPECT_THAT(reason(R"({"mstpp": {"backend": 1}})"), HasSubstr("\"backend\" is of the wrong"));
  EXPECT_THAT(reason(R"({"mstpp": {"clipped": 1}})"), HasSubstr("\"clipped\" is of the wrong"));
  EXPECT_THAT(reason(R"({"mstpp": {"scale_min": ""}})"), HasSubstr("\"scale_min\" is of the"));
  WriteBytes(Path("a.json"),
             R"({"backend": 1, "wavelengths_nm": [400, 410.5], "mstpp": {"x": 2}})");
  EXPECT_THAT(ReadCube(Path("a.npy")).wavelengths_nm, ElementsAre(400, 410.5));
  std::filesystem::remove(Path("a.json"));
  EXPECT_TRUE(ReadCube(Path("a.npy")).wavelengths_nm.empty());
}

}  // namespace
}  // namespace mstpp
