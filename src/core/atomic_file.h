// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

namespace mstpp {

// A file that appears whole or not at all: written under a temporary name in the target's folder,
// then synced and renamed onto the target. Destroyed before Commit, it removes the temporary file.
// A temporary file left by a killed process is removed by the next AtomicFile for that target; that
// of a live writer, in whatever process, never is: a writer holds a lock on its temporary file
// until the end, and the kernel drops the lock of a process that dies.
//
// A symbolic link as target stays and the file that it points to is replaced. An existing target
// keeps its permission bits; one without write permission is refused, though its folder would allow
// the replacement. A folder, device or pipe as target is refused: renaming a file onto /dev/null
// would destroy it. Two writers of one target do not disturb each other; the later Commit wins.
//
// A library that writes through path() must keep the file (truncate it, not replace it), and may
// take flock() locks on it: those and this class's (F_OFD_SETLK) do not meet on local file systems.
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
  std::string name_;    // as given, for messages
  std::string target_;  // links followed
  std::string path_;
  int fd_ = -1;
  bool committed_ = false;
};

}  // namespace mstpp
