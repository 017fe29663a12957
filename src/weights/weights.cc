// SPDX-License-Identifier: Apache-2.0
#include "weights/weights.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

#include "core/os_error.h"
#include "core/sha256.h"
#include "weights/format.h"

namespace mstpp {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{4} << 30;

// Asked in this order; the first that says yes reads.
constexpr std::array<Format, 4> kFormats = {{
    {"safetensors", DetectSafetensors, ReadSafetensors},
    {"pth", DetectPth, ReadPth},
    {"npz", DetectNpz, ReadNpz},
    {"onnx", DetectOnnx, ReadOnnx},
}};

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

struct Buffer {
  std::unique_ptr<uint8_t[]> data;
  size_t bytes = 0;
};

// Read, not mapped: a mapped file that another process shortens kills the reader with SIGBUS.
Buffer ReadWhole(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info;
  if (file.get() < 0 || ::fstat(file.get(), &info) != 0) {
    throw OsError(path, "cannot read the weights", errno);
  }
  if (!S_ISREG(info.st_mode)) {
    throw Error(ErrorCode::kIo, path, "is a folder, device or pipe, not a file of weights");
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size > kMaxFileBytes) {
    throw Error(
        ErrorCode::kUnsupported, path,
        fmt::format("has {} bytes; weights of at most {} bytes are read", size, kMaxFileBytes));
  }
  Buffer buffer;
  buffer.bytes = static_cast<size_t>(size);
  buffer.data = std::make_unique_for_overwrite<uint8_t[]>(buffer.bytes);
  for (size_t done = 0; done < buffer.bytes;) {
    const ssize_t got = ::read(file.get(), buffer.data.get() + done, buffer.bytes - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw OsError(path, "cannot read the weights", errno);
    if (got == 0) {
      throw Error(ErrorCode::kIo, path, "was shortened while it was being read; try again");
    }
    done += static_cast<size_t>(got);
  }
  return buffer;
}

WeightsFile Read(const Source& source) {
  if (source.bytes.empty()) throw Error(ErrorCode::kCorrupt, source.path, "is empty");
  for (const Format& format : kFormats) {
    if (!format.detect(source)) continue;
    WeightsFile file;
    format.read(source, &file);
    if (file.tensors.empty()) throw Error(ErrorCode::kCorrupt, source.path, "holds no tensors");
    file.format = format.name;
    file.sha256 = Sha256(source.bytes.data(), source.bytes.size());
    return file;
  }
  std::string names;
  for (const Format& format : kFormats)
    names += (names.empty() ? "" : ", ") + std::string(format.name);
  throw Error(ErrorCode::kUnsupported, source.path,
              "its content is in no format of weights that is read (" + names + ")");
}

}  // namespace

WeightsFile ReadWeightsFromMemory(const std::string& path, Bytes bytes, bool allow_nonfinite) {
  return OrOutOfMemory(path, [&] { return Read({path, bytes, allow_nonfinite}); });
}

WeightsFile ReadWeights(const std::string& path, bool allow_nonfinite) {
  return OrOutOfMemory(path, [&] {
    const Buffer buffer = ReadWhole(path);
    return Read({path, {buffer.data.get(), buffer.bytes}, allow_nonfinite});
  });
}

}  // namespace mstpp
