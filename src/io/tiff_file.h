// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <tiffio.h>

#include <array>
#include <cstdarg>
#include <cstdint>
#include <memory>
#include <string>

#include "io/input_file.h"
#include "mstpp/error.h"

namespace mstpp {

// A TIFF file on disk, read or written a piece at a time with libtiff. Errors are kept with the
// handle: nothing is printed, and several threads can each use one.
class TiffFile {
 public:
  // For reading. Throws Error (kCorrupt). The file must outlive this object.
  explicit TiffFile(const InputFile& file);

  // For writing through a descriptor, little-endian; `big` for files over 4 GB (BigTIFF). Throws
  // Error (kIo).
  TiffFile(const std::string& path, int fd, bool big);

  TiffFile(const TiffFile&) = delete;
  TiffFile& operator=(const TiffFile&) = delete;

  TIFF* get() const { return tiff_.get(); }

  // A tag of one number, or libtiff's default for it, or `otherwise`.
  template <typename T>
  T Tag(uint32_t tag, T otherwise) const {
    T value{};
    return TIFFGetFieldDefaulted(get(), tag, &value) == 1 ? value : otherwise;
  }

  // Goes to the next image. Throws Error (kCorrupt).
  void Next();

  // The Error for a libtiff call that failed: the operating system's reason if it has one, else
  // libtiff's, with `code`.
  [[noreturn]] void Throw(ErrorCode code, const std::string& what) const;

  // Writes what is left and closes. Throws Error (kIo).
  void Finish();

 private:
  struct Closer {
    void operator()(TIFF* tiff) const { TIFFClose(tiff); }
  };
  void Open(const char* mode);
  static int OnError(TIFF*, void* self, const char* module, const char* format, va_list arguments);
  static int OnWarning(TIFF*, void* self, const char* module, const char* format,
                       va_list arguments);
  static tmsize_t Read(thandle_t self, void* out, tmsize_t bytes);
  static tmsize_t Write(thandle_t self, void* data, tmsize_t bytes);
  static toff_t Seek(thandle_t self, toff_t offset, int whence);
  static toff_t Size(thandle_t self);

  std::string path_;
  const InputFile* input_ = nullptr;  // reading
  int fd_ = -1;                       // writing
  uint64_t position_ = 0;
  uint64_t end_ = 0;                    // of what was written
  int os_error_ = 0;                    // errno of the first failed write
  std::array<char, 256> message_{};     // libtiff's first error
  std::unique_ptr<TIFF, Closer> tiff_;  // last: closing it may still call back
};

}  // namespace mstpp
