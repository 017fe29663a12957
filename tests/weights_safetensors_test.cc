// SPDX-License-Identifier: Apache-2.0
#include "weights_testing.h"

namespace mstpp::weights_testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::string kThree = Raw<float>({1, 2, 3});

std::string One(const std::string& dtype, const std::string& shape, const std::string& data) {
  return MakeSafetensors("{\"w\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
                             ",\"data_offsets\":[0," + std::to_string(data.size()) + "]}}",
                         data);
}

void Refused(const std::string& header, const char* part) {
  ExpectError(MakeSafetensors(header, kThree), ErrorCode::kCorrupt, {part});
}

TEST(Safetensors, EveryType) {
  const auto read = [](const char* dtype, int count, const std::string& data) {
    return Read(One(dtype, "[" + std::to_string(count) + "]", data)).tensors.at("w").data;
  };
  EXPECT_THAT(read("F64", 1, Raw<double>({0.5})), ElementsAre(0.5F));
  EXPECT_THAT(read("F32", 3, kThree), ElementsAre(1, 2, 3));
  EXPECT_THAT(read("F16", 1, Raw<uint16_t>({0xC000})), ElementsAre(-2));
  EXPECT_THAT(read("BF16", 1, Raw<uint16_t>({0x4040})), ElementsAre(3));
  EXPECT_THAT(read("I64", 1, Raw<int64_t>({-7})), ElementsAre(-7));
  EXPECT_THAT(read("I32", 1, Raw<int32_t>({-7})), ElementsAre(-7));
  EXPECT_THAT(read("I16", 1, Raw<int16_t>({-7})), ElementsAre(-7));
  EXPECT_THAT(read("I8", 1, Raw<int8_t>({-7})), ElementsAre(-7));
  EXPECT_THAT(read("U64", 1, Raw<uint64_t>({7})), ElementsAre(7));
  EXPECT_THAT(read("U32", 1, Raw<uint32_t>({7})), ElementsAre(7));
  EXPECT_THAT(read("U16", 1, Raw<uint16_t>({7})), ElementsAre(7));
  EXPECT_THAT(read("U8", 2, Raw<uint8_t>({7, 255})), ElementsAre(7, 255));
  EXPECT_THAT(read("BOOL", 2, Raw<uint8_t>({0, 1})), ElementsAre(0, 1));
  ExpectError(One("F8_E4M3", "[3]", "abc"), ErrorCode::kUnsupported, {"'w'", "F8_E4M3"});
}

TEST(Safetensors, ScalarsEmptyTensorsAndMetadata) {
  const WeightsFile file = Read(MakeSafetensors(
      R"({"__metadata__":{"name":"x"},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("e":{"dtype":"F32","shape":[2,0],"data_offsets":[4,4]},)"
      R"("w":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]}}   )",
      kThree));
  EXPECT_EQ(file.format, "safetensors");
  EXPECT_EQ(file.metadata.at("name"), "x");
  EXPECT_THAT(file.tensors.at("s").shape, IsEmpty());
  EXPECT_THAT(file.tensors.at("s").data, ElementsAre(1));
  EXPECT_THAT(file.tensors.at("e").shape, ElementsAre(2, 0));
  EXPECT_THAT(file.tensors.at("e").data, IsEmpty());
  EXPECT_THAT(file.tensors.at("w").data, ElementsAre(2, 3));
}

TEST(Safetensors, LengthsOfTheHeader) {
  const std::string good = One("F32", "[3]", kThree);
  for (const uint64_t length : {uint64_t{1} << 20, uint64_t{1} << 40, UINT64_MAX}) {
    std::string bytes = good;
    ExpectError(bytes.replace(0, 8, Le(length, 8)), ErrorCode::kCorrupt, {"bytes"});
  }
}

TEST(Safetensors, HeadersThatAreWrong) {
  Refused("{", "JSON");
  Refused("{}x", "JSON");
  Refused("{\"a\xff\":1}", "JSON");
  Refused("{}", "12 bytes belong to no tensor");
  Refused(R"({"w":1})", "dtype, shape and data_offsets");
  Refused(R"({"w":{"dtype":"F32","shape":[3]}})", "data_offsets");
  Refused(R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,12],"x":1}})", "data_offsets");
  Refused(R"({"w":{"dtype":4,"shape":[3],"data_offsets":[0,12]}})", "dtype");
  Refused(R"({"w":{"dtype":"F32","shape":3,"data_offsets":[0,12]}})", "shape");
  Refused(R"({"w":{"dtype":"F32","shape":[-3],"data_offsets":[0,12]}})", "shape");
  Refused(R"({"w":{"dtype":"F32","shape":[3.0],"data_offsets":[0,12]}})", "shape");
  Refused(R"({"w":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,12]}})", "shape");
  Refused(R"({"w":{"dtype":"F32","shape":[1e999],"data_offsets":[0,12]}})", "JSON");
  Refused(R"({"w":{"dtype":"F32","shape":[[3]],"data_offsets":[0,12]}})", "deeply");
  Refused("{\"w\":" + std::string(100000, '[') + "}", "deeply");
  Refused(R"({"__metadata__":1})", "metadata");
  Refused(R"({"__metadata__":{"a":1}})", "metadata 'a'");
}

TEST(Safetensors, PlacesThatAreWrong) {
  const auto one = [](const char* shape, const char* offsets) {
    return R"({"w":{"dtype":"F32","shape":)" + std::string(shape) + R"(,"data_offsets":)" +
           offsets + "}}";
  };
  Refused(one("[3]", "[0]"), "data_offsets");
  Refused(one("[3]", "[12,0]"), "data_offsets");
  Refused(one("[3]", "[0,16]"), "cut off");
  Refused(one("[3]", "[0,9223372036854775807]"), "cut off");
  Refused(one("[2]", "[0,12]"), "disagree");
  Refused(one("[3]", "[0,11]"), "disagree");
  Refused(one("[4611686018427387904,4]", "[0,12]"), "shape");
  Refused(one("[2]", "[0,8]"), "belong to no tensor");
  Refused(one("[2]", "[4,12]"), "gap");
  const auto two = [](const char* a, const char* b) {
    return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)" + std::string(a) +
           R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":)" + b + "}}";
  };
  EXPECT_EQ(Read(MakeSafetensors(two("[4,12]", "[0,4]"), kThree)).tensors.size(), 2);
  Refused(two("[0,8]", "[4,8]"), "overlap");
  Refused(two("[0,8]", "[0,4]"), "overlap");
}

TEST(Safetensors, KeysThatOccurTwice) {
  const std::string w = R"("w":{"dtype":"F32","shape":[3],"data_offsets":[0,12]})";
  Refused("{" + w + "," + w + "}", "'w' is in its JSON twice");
  Refused(R"({"w":{"dtype":"F32","dtype":"F32","shape":[3],"data_offsets":[0,12]}})", "twice");
}

}  // namespace
}  // namespace mstpp::weights_testing
