// SPDX-License-Identifier: Apache-2.0
#include "core/atomic_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string_view>
#include <system_error>

#include "core/os_error.h"

namespace mstpp {
namespace {

namespace fs = std::filesystem;

constexpr char kSuffix[] = ".mstpp-tmp";
constexpr size_t kRandomDigits = 16;
// Names are at most 255 bytes on the file systems in use; the rest is dots, digits and the suffix.
constexpr size_t kMaxBase = 200;

// The file that `path` names once symbolic links are followed; it need not exist.
fs::path FollowLinks(const std::string& path) {
  constexpr int kMaxLinks = 40;  // what Linux itself follows
  fs::path current = path;
  for (int i = 0; i < kMaxLinks; ++i) {
    std::error_code error;
    if (!fs::is_symlink(fs::symlink_status(current, error))) return current;
    const fs::path link = fs::read_symlink(current, error);
    if (error) throw OsError(path, "cannot read the symbolic link", error.value());
    current = current.parent_path() / link;
  }
  throw OsError(path, "cannot follow the symbolic link", ELOOP);
}

// Refuses what must not be replaced. The permission bits of the target, if it exists.
std::optional<mode_t> CheckTarget(const std::string& name, const fs::path& target) {
  if (!target.has_filename()) {
    throw Error(ErrorCode::kIo, name, "is a folder or empty, not the name of a file to write");
  }
  struct stat info;
  if (::stat(target.c_str(), &info) != 0) {
    if (errno == ENOENT) return std::nullopt;
    throw OsError(name, "cannot write", errno);
  }
  if (S_ISDIR(info.st_mode)) {
    throw Error(ErrorCode::kIo, name, "is a folder; give the name of a file to write");
  }
  if (!S_ISREG(info.st_mode)) {
    throw Error(ErrorCode::kIo, name, "is a device or pipe; only a regular file can be written");
  }
  if (::faccessat(AT_FDCWD, target.c_str(), W_OK, AT_EACCESS) != 0) {
    throw OsError(name, "exists and cannot be replaced", errno);
  }
  return info.st_mode & 0777;
}

std::string Folder(const fs::path& target) {
  const fs::path folder = target.parent_path();
  return folder.empty() ? "." : folder.string();
}

// What the names of all temporary files of this target begin with.
std::string Prefix(const fs::path& target) {
  std::string base = target.filename().string();
  if (base.size() > kMaxBase) {
    size_t end = kMaxBase;
    while (end > 0 && (static_cast<uint8_t>(base[end]) & 0xC0) == 0x80) --end;  // whole UTF-8 only
    base.resize(end);
  }
  return "." + base + ".";
}

bool IsTemporary(std::string_view name, const std::string& prefix) {
  if (name.size() != prefix.size() + kRandomDigits + sizeof(kSuffix) - 1) return false;
  const std::string_view digits = name.substr(prefix.size(), kRandomDigits);
  return name.starts_with(prefix) && name.ends_with(kSuffix) &&
         std::all_of(digits.begin(), digits.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// 0, or the errno. The lock belongs to the open file, so that two writers in one process exclude
// each other too.
int Lock(int fd) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

// Removes temporary files whose writer is dead. What cannot be looked at or removed stays: litter
// must not stop the work. Where the file system has no locks nobody can tell the dead from the
// living, and all stay.
void RemoveDead(const std::string& folder, const std::string& prefix) {
  struct Close {
    void operator()(DIR* entries) const { ::closedir(entries); }
  };
  // Not std::filesystem's iterator, which ends the process where memory is short.
  const std::unique_ptr<DIR, Close> entries(::opendir(folder.c_str()));
  if (entries == nullptr) return;
  while (const dirent* entry = ::readdir(entries.get())) {
    if (!IsTemporary(entry->d_name, prefix)) continue;
    const int in = ::dirfd(entries.get());
    const int fd = ::openat(in, entry->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    if (Lock(fd) == 0) ::unlinkat(in, entry->d_name, 0);
    ::close(fd);
  }
}

std::string RandomDigits() {
  std::random_device random;
  std::string digits;
  while (digits.size() < kRandomDigits) digits += "0123456789abcdef"[random() & 15];
  return digits;
}

// False if another writer's RemoveDead came between the creation and the lock and took the file
// for a dead one's.
bool LockNew(int fd) {
  const int error = Lock(fd);
  if (error == EAGAIN || error == EACCES) return false;
  struct stat info;
  return ::fstat(fd, &info) == 0 && info.st_nlink > 0;
}

void Sync(int fd, const std::string& name, const char* what) {
  int result;
  do {
    result = ::fsync(fd);
  } while (result != 0 && errno == EINTR);
  // EINVAL: a file system that has nothing to sync.
  if (result != 0 && errno != EINVAL) throw OsError(name, what, errno);
}

}  // namespace

AtomicFile::AtomicFile(const std::string& target) : name_(target) {
  const fs::path file = FollowLinks(target);
  const std::optional<mode_t> mode = CheckTarget(target, file);
  const std::string folder = Folder(file), prefix = Prefix(file);
  if (std::error_code error; !fs::is_directory(folder, error)) {
    if (error && error.value() != ENOENT) throw OsError(target, "cannot write", error.value());
    throw Error(ErrorCode::kIo, target, "the folder '" + folder + "' does not exist; create it");
  }
  target_ = file.string();
  RemoveDead(folder, prefix);
  constexpr int kAttempts = 100;
  for (int i = 0; i < kAttempts; ++i) {
    path_ = (fs::path(folder) / (prefix + RandomDigits() + kSuffix)).string();
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                 mode.value_or(0666));
    if (fd_ < 0) {
      if (errno == EEXIST || errno == EINTR) continue;
      throw OsError(target, "cannot write in the folder '" + folder + "'", errno);
    }
    if (LockNew(fd_)) {
      // The umask has cut the bits of a file that exists; where this fails (file systems without
      // permissions) there is nothing to keep.
      if (mode) static_cast<void>(::fchmod(fd_, *mode) == 0);
      return;
    }
    ::unlink(path_.c_str());
    ::close(fd_);
    fd_ = -1;
  }
  throw Error(ErrorCode::kIo, target, "cannot create a temporary file in '" + folder + "'");
}

AtomicFile::~AtomicFile() {
  if (!committed_) ::unlink(path_.c_str());
  ::close(fd_);
}

void AtomicFile::Write(const void* data, size_t bytes) {
  const auto* next = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(fd_, next, bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      throw OsError(name_, "cannot write", errno);
    }
    next += written;
    bytes -= static_cast<size_t>(written);
  }
}

void AtomicFile::Commit() {
  Sync(fd_, name_, "cannot write");
  if (::rename(path_.c_str(), target_.c_str()) != 0) {
    throw OsError(name_, "cannot put the finished file in its place", errno);
  }
  committed_ = true;
  const int folder = ::open(Folder(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;  // a folder that may be written but not read cannot be synced
  try {
    Sync(folder, name_, "written, but its folder could not be synced");
  } catch (...) {
    ::close(folder);
    throw;
  }
  ::close(folder);
}

}  // namespace mstpp
