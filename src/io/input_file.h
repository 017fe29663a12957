// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace mstpp {

// A regular file open for reading. Reads name their offset, so one object serves many readers.
class InputFile {
 public:
  // Throws Error (kNotFound; kIo: not readable, a folder, device or pipe).
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }  // when it was opened

  // Reads `bytes` bytes at `offset`. Throws Error (kCorrupt: the file ends before; kIo).
  void ReadAt(uint64_t offset, void* out, size_t bytes) const;

  // The same, but stops at the end of the file; how many bytes were read.
  size_t ReadSome(uint64_t offset, void* out, size_t bytes) const;

  // The whole file. Throws Error, kUnsupported if it is longer than `limit`.
  std::string ReadText(uint64_t limit) const;

 private:
  std::string path_;
  uint64_t size_ = 0;
  int fd_ = -1;
};

}  // namespace mstpp
