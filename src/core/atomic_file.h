// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace mstpp {

// A file that appears whole or not at all: written under a temporary name in the target's folder,
// then synced and renamed onto the target. Destroyed before Commit, it removes the temporary file.
// A temporary file left by a killed process is removed by the next AtomicFile for that target.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& target);  // throws Error (kIo)
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const std::string& path() const { return path_; }  // of the temporary file, for libraries
  int fd() const { return fd_; }                     // open for writing
  void Write(const void* data, size_t bytes);        // throws Error (kIo)
  void Commit();                                     // fsync, rename, fsync folder; throws Error

 private:
  std::string target_, path_;
  int fd_ = -1;
  bool committed_ = false;
};

}  // namespace mstpp
