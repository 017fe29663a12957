// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <tiffio.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace mstpp {

// A TIFF file in memory, open for reading. libtiff's errors and warnings are kept with the handle:
// nothing is printed, and files can be read on several threads at once.
class TiffMemory {
 public:
  // Throws Error (kCorrupt). The bytes must outlive this object.
  TiffMemory(const std::string& name, std::span<const uint8_t> bytes);
  TiffMemory(const TiffMemory&) = delete;
  TiffMemory& operator=(const TiffMemory&) = delete;

  TIFF* get() const { return tiff_.get(); }

  // A tag of one number, or libtiff's default for it, or `otherwise`.
  template <typename T>
  T Tag(uint32_t tag, T otherwise) const {
    T value{};
    return TIFFGetFieldDefaulted(get(), tag, &value) == 1 ? value : otherwise;
  }

  // libtiff's last words; empty if there were none since ForgetMessages.
  std::string error() const { return error_.data(); }
  std::string warning() const { return warning_.data(); }
  void ForgetMessages();

  // Throws Error (kCorrupt) with `what`, libtiff's reason if it gave one, and the remedy.
  [[noreturn]] void ThrowCorrupt(const std::string& what) const;

 private:
  using Message = std::array<char, 512>;
  struct Closer {
    void operator()(TIFF* tiff) const { TIFFClose(tiff); }
  };
  static int OnError(TIFF*, void* self, const char* module, const char* format, va_list arguments);
  static int OnWarning(TIFF*, void* self, const char* module, const char* format,
                       va_list arguments);
  static tmsize_t Read(thandle_t self, void* out, tmsize_t bytes);
  static toff_t Seek(thandle_t self, toff_t offset, int whence);
  static int Map(thandle_t self, void** base, toff_t* size);

  std::string name_;
  std::span<const uint8_t> bytes_;
  uint64_t position_ = 0;
  Message error_{}, warning_{};
  std::unique_ptr<TIFF, Closer> tiff_;  // last: closing it may still call back
};

}  // namespace mstpp
