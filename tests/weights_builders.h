// SPDX-License-Identifier: Apache-2.0
// Files of weights built byte by byte, so that tests can break them where they like. Everything is
// a std::string of bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mstpp::weights_testing {

std::string Le(uint64_t value, size_t bytes);  // little-endian

template <typename T>
std::string Raw(const std::vector<T>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(T)};
}

// Zip. Stored entries; see PKWARE's APPNOTE.
struct ZipPart {
  std::string name, data;
};
std::string ZipLocal(const ZipPart& part);
std::string ZipCentral(const ZipPart& part, uint64_t local_offset);
std::string ZipEnd(size_t entries, size_t directory_bytes, size_t directory_offset);
std::string MakeZip(const std::vector<ZipPart>& parts);

// Pickle. Each function gives the opcodes that leave one value on the stack.
std::string PickleText(std::string_view text);
std::string PickleInt(int64_t value);
std::string PickleTuple(const std::vector<std::string>& values);
std::string PickleInts(const std::vector<int64_t>& values);
std::string PickleDict(const std::vector<std::pair<std::string, std::string>>& items);
std::string PickleGlobal(std::string_view module, std::string_view name);
std::string PickleStorage(std::string_view type, std::string_view key, int64_t elements);
std::string PickleTensor(const std::string& storage, int64_t offset,
                         const std::vector<int64_t>& shape, const std::vector<int64_t>& strides);

// A PyTorch file: data.pkl with this value, and storages by their keys.
std::string MakePth(const std::string& value, const std::vector<ZipPart>& storages,
                    const std::vector<ZipPart>& more = {});
// With one tensor "w" of three float32 numbers: 1, 2, 3.
std::string SmallPth();

// A safetensors file.
std::string MakeSafetensors(const std::string& header, const std::string& data);
// A .npy file of version 1.
std::string MakeNpy(const std::string& header, const std::string& data);

}  // namespace mstpp::weights_testing
