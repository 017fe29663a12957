// SPDX-License-Identifier: Apache-2.0
#include "io/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "cube_testing.h"

namespace mstpp {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;

class NpyTest : public FolderTest {
 protected:
  std::string Write(const std::string& header, const std::string& data, int version = 1) {
    std::string bytes = "\x93NUMPY";
    bytes += static_cast<char>(version);
    bytes += '\0';
    const size_t length_bytes = version == 1 ? 2 : 4;
    for (size_t i = 0; i < length_bytes; ++i) {
      bytes += static_cast<char>(header.size() >> (8 * i));
    }
    WriteBytes(Path("a.npy"), bytes + header + data);
    return Path("a.npy");
  }

  std::string WriteArray(const std::string& type, const std::string& shape, const std::string& data,
                         int version = 1) {
    return Write("{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }\n",
                 data, version);
  }

  static std::vector<float> ReadAll(const std::string& path) {
    NpyReader reader(path);
    std::vector<float> numbers(static_cast<size_t>(reader.elements()));
    reader.Read(numbers.data(), reader.elements());
    return numbers;
  }

  Error ErrorIn(const std::string& path) {
    return ErrorOf([&] { ReadAll(path); });
  }

  const std::string kOneTwo{"\x00\x00\x80\x3F\x00\x00\x00\x40", 8};  // 1 and 2
};

TEST_F(NpyTest, WrittenInPiecesReadInOthers) {
  std::vector<float> numbers(2 * 3 * 5 * 7);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i) / 3;
  NpyWriter writer(Path("a.npy"), {2, 3, 5, 7});
  writer.Write(numbers.data(), 100);
  writer.Write(numbers.data() + 100, 110);
  EXPECT_THAT(Names(), ::testing::Not(::testing::Contains("a.npy")));
  writer.Commit();
  NpyReader reader(Path("a.npy"));
  EXPECT_THAT(reader.shape(), ElementsAre(2, 3, 5, 7));
  EXPECT_EQ(reader.elements(), 210);
  std::vector<float> back(210);
  for (size_t i = 0; i < 210; i += 30) reader.Read(back.data() + i, 30);
  EXPECT_EQ(back, numbers);
}

TEST_F(NpyTest, HeadersAsNumPyWritesThem) {
  NpyWriter(Path("a.npy"), {}).Write(nullptr, 0);
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{2}, {0}, {1, 2}, {2, 1, 1, 1, 1}}) {
    NpyWriter writer(Path("a.npy"), shape);
    if (shape[0] != 0) writer.Write(reinterpret_cast<const float*>(kOneTwo.data()), 2);
    writer.Commit();
    const std::string bytes = ReadBytes(Path("a.npy"));
    const size_t numbers = shape[0] == 0 ? 0 : 8;
    EXPECT_EQ((bytes.size() - numbers) % 64, 0);
    EXPECT_EQ(bytes[bytes.size() - numbers - 1], '\n');
    EXPECT_EQ(NpyReader(Path("a.npy")).shape(), shape);
  }
}

TEST_F(NpyTest, ShortArraysAreNotCommitted) {
  NpyWriter writer(Path("a.npy"), {2, 2});
  writer.Write(reinterpret_cast<const float*>(kOneTwo.data()), 2);
  EXPECT_EQ(ErrorOf([&] { writer.Commit(); }).code(), ErrorCode::kInternal);
}

TEST_F(NpyTest, VersionsTypesAndByteOrders) {
  for (const int version : {1, 2, 3}) {
    EXPECT_THAT(ReadAll(WriteArray("<f4", "(2,)", kOneTwo, version)), ElementsAre(1, 2));
  }
  const std::string swapped("\x3F\x80\x00\x00\x40\x00\x00\x00", 8);
  EXPECT_THAT(ReadAll(WriteArray(">f4", "(2,)", swapped)), ElementsAre(1, 2));
  const double numbers[] = {0.1, -1e-300};
  std::string doubles(16, '\0');
  std::memcpy(doubles.data(), numbers, 16);
  EXPECT_THAT(ReadAll(WriteArray("<f8", "(2,)", doubles)), ElementsAre(0.1F, 0));
  std::reverse(doubles.begin(), doubles.end());
  EXPECT_THAT(ReadAll(WriteArray(">f8", "(2,)", doubles)), ElementsAre(0, 0.1F));
}

TEST_F(NpyTest, OtherSpellingsOfTheHeader) {
  EXPECT_THAT(ReadAll(Write("{'shape':(1,2),'descr':'<f4','fortran_order':False}", kOneTwo)),
              ElementsAre(1, 2));
  // One dimension is contiguous either way.
  EXPECT_THAT(ReadAll(Write("{'descr': '<f4', 'fortran_order': True, 'shape': (2,)}", kOneTwo)),
              ElementsAre(1, 2));
}

TEST_F(NpyTest, ArraysThatAreNotRead) {
  const auto reason = [&](const std::string& path) {
    const Error error = ErrorIn(path);
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    return std::string(error.what());
  };
  EXPECT_THAT(reason(WriteArray("<i8", "(1,)", kOneTwo)), HasSubstr("astype('float32')"));
  EXPECT_THAT(reason(WriteArray("|O", "(1,)", kOneTwo)), HasSubstr("an array of '|O'"));
  EXPECT_THAT(reason(Write("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2)}", kOneTwo)),
              HasSubstr("ascontiguousarray"));
  EXPECT_THAT(reason(Write("{'descr': [('a', '<f4')], 'fortran_order': False}", kOneTwo)),
              HasSubstr("an array of structures"));
  EXPECT_THAT(reason(WriteArray("<f4", "(2,)", kOneTwo, 4)), HasSubstr("version 4.0 of the .npy"));
}

TEST_F(NpyTest, DamagedFiles) {
  const auto reason = [&](const std::string& path) {
    const Error error = ErrorIn(path);
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
    return std::string(error.what());
  };
  EXPECT_THAT(reason(WriteArray("<f4", "(3,)", kOneTwo)),
              HasSubstr("takes 12 bytes; the file has 8"));
  EXPECT_THAT(reason(WriteArray("<f4", "(1,)", kOneTwo)),
              HasSubstr("takes 4 bytes; the file has 8"));
  EXPECT_THAT(reason(WriteArray("<f4", "(-2,)", kOneTwo)), HasSubstr("shape (-2) cannot be"));
  EXPECT_THAT(reason(WriteArray("<f4", "(4294967296, 4294967296)", kOneTwo)),
              HasSubstr("(4294967296, 4294967296) cannot be"));
  EXPECT_THAT(reason(WriteArray("<f4", "(0, 9223372036854775807, 4)", kOneTwo)),
              HasSubstr("takes 0"));
  WriteBytes(Path("a.npy"), "PK\x03\x04 and so on");
  EXPECT_THAT(reason(Path("a.npy")), HasSubstr("does not begin as a .npy file"));
  for (const char* header :
       {"", "{", "}", "{}", "{'descr'", "{'descr': }", "{'descr': '<f4'",
        "{'descr': '<f4', 'x': 1}", "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 2}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"}) {
    EXPECT_THAT(reason(Write(header, kOneTwo)), HasSubstr(".npy header")) << header;
  }
  const std::string whole = ReadBytes(WriteArray("<f4", "(2,)", kOneTwo));
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    WriteBytes(Path("a.npy"), whole.substr(0, bytes));
    EXPECT_THAT(ErrorIn(Path("a.npy")).code(),
                AnyOf(Eq(ErrorCode::kCorrupt), Eq(ErrorCode::kUnsupported)));
  }
}

}  // namespace
}  // namespace mstpp
