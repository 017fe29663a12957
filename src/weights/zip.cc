// SPDX-License-Identifier: Apache-2.0
#include "weights/zip.h"

#include <zip.h>

#include <algorithm>
#include <memory>
#include <new>

namespace mstpp {
namespace {

// Throws what a libzip error stands for, and frees it.
[[noreturn]] void ThrowZip(zip_error_t* error, const std::string& where) {
  const bool memory = zip_error_code_zip(error) == ZIP_ER_MEMORY;
  const std::string text = memory ? "" : zip_error_strerror(error);
  zip_error_fini(error);
  if (memory) throw std::bad_alloc();
  throw Error(ErrorCode::kCorrupt, where, "damaged zip archive: " + text);
}

zip_t* Open(const Source& source) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* buffer =
      zip_source_buffer_create(source.bytes.data(), source.bytes.size(), 0, &error);
  zip_t* archive = buffer == nullptr ? nullptr : zip_open_from_source(buffer, ZIP_RDONLY, &error);
  if (archive == nullptr) {
    zip_source_free(buffer);
    ThrowZip(&error, source.path);
  }
  zip_error_fini(&error);
  return archive;
}

bool SeesTheSame(zip_t* archive, const std::string& name, const ZipEntry& entry) {
  zip_stat_t stat;
  zip_stat_init(&stat);
  constexpr zip_uint64_t kWanted =
      ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_CRC | ZIP_STAT_COMP_METHOD;
  return zip_stat_index(archive, entry.index, ZIP_FL_ENC_RAW, &stat) == 0 &&
         (stat.valid & kWanted) == kWanted && name == stat.name && entry.bytes == stat.size &&
         entry.compressed_bytes == stat.comp_size && entry.crc == stat.crc &&
         entry.method == stat.comp_method;
}

struct CloseFile {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};

}  // namespace

ZipReader::ZipReader(const Source& source)
    : path_(source.path),
      entries_(ListZip(source.path, source.bytes)),
      archive_(Open(source), zip_discard) {
  const bool same =
      zip_get_num_entries(archive_.get(), 0) == static_cast<zip_int64_t>(entries_.size()) &&
      std::all_of(entries_.begin(), entries_.end(), [this](const auto& named) {
        return SeesTheSame(archive_.get(), named.first, named.second);
      });
  if (!same) {
    throw Error(ErrorCode::kCorrupt, path_, "damaged zip archive: ambiguous directory");
  }
}

std::vector<uint8_t> ZipReader::Read(const std::string& name) const {
  const std::string where = Where(path_, Quoted(name));
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    throw Error(ErrorCode::kCorrupt, where, "is missing from the archive");
  }
  const ZipEntry& entry = found->second;
  const std::unique_ptr<zip_file_t, CloseFile> file(
      zip_fopen_index(archive_.get(), entry.index, 0));
  if (file == nullptr) ThrowZip(zip_get_error(archive_.get()), where);
  std::vector<uint8_t> bytes(entry.bytes);
  const zip_int64_t got = zip_fread(file.get(), bytes.data(), bytes.size());
  if (got < 0) ThrowZip(zip_file_get_error(file.get()), where);
  // The CRC is compared when the end is seen, which takes one read more.
  uint8_t extra;
  const zip_int64_t more = zip_fread(file.get(), &extra, 1);
  if (more < 0) ThrowZip(zip_file_get_error(file.get()), where);
  if (static_cast<uint64_t>(got) != entry.bytes || more != 0) {
    throw Error(ErrorCode::kCorrupt, where, "damaged zip archive: not of the size it should have");
  }
  return bytes;
}

}  // namespace mstpp
