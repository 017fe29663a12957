// SPDX-License-Identifier: Apache-2.0
#include "io/input_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "core/os_error.h"

namespace mstpp {

InputFile::InputFile(const std::string& path) : path_(path) {
  // O_NONBLOCK: opening a pipe must not wait for its writer; it is refused below.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) throw OsError(path, "cannot open", errno);
  struct stat info;
  const int error = ::fstat(fd_, &info) == 0 ? 0 : errno;
  if (error == 0 && S_ISREG(info.st_mode)) {
    size_ = static_cast<uint64_t>(info.st_size);
    return;
  }
  ::close(fd_);
  if (error != 0) throw OsError(path, "cannot open", error);
  throw Error(ErrorCode::kIo, path,
              S_ISDIR(info.st_mode) ? "is a folder, not a file" : "is not a regular file");
}

InputFile::~InputFile() { ::close(fd_); }

size_t InputFile::ReadSome(uint64_t offset, void* out, size_t bytes) const {
  auto* next = static_cast<uint8_t*>(out);
  size_t done = 0;
  while (done < bytes) {
    const ssize_t got = ::pread(fd_, next + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw OsError(path_, fmt::format("cannot read at byte {}", offset + done), errno);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void InputFile::ReadAt(uint64_t offset, void* out, size_t bytes) const {
  const size_t done = ReadSome(offset, out, bytes);
  if (done < bytes) {
    throw Error(ErrorCode::kCorrupt, path_,
                fmt::format("ends at byte {}, {} bytes early; copy or make it again", offset + done,
                            bytes - done));
  }
}

std::string InputFile::ReadText(uint64_t limit) const {
  if (size_ > limit) {
    throw Error(ErrorCode::kUnsupported, path_,
                fmt::format("{} bytes of text; {} at most are read", size_, limit));
  }
  std::string text(size_, '\0');
  ReadAt(0, text.data(), text.size());
  return text;
}

}  // namespace mstpp
