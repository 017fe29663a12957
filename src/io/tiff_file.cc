// SPDX-License-Identifier: Apache-2.0
#include "io/tiff_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string_view>

#include "core/os_error.h"

namespace mstpp {
namespace {

// The most that libtiff may allocate at once, for what a file claims: its tables and, compressed,
// one strip or tile as it lies in the file.
constexpr tmsize_t kMaxAllocation = tmsize_t{1} << 30;

struct OptionsCloser {
  void operator()(TIFFOpenOptions* options) const { TIFFOpenOptionsFree(options); }
};

TiffFile* Self(void* self) { return static_cast<TiffFile*>(self); }

}  // namespace

TiffFile::TiffFile(const InputFile& file) : path_(file.path()), input_(&file), end_(file.size()) {
  Open("rm");  // m: no memory mapping, which a file that shrinks would turn into a crash
}

TiffFile::TiffFile(const std::string& path, int fd, bool big) : path_(path), fd_(fd) {
  Open(big ? "w8l" : "wl");
}

void TiffFile::Open(const char* mode) {
  const std::unique_ptr<TIFFOpenOptions, OptionsCloser> options(TIFFOpenOptionsAlloc());
  if (options != nullptr) {
    TIFFOpenOptionsSetErrorHandlerExtR(options.get(), OnError, this);
    TIFFOpenOptionsSetWarningHandlerExtR(options.get(), OnWarning, this);
    TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(), kMaxAllocation);
    tiff_.reset(TIFFClientOpenExt(
        path_.c_str(), mode, this, Read, Write, Seek, [](thandle_t) { return 0; }, Size, nullptr,
        nullptr, options.get()));
  }
  if (tiff_ == nullptr || message_[0] != '\0') {
    Throw(input_ != nullptr ? ErrorCode::kCorrupt : ErrorCode::kIo, "cannot open the TIFF");
  }
}

void TiffFile::Next() {
  if (TIFFReadDirectory(get()) != 1 || message_[0] != '\0') {
    Throw(ErrorCode::kCorrupt,
          fmt::format("cannot read image {}", TIFFCurrentDirectory(get()) + 1));
  }
}

void TiffFile::Throw(ErrorCode code, const std::string& what) const {
  if (os_error_ != 0) throw OsError(path_, what, os_error_);
  const std::string reason = message_[0] == '\0' ? "" : std::string(": ") + message_.data();
  throw Error(code, path_, what + reason);
}

void TiffFile::Finish() {
  const bool flushed = TIFFFlush(get()) == 1;
  tiff_.reset();
  if (!flushed || os_error_ != 0 || message_[0] != '\0') Throw(ErrorCode::kIo, "cannot write");
}

// The handlers return 1: done, the library's own must not be called.
int TiffFile::OnError(TIFF*, void* self, const char*, const char* format, va_list arguments) {
  auto& message = Self(self)->message_;
  if (message[0] == '\0') std::vsnprintf(message.data(), message.size(), format, arguments);
  return 1;
}

// libtiff leaves out a tag whose value lies beyond the end of the file, with a warning: here that
// is an error. Its other warnings are about what does no harm, such as tags that it does not know.
int TiffFile::OnWarning(TIFF*, void* self, const char*, const char* format, va_list arguments) {
  std::array<char, 256> text{};
  std::vsnprintf(text.data(), text.size(), format, arguments);
  auto& message = Self(self)->message_;
  if (message[0] == '\0' && std::string_view(text.data()).starts_with("IO error")) message = text;
  return 1;
}

tmsize_t TiffFile::Read(thandle_t self, void* out, tmsize_t bytes) {
  TiffFile& file = *Self(self);
  try {
    const auto wanted = static_cast<size_t>(std::max<tmsize_t>(bytes, 0));
    const size_t got =
        file.input_ == nullptr ? 0 : file.input_->ReadSome(file.position_, out, wanted);
    file.position_ += got;
    return static_cast<tmsize_t>(got);
  } catch (const Error&) {  // libtiff is C: it must not see exceptions
    file.os_error_ = EIO;
    return -1;
  }
}

tmsize_t TiffFile::Write(thandle_t self, void* data, tmsize_t bytes) {
  TiffFile& file = *Self(self);
  const auto* next = static_cast<const uint8_t*>(data);
  for (tmsize_t left = bytes; left > 0;) {
    const ssize_t written =
        ::pwrite(file.fd_, next, static_cast<size_t>(left), static_cast<off_t>(file.position_));
    if (written < 0) {
      if (errno == EINTR) continue;
      if (file.os_error_ == 0) file.os_error_ = errno;
      return -1;
    }
    next += written;
    left -= written;
    file.position_ += static_cast<uint64_t>(written);
  }
  file.end_ = std::max(file.end_, file.position_);
  return bytes;
}

toff_t TiffFile::Seek(thandle_t self, toff_t offset, int whence) {
  TiffFile& file = *Self(self);
  if (whence == SEEK_CUR) offset += file.position_;
  if (whence == SEEK_END) offset += file.end_;
  file.position_ = offset;
  return offset;
}

toff_t TiffFile::Size(thandle_t self) { return Self(self)->end_; }

}  // namespace mstpp
