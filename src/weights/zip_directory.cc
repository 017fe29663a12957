// SPDX-License-Identifier: Apache-2.0
// The structure of a zip archive (PKWARE's APPNOTE 6.3): end record, zip64 end record, central
// directory, local headers, data descriptors.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "weights/zip.h"

namespace mstpp {
namespace {

constexpr uint32_t kLocal = 0x04034b50, kDescriptor = 0x08074b50, kCentral = 0x02014b50;
constexpr std::string_view kEndText = "PK\x05\x06";
constexpr uint32_t kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr size_t kEndBytes = 22, kLocator64Bytes = 20, kCentralBytes = 46;
constexpr size_t kMaxComment = 65535;
constexpr uint16_t kExtra64 = 1;
// In a 16 or 32-bit field: the value is in the zip64 structure.
constexpr uint16_t kIn64Short = 0xFFFF;
constexpr uint32_t kIn64 = 0xFFFFFFFF;
constexpr uint16_t kFlagDescriptor = 1U << 3;
// Encrypted, patched, strongly encrypted, masked.
constexpr uint16_t kFlagsRefused = 1U << 0 | 1U << 5 | 1U << 6 | 1U << 13;
constexpr uint16_t kStored = 0, kDeflated = 8;
constexpr uint64_t kMinDecoded = uint64_t{64} << 20, kMaxRatio = 100;

[[noreturn]] void Corrupt(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::kCorrupt, where, "damaged zip archive: " + message);
}

void Require(bool condition, const std::string& where, const char* message) {
  if (!condition) Corrupt(where, message);
}

struct Directory {
  uint64_t entries = 0, bytes = 0, offset = 0;
};

// The position of the end record, the last one whose comment reaches exactly to the file's end.
size_t FindEnd(Bytes bytes, const std::string& path) {
  const Bytes tail = bytes.last(std::min(bytes.size(), kEndBytes + kMaxComment));
  const std::string_view text(reinterpret_cast<const char*>(tail.data()), tail.size());
  ByteReader reader(tail, path);
  for (size_t found = text.rfind(kEndText); found != std::string_view::npos;
       found = found == 0 ? std::string_view::npos : text.rfind(kEndText, found - 1)) {
    if (tail.size() - found < kEndBytes) continue;
    reader.Seek(found + kEndBytes - 2);
    const size_t comment = reader.Read<uint16_t>();
    if (comment == reader.left()) return bytes.size() - tail.size() + found;
  }
  Corrupt(path, "it has no end record, so it was probably cut off; copy or download it again");
}

// The zip64 end record, if there is a locator before the end record; `end` becomes its position.
std::optional<Directory> FindDirectory64(Bytes bytes, const std::string& path, size_t* end) {
  if (*end < kLocator64Bytes) return std::nullopt;
  const size_t locator = *end - kLocator64Bytes;
  ByteReader reader(bytes, path);
  reader.Seek(locator);
  if (reader.Read<uint32_t>() != kLocator64) return std::nullopt;
  const auto disk = reader.Read<uint32_t>();
  const auto position = reader.Read<uint64_t>();
  const auto disks = reader.Read<uint32_t>();
  Require(disk == 0 && disks <= 1 && position < locator, path, "wrong zip64 locator");
  reader.Seek(position);
  Require(reader.Read<uint32_t>() == kEnd64, path, "no zip64 end record where it should be");
  const auto record_bytes = reader.Read<uint64_t>();  // of what follows this field
  Require(record_bytes == locator - reader.position(), path, "wrong size of the zip64 end record");
  reader.Take(4);  // versions
  const auto this_disk = reader.Read<uint32_t>();
  const auto first_disk = reader.Read<uint32_t>();
  const auto entries_here = reader.Read<uint64_t>();
  Directory directory;
  directory.entries = reader.Read<uint64_t>();
  directory.bytes = reader.Read<uint64_t>();
  directory.offset = reader.Read<uint64_t>();
  Require(reader.position() <= locator && this_disk == 0 && first_disk == 0 &&
              entries_here == directory.entries,
          path, "wrong zip64 end record");
  *end = position;
  return directory;
}

Directory FindDirectory(Bytes bytes, const std::string& path) {
  size_t end = FindEnd(bytes, path);
  ByteReader reader(bytes, path);
  reader.Seek(end + 4);
  const auto this_disk = reader.Read<uint16_t>();
  const auto first_disk = reader.Read<uint16_t>();
  const auto entries_here = reader.Read<uint16_t>();
  const auto entries = reader.Read<uint16_t>();
  const auto directory_bytes = reader.Read<uint32_t>();
  const auto offset = reader.Read<uint32_t>();
  const auto on_first_disk = [](uint16_t disk) { return disk == 0 || disk == kIn64Short; };
  if (!on_first_disk(this_disk) || !on_first_disk(first_disk) || entries_here != entries) {
    throw Error(ErrorCode::kUnsupported, path, "is one part of a zip archive in several parts");
  }
  Directory directory{entries, directory_bytes, offset};
  if (const auto large = FindDirectory64(bytes, path, &end)) {
    const auto agrees = [](uint64_t small, uint64_t large, uint64_t in64) {
      return small == large || small == in64;
    };
    Require(agrees(entries, large->entries, kIn64Short) &&
                agrees(directory_bytes, large->bytes, kIn64) &&
                agrees(offset, large->offset, kIn64),
            path, "the end record contradicts the zip64 end record");
    directory = *large;
  }
  Require(directory.offset <= end && directory.bytes == end - directory.offset, path,
          "the directory does not lie where the end record says");
  Require(directory.entries <= directory.bytes / kCentralBytes, path, "too many entries");
  return directory;
}

// Replaces those of `fields` that say so by the values of the zip64 extra field, in its order.
void Apply64(Bytes extra, const std::string& where, std::initializer_list<uint64_t*> fields) {
  ByteReader reader(extra, where);
  while (reader.left() >= 4) {  // some writers align by less than a whole field
    const auto id = reader.Read<uint16_t>();
    const Bytes payload = reader.Take(reader.Read<uint16_t>());
    if (id != kExtra64) continue;
    ByteReader values(payload, where);
    for (uint64_t* field : fields) {
      if (*field == kIn64) *field = values.Read<uint64_t>();
    }
    return;
  }
}

struct NamedEntry {
  std::string name;
  ZipEntry entry;
  std::string where;
};

NamedEntry ReadCentral(ByteReader* reader, const std::string& path) {
  Require(reader->Read<uint32_t>() == kCentral, path, "damaged directory");
  reader->Take(4);  // versions
  ZipEntry entry;
  entry.flags = reader->Read<uint16_t>();
  entry.method = reader->Read<uint16_t>();
  reader->Take(4);  // time
  entry.crc = reader->Read<uint32_t>();
  entry.compressed_bytes = reader->Read<uint32_t>();
  entry.bytes = reader->Read<uint32_t>();
  const auto name_bytes = reader->Read<uint16_t>();
  const auto extra_bytes = reader->Read<uint16_t>();
  const auto comment_bytes = reader->Read<uint16_t>();
  const auto disk = reader->Read<uint16_t>();
  reader->Take(6);  // attributes
  entry.local_offset = reader->Read<uint32_t>();
  const std::string name(reader->Text(name_bytes));
  const std::string where = Where(path, Quoted(name));
  Apply64(reader->Take(extra_bytes), where,
          {&entry.bytes, &entry.compressed_bytes, &entry.local_offset});
  reader->Take(comment_bytes);
  Require(disk == 0 || disk == kIn64Short, where, "an entry on another disk");
  Require(!name.empty() && name.find('\0') == std::string::npos, where, "a bad name");
  return {name, entry, where};
}

void CheckReadable(const ZipEntry& entry, const std::string& where) {
  if ((entry.flags & kFlagsRefused) != 0) {
    throw Error(ErrorCode::kUnsupported, where, "is encrypted");
  }
  if (entry.method != kStored && entry.method != kDeflated) {
    throw Error(
        ErrorCode::kUnsupported, where,
        fmt::format("compression method {} is not read; store or deflate it", entry.method));
  }
  Require(entry.method == kDeflated || entry.bytes == entry.compressed_bytes, where,
          "a stored entry with two sizes");
}

// A descriptor behind the data: an optional signature, the CRC and both sizes in 32 or 64 bits.
// The position after it.
uint64_t CheckDescriptor(const ZipEntry& entry, const ByteReader& reader,
                         const std::string& where) {
  for (const bool signature : {true, false}) {
    for (const bool wide : {true, false}) {
      ByteReader attempt = reader;
      if (attempt.left() < (signature ? 4U : 0U) + (wide ? 20U : 12U)) continue;
      if (signature && attempt.Read<uint32_t>() != kDescriptor) continue;
      if (attempt.Read<uint32_t>() != entry.crc) continue;
      const uint64_t packed = wide ? attempt.Read<uint64_t>() : attempt.Read<uint32_t>();
      const uint64_t bytes = wide ? attempt.Read<uint64_t>() : attempt.Read<uint32_t>();
      if (packed == entry.compressed_bytes && bytes == entry.bytes) return attempt.position();
    }
  }
  Corrupt(where, "the descriptor behind the data contradicts the directory");
}

// Compares the local header with the directory's entry. The position behind the entry's last byte.
uint64_t CheckLocal(const NamedEntry& named, Bytes before_directory) {
  const auto& [name, entry, where] = named;
  ByteReader reader(before_directory, where);
  reader.Seek(entry.local_offset);
  Require(reader.Read<uint32_t>() == kLocal, where, "no local header where it should be");
  reader.Take(2);  // version
  const auto flags = reader.Read<uint16_t>();
  const auto method = reader.Read<uint16_t>();
  reader.Take(4);  // time
  const auto crc = reader.Read<uint32_t>();
  uint64_t compressed_bytes = reader.Read<uint32_t>();
  uint64_t bytes = reader.Read<uint32_t>();
  const auto name_bytes = reader.Read<uint16_t>();
  const auto extra_bytes = reader.Read<uint16_t>();
  const bool same_name = reader.Text(name_bytes) == name;
  Apply64(reader.Take(extra_bytes), where, {&bytes, &compressed_bytes});
  const bool described = (flags & kFlagDescriptor) != 0;
  const bool same_sizes =
      crc == entry.crc && compressed_bytes == entry.compressed_bytes && bytes == entry.bytes;
  const bool left_to_descriptor = described && crc == 0 && compressed_bytes == 0 && bytes == 0;
  Require(same_name && flags == entry.flags && method == entry.method &&
              (same_sizes || left_to_descriptor),
          where, "the local header contradicts the directory");
  reader.Take(entry.compressed_bytes);
  return described ? CheckDescriptor(entry, reader, where) : reader.position();
}

void CheckNoOverlap(std::vector<std::pair<uint64_t, uint64_t>> extents, const std::string& path) {
  std::sort(extents.begin(), extents.end());
  for (size_t i = 1; i < extents.size(); ++i) {
    Require(extents[i].first >= extents[i - 1].second, path, "entries overlap");
  }
}

}  // namespace

bool IsZip(Bytes bytes) {
  if (bytes.size() < 4) return false;
  const auto signature = ByteReader(bytes, "").Read<uint32_t>();
  return signature == kLocal || signature == kEnd;
}

ZipEntries ListZip(const std::string& path, Bytes bytes) {
  const Directory directory = FindDirectory(bytes, path);
  ByteReader reader(bytes.subspan(directory.offset, directory.bytes), path);
  const Bytes before = bytes.first(directory.offset);
  ZipEntries entries;
  std::vector<std::pair<uint64_t, uint64_t>> extents;
  const uint64_t most = std::max(kMinDecoded, kMaxRatio * bytes.size());
  uint64_t decoded = 0;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    NamedEntry named = ReadCentral(&reader, path);
    CheckReadable(named.entry, named.where);
    named.entry.index = i;
    extents.emplace_back(named.entry.local_offset, CheckLocal(named, before));
    if (named.entry.bytes > most - decoded) {
      Corrupt(path, fmt::format("it would decode to more than {} bytes", most));
    }
    decoded += named.entry.bytes;
    Require(entries.emplace(named.name, named.entry).second, named.where, "is there twice");
  }
  Require(reader.left() == 0, path, "bytes behind the last entry of the directory");
  CheckNoOverlap(std::move(extents), path);
  return entries;
}

}  // namespace mstpp
