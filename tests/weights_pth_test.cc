// SPDX-License-Identifier: Apache-2.0
// PyTorch's files: what is read from them, and what is refused.
#include <cmath>

#include "weights_testing.h"

namespace mstpp::weights_testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::string kFloat3 = PickleStorage("FloatStorage", "0", 3);
const ZipPart kThree = {"0", Raw<float>({1, 2, 3})};

std::string OneTensor(const std::string& tensor, const std::vector<ZipPart>& storages) {
  return MakePth(PickleDict({{"w", tensor}}), storages);
}

std::vector<float> ReadOne(const std::string& bytes) { return Read(bytes).tensors.at("w").data; }

void ExpectPickleError(const std::string& value, ErrorCode code,
                       const std::vector<std::string>& parts) {
  ExpectError(MakePth(value, {kThree}), code, parts);
}

TEST(Pth, BareAndWrappedStateDicts) {
  const WeightsFile bare = Read(SmallPth());
  EXPECT_EQ(bare.format, "pth");
  EXPECT_THAT(bare.metadata, IsEmpty());
  EXPECT_THAT(bare.tensors.at("w").shape, ElementsAre(3));
  EXPECT_THAT(bare.tensors.at("w").data, ElementsAre(1, 2, 3));

  const std::string tensor = PickleTensor(kFloat3, 0, {3}, {1});
  const std::string state = PickleDict({{"module.w", tensor}});
  const std::string optimizer = PickleDict({{"state", PickleDict({{"exp_avg", tensor}})},
                                            {"lr", "G" + Le(0, 8)},
                                            {"params", "](" + PickleInt(1) + "e"}});
  const WeightsFile wrapped = Read(MakePth(
      PickleDict({{"epoch", PickleInt(3)}, {"state_dict", state}, {"optimizer", optimizer}}),
      {kThree}));
  EXPECT_EQ(wrapped.tensors.size(), 1);
  EXPECT_THAT(wrapped.tensors.at("module.w").data, ElementsAre(1, 2, 3));
}

TEST(Pth, OrderedDictsCarryTheirMetadataAsState) {
  const std::string tensor = PickleTensor(kFloat3, 0, {3}, {1});
  const std::string state = PickleGlobal("collections", "OrderedDict") + ")R(" + PickleText("w") +
                            tensor + "u" + PickleDict({{"_metadata", PickleDict({})}}) + "b";
  EXPECT_THAT(ReadOne(MakePth(state, {kThree})), ElementsAre(1, 2, 3));
}

TEST(Pth, ParametersAreTensors) {
  const std::string parameter = PickleGlobal("torch._utils", "_rebuild_parameter") +
                                PickleTuple({PickleTensor(kFloat3, 0, {3}, {1}), "\x88", "}"}) +
                                "R";
  EXPECT_THAT(ReadOne(OneTensor(parameter, {kThree})), ElementsAre(1, 2, 3));
}

TEST(Pth, EveryStorageType) {
  const auto read = [](const char* type, int64_t elements, const std::string& bytes) {
    const std::string tensor = PickleTensor(PickleStorage(type, "0", elements), 0, {elements}, {1});
    return ReadOne(OneTensor(tensor, {{"0", bytes}}));
  };
  EXPECT_THAT(read("DoubleStorage", 2, Raw<double>({-0.5, 1e30})), ElementsAre(-0.5F, 1e30F));
  EXPECT_THAT(read("LongStorage", 2, Raw<int64_t>({-5, int64_t{1} << 40})),
              ElementsAre(-5, 1099511627776.0F));
  EXPECT_THAT(read("IntStorage", 1, Raw<int32_t>({-70000})), ElementsAre(-70000));
  EXPECT_THAT(read("ShortStorage", 1, Raw<int16_t>({-300})), ElementsAre(-300));
  EXPECT_THAT(read("CharStorage", 2, Raw<int8_t>({-128, 127})), ElementsAre(-128, 127));
  EXPECT_THAT(read("ByteStorage", 1, Raw<uint8_t>({255})), ElementsAre(255));
  EXPECT_THAT(read("BoolStorage", 2, Raw<uint8_t>({0, 1})), ElementsAre(0, 1));
  EXPECT_THAT(read("BFloat16Storage", 2, Raw<uint16_t>({0x3F80, 0xC040})), ElementsAre(1, -3));
  EXPECT_THAT(
      read("HalfStorage", 6, Raw<uint16_t>({0x3C00, 0xC000, 0x7BFF, 0x0001, 0x03FF, 0x8000})),
      ElementsAre(1, -2, 65504, std::ldexp(1.0F, -24), std::ldexp(1023.0F, -24), -0.0F));
}

TEST(Pth, StridesAndSharedStorages) {
  const ZipPart six = {"0", Raw<float>({0, 1, 2, 3, 4, 5})};
  const std::string storage = PickleStorage("FloatStorage", "0", 6);
  const WeightsFile file =
      Read(MakePth(PickleDict({{"transposed", PickleTensor(storage, 0, {3, 2}, {1, 3})},
                               {"column", PickleTensor(storage, 1, {2}, {3})},
                               {"expanded", PickleTensor(storage, 5, {2, 2}, {0, 0})},
                               {"scalar", PickleTensor(storage, 4, {}, {})},
                               {"one", PickleTensor(storage, 3, {1, 1}, {INT64_MAX, 7})},
                               {"empty", PickleTensor(storage, 6, {0, 2}, {2, 1})}}),
                   {six}));
  EXPECT_THAT(file.tensors.at("transposed").data, ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_THAT(file.tensors.at("column").data, ElementsAre(1, 4));
  EXPECT_THAT(file.tensors.at("expanded").data, ElementsAre(5, 5, 5, 5));
  EXPECT_THAT(file.tensors.at("scalar").data, ElementsAre(4));
  EXPECT_THAT(file.tensors.at("scalar").shape, IsEmpty());
  EXPECT_THAT(file.tensors.at("one").data, ElementsAre(3));
  EXPECT_THAT(file.tensors.at("empty").data, IsEmpty());
}

TEST(Pth, ViewsThatLeaveTheirStorage) {
  const auto refused = [](int64_t offset, std::vector<int64_t> shape,
                          std::vector<int64_t> strides) {
    ExpectError(OneTensor(PickleTensor(kFloat3, offset, shape, strides), {kThree}),
                ErrorCode::kCorrupt, {"tensor 'w'"});
  };
  refused(0, {4}, {1});
  refused(1, {3}, {1});
  refused(0, {2}, {3});
  refused(-1, {1}, {1});
  refused(2, {2}, {-1});
  refused(0, {-1}, {1});
  refused(0, {2, 2}, {1});
  refused(1, {2, 2}, {INT64_MAX, INT64_MAX});
  refused(INT64_MAX, {2}, {INT64_MAX});
  refused(0, {INT64_MAX, INT64_MAX}, {0, 0});
}

TEST(Pth, ExpandedTensorsCannotFillTheMemory) {
  ExpectError(OneTensor(PickleTensor(kFloat3, 0, {int64_t{1} << 40}, {0}), {kThree}),
              ErrorCode::kUnsupported, {"tensor 'w'", "contiguous"});
  ExpectError(
      OneTensor(PickleTensor(kFloat3, 0, std::vector<int64_t>(9, 1), std::vector<int64_t>(9, 1)),
                {kThree}),
      ErrorCode::kUnsupported, {"tensor 'w'", "9 dimensions"});
}

TEST(Pth, StoragesThatAreWrong) {
  const auto tensor = [](const std::string& storage) { return PickleTensor(storage, 0, {1}, {1}); };
  const auto refused = [&](const std::string& storage, ErrorCode code, const char* part) {
    ExpectError(OneTensor(tensor(storage), {kThree}), code, {part});
  };
  refused(PickleStorage("FloatStorage", "1", 3), ErrorCode::kCorrupt, "'m/data/1'");
  refused(PickleStorage("FloatStorage", "0", 2), ErrorCode::kCorrupt, "12 bytes");
  refused(PickleStorage("FloatStorage", "0", -1), ErrorCode::kCorrupt, "-1 elements");
  refused(PickleStorage("DoubleStorage", "0", 1), ErrorCode::kCorrupt, "12 bytes");
  refused(PickleStorage("FloatStorage", "0", INT64_MAX / 4 + 4), ErrorCode::kCorrupt, "storage");
  refused(PickleStorage("UntypedStorage", "0", 12), ErrorCode::kUnsupported, "UntypedStorage");
  refused(PickleStorage("ComplexFloatStorage", "0", 1), ErrorCode::kUnsupported, "float()");
  refused(PickleInt(1), ErrorCode::kCorrupt, "storage");
}

TEST(Pth, NothingButPlainDataIsTouched) {
  const auto refused = [](const std::string& value, const char* name) {
    ExpectPickleError(value, ErrorCode::kUnsupported, {"data.pkl", name, "state_dict()"});
  };
  refused(PickleGlobal("os", "system") + PickleTuple({PickleText("true")}) + "R", "'os.system'");
  refused(PickleText("posix") + PickleText("system") + "\x93", "'posix.system'");
  refused(PickleGlobal("collections", "Counter"), "'collections.Counter'");
  refused(PickleGlobal("torch", "load"), "'torch.load'");
  refused(PickleGlobal("evil.Storage", "FloatStorage"), "'evil.Storage.FloatStorage'");
  refused(PickleGlobal("a\x1b[2J", "b"), "\\x1b");
  refused("cos\nsystem\n(R.", "'os.system'");
  refused("(ios\nsystem\n", "0x69");            // INST
  refused("(cos\nsystem\no", "'os.system'");    // OBJ
  refused(std::string("\x82\x01", 2), "0x82");  // EXT1
  refused("I1\n", "0x49");                      // a protocol of text
}

TEST(Pth, CallsThatPyTorchDoesNotMake) {
  const auto refused = [](const std::string& value) {
    ExpectPickleError(value, ErrorCode::kCorrupt, {"data.pkl", "byte"});
  };
  const std::string rebuild = PickleGlobal("torch._utils", "_rebuild_tensor_v2");
  refused(rebuild + ")R");
  refused(rebuild + PickleTuple(std::vector<std::string>(8, "N")) + "R");
  refused(PickleGlobal("torch._utils", "_rebuild_parameter") + PickleTuple({"N", "N", "N"}) + "R");
  refused(PickleGlobal("torch", "FloatStorage") + ")R");
  refused(PickleGlobal("collections", "OrderedDict") + PickleTuple({"N"}) + "R");
  refused("NNR");
  refused(PickleTuple({"N", "N"}) + "Q");
}

TEST(Pth, DamagedPickles) {
  for (const char* value :
       {"",          "N0",       "0",     "NN",       "(",      "(N",
        "t",         "N(0",      "]Na0e", "}NNNs(Nu", "}(Nu",   "Na",
        "NNs",       "]NNs",     "h\x01", "j\x01",    "q\x01",  "N(q\x01",
        "N\x85\x86", "\x8a\x09", "\x8a",  "cos",      "cos\nx", "X\xff\xff\xff\xff",
        "\x80\x06N", "N]b",      "\x87",  "N\x93",    "2",      "(2"}) {
    SCOPED_TRACE(value);
    ExpectPickleError(value, ErrorCode::kCorrupt, {"data.pkl"});
  }
  ExpectPickleError("N.N", ErrorCode::kCorrupt, {"after its end"});
}

TEST(Pth, PicklesAreBounded) {
  ExpectPickleError("(" + std::string((size_t{1} << 20) + 1, 'N') + "t", ErrorCode::kCorrupt,
                    {"more values"});
  ExpectPickleError(std::string((size_t{4} << 20) + 1, '('), ErrorCode::kUnsupported, {"bytes"});
  // Depth costs nothing: nothing recurs. Nor do cycles.
  std::string nested = "N";
  for (int i = 0; i < 200000; ++i) nested += '\x85';
  ExpectPickleError(nested, ErrorCode::kUnsupported, {"not a dict"});
  ExpectPickleError(
      "]q\x01h\x01"
      "a",
      ErrorCode::kUnsupported, {"not a dict"});
  ExpectPickleError("}q\x01" + PickleText("state_dict") + "h\x01s", ErrorCode::kUnsupported,
                    {"'state_dict'"});
}

TEST(Pth, ContentThatIsNoStateDict) {
  ExpectPickleError(PickleTensor(kFloat3, 0, {3}, {1}), ErrorCode::kUnsupported, {"not a dict"});
  ExpectPickleError(PickleDict({}), ErrorCode::kUnsupported, {"no tensors", "none"});
  ExpectPickleError(PickleDict({{"epoch", PickleInt(1)}, {"params", PickleDict({})}}),
                    ErrorCode::kUnsupported, {"'epoch', 'params'", "torch.save"});
  const std::string tensor = PickleTensor(kFloat3, 0, {3}, {1});
  ExpectPickleError(PickleDict({{"w", tensor}, {"w", tensor}}), ErrorCode::kCorrupt, {"twice"});
  ExpectPickleError("}" + PickleInt(1) + tensor + "s", ErrorCode::kCorrupt, {"not text"});
  ExpectPickleError(PickleDict({{"a b", tensor}}), ErrorCode::kUnsupported, {"ASCII"});
  ExpectPickleError(PickleDict({{"", tensor}}), ErrorCode::kUnsupported, {"ASCII"});
}

TEST(Pth, OtherLayoutsAreRefusedWithTheRemedy) {
  ExpectError("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.",
              ErrorCode::kUnsupported, {"before 1.6", "torch.save"});
  const std::string tensor = PickleTensor(kFloat3, 0, {3}, {1});
  ExpectError(MakePth(PickleDict({{"w", tensor}}), {kThree}, {{"constants.pkl", "N."}}),
              ErrorCode::kUnsupported, {"TorchScript", "state_dict()"});
  ExpectError(MakePth(PickleDict({{"w", tensor}}), {kThree}, {{"byteorder", "big"}}),
              ErrorCode::kUnsupported, {"big-endian"});
  EXPECT_THAT(ReadOne(MakePth(PickleDict({{"w", tensor}}), {kThree}, {{"byteorder", "little"}})),
              ElementsAre(1, 2, 3));
}

TEST(Pth, LaterProtocols) {
  const std::string text = std::string("\x8c\x01w\x94", 4);  // SHORT_BINUNICODE, MEMOIZE
  const std::string key = std::string("\x8c\x01", 2) + "0";
  const std::string storage = PickleTuple({PickleText("storage"),
                                           "\x8c\x05torch\x8c\x0c"
                                           "FloatStorage\x93",
                                           key, PickleText("cpu"), "K\x03"}) +
                              "Q";
  const std::string tensor = "\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93(" + storage +
                             std::string("K\0", 2) + "K\x03\x85K\x01\x85\x89}tR";
  const std::string value = "\x80\x04\x95" + Le(200, 8) + "}" + text + tensor + "s";
  EXPECT_THAT(ReadOne(MakePth(value, {kThree})), ElementsAre(1, 2, 3));
}

}  // namespace
}  // namespace mstpp::weights_testing
