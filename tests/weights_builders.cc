// SPDX-License-Identifier: Apache-2.0
#include "weights_builders.h"

namespace mstpp::weights_testing {
namespace {

uint32_t Crc32(const std::string& data) {
  uint32_t crc = ~0U;
  for (char c : data) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xEDB88320U : 0U);
  }
  return ~crc;
}

// Method, time, date, CRC, sizes, length of the name: the same in local and central headers.
std::string ZipCommon(const ZipPart& part) {
  return Le(0, 2) + Le(0, 4) + Le(Crc32(part.data), 4) + Le(part.data.size(), 4) +
         Le(part.data.size(), 4) + Le(part.name.size(), 2);
}

}  // namespace

std::string Le(uint64_t value, size_t bytes) {
  std::string text;
  for (; bytes > 0; --bytes, value >>= 8) text += static_cast<char>(value);
  return text;
}

std::string ZipLocal(const ZipPart& part) {
  return "PK\x03\x04" + Le(20, 2) + Le(0, 2) + ZipCommon(part) + Le(0, 2) + part.name + part.data;
}

std::string ZipCentral(const ZipPart& part, uint64_t local_offset) {
  return "PK\x01\x02" + Le(20, 2) + Le(20, 2) + Le(0, 2) + ZipCommon(part) + Le(0, 12) +
         Le(local_offset, 4) + part.name;
}

std::string ZipEnd(size_t entries, size_t directory_bytes, size_t directory_offset) {
  return "PK\x05\x06" + Le(0, 4) + Le(entries, 2) + Le(entries, 2) + Le(directory_bytes, 4) +
         Le(directory_offset, 4) + Le(0, 2);
}

std::string MakeZip(const std::vector<ZipPart>& parts) {
  std::string zip, directory;
  for (const ZipPart& part : parts) {
    directory += ZipCentral(part, zip.size());
    zip += ZipLocal(part);
  }
  return zip + directory + ZipEnd(parts.size(), directory.size(), zip.size());
}

std::string PickleText(std::string_view text) {
  return "X" + Le(text.size(), 4) + std::string(text);
}

std::string PickleInt(int64_t value) { return "\x8a\x08" + Le(static_cast<uint64_t>(value), 8); }

std::string PickleTuple(const std::vector<std::string>& values) {
  std::string pickle = "(";
  for (const std::string& value : values) pickle += value;
  return pickle + "t";
}

std::string PickleInts(const std::vector<int64_t>& values) {
  std::vector<std::string> pickled;
  pickled.reserve(values.size());
  for (int64_t value : values) pickled.push_back(PickleInt(value));
  return PickleTuple(pickled);
}

std::string PickleDict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string pickle = "}(";
  for (const auto& [key, value] : items) pickle += PickleText(key) + value;
  return pickle + "u";
}

std::string PickleGlobal(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}

std::string PickleStorage(std::string_view type, std::string_view key, int64_t elements) {
  return PickleTuple({PickleText("storage"), PickleGlobal("torch", type), PickleText(key),
                      PickleText("cpu"), PickleInt(elements)}) +
         "Q";
}

std::string PickleTensor(const std::string& storage, int64_t offset,
                         const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  const std::string hooks = PickleGlobal("collections", "OrderedDict") + ")R";
  return PickleGlobal("torch._utils", "_rebuild_tensor_v2") +
         PickleTuple(
             {storage, PickleInt(offset), PickleInts(shape), PickleInts(strides), "\x89", hooks}) +
         "R";
}

std::string MakePth(const std::string& value, const std::vector<ZipPart>& storages,
                    const std::vector<ZipPart>& more) {
  std::vector<ZipPart> parts = {{"m/data.pkl", "\x80\x02" + value + "."}};
  for (const ZipPart& storage : storages) parts.push_back({"m/data/" + storage.name, storage.data});
  for (const ZipPart& part : more) parts.push_back({"m/" + part.name, part.data});
  return MakeZip(parts);
}

std::string SmallPth() {
  const std::string tensor = PickleTensor(PickleStorage("FloatStorage", "0", 3), 0, {3}, {1});
  return MakePth(PickleDict({{"w", tensor}}), {{"0", Raw<float>({1, 2, 3})}});
}

std::string MakeSafetensors(const std::string& header, const std::string& data) {
  return Le(header.size(), 8) + header + data;
}

std::string MakeNpy(const std::string& header, const std::string& data) {
  return "\x93NUMPY" + Le(1, 2) + Le(header.size(), 2) + header + data;
}

}  // namespace mstpp::weights_testing
