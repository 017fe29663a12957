// SPDX-License-Identifier: Apache-2.0
// Zip archives that lie about themselves, and .npz.
#include "weights/zip.h"
#include "weights_testing.h"

namespace mstpp::weights_testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::string kHeader3 = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n";
const std::string kThree = Raw<float>({1, 2, 3});
const ZipPart kA = {"a.npy", MakeNpy(kHeader3, kThree)};
const ZipPart kB = {"b.npy", MakeNpy(kHeader3, Raw<float>({4, 5, 6}))};
const std::string kZip = MakeZip({kA, kB});
const size_t kDirectory = kZip.find("PK\x01\x02");
const size_t kEnd = kZip.find("PK\x05\x06");

std::string Patched(size_t position, const std::string& bytes) {
  std::string zip = kZip;
  return zip.replace(position, bytes.size(), bytes);
}

void Refused(const std::string& zip, const char* part) {
  ExpectError(zip, ErrorCode::kCorrupt, {"damaged zip archive", part});
}

TEST(Zip, AsOthersWriteIt) {
  const WeightsFile file = Read(kZip);
  EXPECT_EQ(file.format, "npz");
  EXPECT_THAT(file.tensors.at("a").data, ElementsAre(1, 2, 3));
  EXPECT_THAT(file.tensors.at("b").data, ElementsAre(4, 5, 6));

  const std::string comment = "a remark with PK\x05\x06 in it";
  EXPECT_EQ(Read(Patched(kEnd + 20, Le(comment.size(), 2)) + comment).tensors.size(), 2);
}

TEST(Zip, Zip64Records) {
  const std::string end64 = "PK\x06\x06" + Le(44, 8) + Le(45, 2) + Le(45, 2) + Le(0, 8) + Le(2, 8) +
                            Le(2, 8) + Le(kEnd - kDirectory, 8) + Le(kDirectory, 8);
  const std::string locator = "PK\x06\x07" + Le(0, 4) + Le(kEnd, 8) + Le(1, 4);
  const std::string end = "PK\x05\x06" + Le(0, 4) + Le(0xFFFF, 2) + Le(0xFFFF, 2) +
                          Le(0xFFFFFFFF, 4) + Le(0xFFFFFFFF, 4) + Le(0, 2);
  const std::string body = kZip.substr(0, kEnd);
  EXPECT_EQ(Read(body + end64 + locator + end).tensors.size(), 2);
  EXPECT_EQ(Read(body + end64 + locator + kZip.substr(kEnd)).tensors.size(), 2);

  Refused(body + end64 + locator +
              Replaced(kZip.substr(kEnd), Le(2, 2) + Le(2, 2), Le(1, 2) + Le(1, 2)),
          "contradicts the zip64");
  Refused(body + Replaced(end64, Le(44, 8), Le(45, 8)) + locator + end, "size");
  Refused(body + end64 + Replaced(locator, Le(kEnd, 8), Le(kEnd + 1, 8)) + end, "zip64");
  Refused(body + end64 + Replaced(locator, Le(kEnd, 8), Le(UINT64_MAX, 8)) + end, "locator");
  Refused(body + end + locator + end, "");
}

TEST(Zip, WhereTheDirectoryLies) {
  Refused(kZip.substr(0, kZip.size() - 1), "cut off");
  Refused(kZip + "x", "cut off");
  Refused(Patched(kEnd + 12, Le(kEnd - kDirectory - 1, 4)), "directory");
  Refused(Patched(kEnd + 16, Le(kDirectory + 1, 4)), "directory");
  Refused(Patched(kEnd + 16, Le(0xFFFFFFF0, 4)), "directory");
  Refused("PK\x03\x04" + kZip, "directory");  // prepended bytes
  Refused(Patched(kEnd + 8, Le(1, 2) + Le(1, 2)), "behind the last entry");
  Refused(Patched(kEnd + 8, Le(3, 2) + Le(3, 2)), "too many entries");
  Refused(Patched(kDirectory, "PK\x01\x03"), "damaged directory");
  ExpectError(Patched(kEnd + 4, Le(1, 2)), ErrorCode::kUnsupported, {"several parts"});
  ExpectError(Patched(kEnd + 8, Le(1, 2)), ErrorCode::kUnsupported, {"several parts"});
}

TEST(Zip, LocalHeadersThatContradictTheDirectory) {
  Refused(Replaced(kZip, "a.npy", "c.npy"), "contradicts");              // local name
  Refused(Replaced(kZip, "a.npy", "c.npy", kDirectory), "contradicts");  // central name
  Refused(Patched(6, Le(2, 2)), "contradicts");                          // flags
  Refused(Patched(8, Le(8, 2)), "contradicts");                          // method
  Refused(Patched(14, Le(1, 4)), "contradicts");                         // CRC
  Refused(Patched(18, Le(1, 4)), "contradicts");                         // sizes
  Refused(Patched(22, Le(1, 4)), "contradicts");
  Refused(Patched(kZip.find("PK\x03\x04", 1), "PK\x03\x05"), "no local header");
}

TEST(Zip, EntriesOutsideOrOverEachOther) {
  ExpectError(Patched(kDirectory + 42, Le(kZip.size(), 4)), ErrorCode::kCorrupt, {"'a.npy'"});
  Refused(Patched(kDirectory + 42, Le(1, 4)), "no local header");
  // b lies within a's data, where its local header is in order.
  const ZipPart outer = {"a.npy", "junk" + ZipLocal(kB) + "junk"};
  const std::string body = ZipLocal(outer);
  const std::string directory = ZipCentral(outer, 0) + ZipCentral(kB, body.find("junk") + 4);
  Refused(body + directory + ZipEnd(2, directory.size(), body.size()), "overlap");
  // An entry that would take in the directory.
  ExpectError(Replaced(Patched(kDirectory + 20, Le(kZip.size(), 4) + Le(kZip.size(), 4)),
                       Le(kA.data.size(), 4) + Le(kA.data.size(), 4),
                       Le(kZip.size(), 4) + Le(kZip.size(), 4)),
              ErrorCode::kCorrupt, {"'a.npy'"});
}

TEST(Zip, NamesThatOccurTwiceOrAreNone) {
  Refused(MakeZip({kA, kA}), "twice");
  Refused(MakeZip({{"", "x"}}), "bad name");
  Refused(MakeZip({{std::string("a\0b.npy", 7), kA.data}}), "bad name");
}

TEST(Zip, WhatIsNotDecoded) {
  const auto both = [](size_t in_local, const std::string& bytes) {
    std::string zip = Patched(in_local, bytes);
    return zip.replace(kDirectory + in_local + 2, bytes.size(), bytes);
  };
  ExpectError(both(6, Le(1, 2)), ErrorCode::kUnsupported, {"'a.npy'", "encrypted"});
  ExpectError(both(8, Le(12, 2)), ErrorCode::kUnsupported, {"'a.npy'", "method 12"});
  Refused(both(22, Le(5, 4)), "two sizes");
  Refused(both(14, Le(5, 4)), "CRC");
  Refused(Replaced(kZip, kThree, Raw<float>({1, 2, 4})), "CRC");
  Refused(both(8, Le(8, 2)), "");  // stored bytes are no deflated ones
}

TEST(Zip, SizesAreBoundedBeforeAnythingIsDecoded) {
  std::string zip = kZip;
  for (const size_t position : {size_t{8}, kDirectory + 10}) zip.replace(position, 2, Le(8, 2));
  for (const size_t position : {size_t{22}, kDirectory + 24}) {
    zip.replace(position, 4, Le(uint64_t{100} << 20, 4));
  }
  Refused(zip, "decode to more than");
}

TEST(Zip, Descriptors) {
  // As for kA alone, but with CRC and sizes behind the data.
  const auto archive = [](const std::string& descriptor) {
    std::string local = ZipLocal(kA), central = ZipCentral(kA, 0);
    local.replace(6, 2, Le(8, 2)).replace(14, 12, Le(0, 12));
    central.replace(8, 2, Le(8, 2));
    const std::string body = local + descriptor;
    return body + central + ZipEnd(1, central.size(), body.size());
  };
  const std::string crc = ZipLocal(kA).substr(14, 4);
  const std::string narrow = Le(kA.data.size(), 4) + Le(kA.data.size(), 4);
  const std::string wide = Le(kA.data.size(), 8) + Le(kA.data.size(), 8);
  const std::string signature = "PK\x07\x08";
  for (const std::string& descriptor :
       {signature + crc + narrow, signature + crc + wide, crc + narrow, crc + wide}) {
    EXPECT_THAT(Read(archive(descriptor)).tensors.at("a").data, ElementsAre(1, 2, 3));
  }
  Refused(archive(signature + Le(1, 4) + narrow), "descriptor");
  Refused(archive(signature + crc + Le(1, 8)), "descriptor");
  Refused(archive(""), "descriptor");
}

std::string Npz(const std::string& header, const std::string& data) {
  return MakeZip({{"w.npy", MakeNpy(header, data)}});
}

std::string Header(const std::string& descr, const std::string& order, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}

TEST(Npz, EveryTypeAndOrder) {
  const auto read = [](const std::string& descr, const std::string& data) {
    const int count = static_cast<int>(data.size()) / (descr[2] - '0');
    return Read(Npz(Header(descr, "False", "(" + std::to_string(count) + ",)"), data))
        .tensors.at("w")
        .data;
  };
  EXPECT_THAT(read("<f8", Raw<double>({0.5, -1e10})), ElementsAre(0.5F, -1e10F));
  EXPECT_THAT(read("<f2", Raw<uint16_t>({0x3C00})), ElementsAre(1));
  EXPECT_THAT(read("<i8", Raw<int64_t>({-7})), ElementsAre(-7));
  EXPECT_THAT(read("<i4", Raw<int32_t>({-7})), ElementsAre(-7));
  EXPECT_THAT(read("<i2", Raw<int16_t>({-7})), ElementsAre(-7));
  EXPECT_THAT(read("|i1", Raw<int8_t>({-7})), ElementsAre(-7));
  EXPECT_THAT(read("<u8", Raw<uint64_t>({UINT64_MAX})), ElementsAre(18446744073709551616.0F));
  EXPECT_THAT(read("<u4", Raw<uint32_t>({7})), ElementsAre(7));
  EXPECT_THAT(read("<u2", Raw<uint16_t>({7})), ElementsAre(7));
  EXPECT_THAT(read("|u1", Raw<uint8_t>({200})), ElementsAre(200));
  EXPECT_THAT(read("|b1", Raw<uint8_t>({0, 1})), ElementsAre(0, 1));
  EXPECT_THAT(read(">f4", "\x3f\x80" + Le(0, 2)), ElementsAre(1));
  EXPECT_THAT(read(">i2", "\xff\xfe"), ElementsAre(-2));

  const std::string six = Raw<float>({0, 1, 2, 3, 4, 5});
  EXPECT_THAT(Read(Npz(Header("<f4", "True", "(2, 3)"), six)).tensors.at("w").data,
              ElementsAre(0, 2, 4, 1, 3, 5));
  EXPECT_THAT(Read(Npz(Header("<f4", "False", "(2, 3)"), six)).tensors.at("w").data,
              ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(Read(Npz(Header("<f4", "False", "()"), Raw<float>({9}))).tensors.at("w").shape,
              IsEmpty());
  EXPECT_THAT(
      Read(Npz("{'shape':(3 ,),'descr':'<f4','fortran_order':False}", kThree)).tensors.at("w").data,
      ElementsAre(1, 2, 3));
}

TEST(Npz, HeadersThatAreWrong) {
  for (const char* header :
       {"",
        "{",
        "{}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 3}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3.0,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}",
        "{'descr': \"<f4\", 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4, 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1 1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}"}) {
    SCOPED_TRACE(header);
    ExpectError(Npz(header, kThree), ErrorCode::kCorrupt, {"'w.npy'"});
  }
  ExpectError(Npz(kHeader3, kThree + "x"), ErrorCode::kCorrupt, {"13 bytes"});
  ExpectError(MakeZip({{"w.npy", "\x93NUMPX"}}), ErrorCode::kCorrupt, {"'w.npy'"});
  ExpectError(MakeZip({{"w.npy", ""}}), ErrorCode::kCorrupt, {"'w.npy'"});
}

TEST(Npz, ElementsThatAreNoNumbers) {
  for (const char* descr :
       {"|O", "<c8", "<U4", "|S4", "<M8[s]", "<f16", "|V2", "=f4", "f4", "|f4"}) {
    SCOPED_TRACE(descr);
    ExpectError(Npz(Header(descr, "False", "(3,)"), kThree), ErrorCode::kUnsupported,
                {"'w.npy'", descr});
  }
  ExpectError(Npz("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}", kThree),
              ErrorCode::kUnsupported, {"structures"});
  ExpectError(MakeZip({{"w.npy", "\x93NUMPY" + Le(4, 2) + Le(0, 4)}}), ErrorCode::kUnsupported,
              {"version 4.0"});
  ExpectError(MakeZip({{"readme.txt", "x"}}), ErrorCode::kUnsupported, {"'readme.txt'"});
}

TEST(Npz, LaterVersionsOfTheHeader) {
  for (const uint64_t version : {2, 3}) {
    const std::string npy =
        "\x93NUMPY" + Le(version, 2) + Le(kHeader3.size(), 4) + kHeader3 + kThree;
    EXPECT_THAT(Read(MakeZip({{"w.npy", npy}})).tensors.at("w").data, ElementsAre(1, 2, 3));
  }
}

TEST(Npz, Metadata) {
  const auto archive = [](const std::string& json) {
    const std::string shape = "(" + std::to_string(json.size()) + ",)";
    return MakeZip({kA, {"__metadata__.json.npy", MakeNpy(Header("|u1", "False", shape), json)}});
  };
  const WeightsFile file = Read(archive(R"({"name":"x","more":"y"})"));
  EXPECT_EQ(file.tensors.size(), 1);
  EXPECT_EQ(file.metadata.at("name"), "x");
  for (const char* json : {"[]", "{", R"({"a":1})", R"({"a":{"b":"c"}})", R"({"a":"b","a":"c"})"}) {
    SCOPED_TRACE(json);
    ExpectError(archive(json), ErrorCode::kCorrupt, {"__metadata__.json"});
  }
  ExpectError(MakeZip({{"__metadata__.json.npy", kA.data}}), ErrorCode::kCorrupt, {"metadata"});
}

TEST(Npz, ArchivesWithoutTensors) { ExpectError(MakeZip({}), ErrorCode::kCorrupt, {"no tensors"}); }

}  // namespace
}  // namespace mstpp::weights_testing
