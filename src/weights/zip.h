// SPDX-License-Identifier: Apache-2.0
// Reading zip archives that may be hostile, from memory. The archive's structure is checked whole
// before anything is decoded, and more strictly than zip tools do, so that no two readers can see
// different contents: see ListZip. libzip then decodes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "weights/format.h"

struct zip;  // libzip's archive

namespace mstpp {

struct ZipEntry {
  uint64_t index = 0;  // in the central directory
  uint64_t bytes = 0;  // decoded
  uint64_t compressed_bytes = 0;
  uint64_t local_offset = 0;
  uint32_t crc = 0;
  uint16_t flags = 0;
  uint16_t method = 0;
};

bool IsZip(Bytes bytes);

using ZipEntries = std::map<std::string, ZipEntry>;  // by name

// Refused (Error kCorrupt) are: a directory
// that does not lie exactly before the end record, prepended or appended data, entries that
// overlap, names that occur twice, local headers or data descriptors that contradict the
// directory, and decoded sizes beyond 64 MiB and 100 times the archive. Refused as kUnsupported:
// encryption, several disks, methods other than stored and deflated.
ZipEntries ListZip(const std::string& path, Bytes bytes);

class ZipReader {
 public:
  explicit ZipReader(const Source& source);  // throws as ListZip

  const ZipEntries& entries() const { return entries_; }
  bool Has(const std::string& name) const { return entries_.contains(name); }

  // The decoded bytes, CRC checked. Error kCorrupt, also if there is no such entry.
  std::vector<uint8_t> Read(const std::string& name) const;

 private:
  std::string path_;
  ZipEntries entries_;
  std::unique_ptr<zip, void (*)(zip*)> archive_;
};

}  // namespace mstpp
