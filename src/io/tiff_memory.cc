// SPDX-License-Identifier: Apache-2.0
#include "io/tiff_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

#include "mstpp/error.h"

namespace mstpp {
namespace {

// Beside tables whose size the file's own bounds, libtiff needs little: strips are decoded row by
// row from where they lie.
constexpr tmsize_t kSmallAllocations = tmsize_t{64} << 20;

struct OptionsDeleter {
  void operator()(TIFFOpenOptions* options) const { TIFFOpenOptionsFree(options); }
};

// libtiff's callbacks cannot throw, so messages go into arrays.
void Format(std::array<char, 512>* out, const char* module, const char* format, va_list arguments) {
  const int used = std::snprintf(out->data(), out->size(), "%s: ", module ? module : "libtiff");
  const size_t offset = std::min<size_t>(std::max(used, 0), out->size() - 1);
  std::vsnprintf(out->data() + offset, out->size() - offset, format, arguments);
}

}  // namespace

TiffMemory::TiffMemory(const std::string& name, std::span<const uint8_t> bytes)
    : name_(name), bytes_(bytes) {
  const std::unique_ptr<TIFFOpenOptions, OptionsDeleter> options(TIFFOpenOptionsAlloc());
  if (options == nullptr) throw std::bad_alloc();
  TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(),
                                      static_cast<tmsize_t>(bytes.size()) + kSmallAllocations);
  TIFFOpenOptionsSetErrorHandlerExtR(options.get(), OnError, this);
  TIFFOpenOptionsSetWarningHandlerExtR(options.get(), OnWarning, this);
  const auto write = [](thandle_t, void*, tmsize_t) -> tmsize_t { return -1; };
  const auto close = [](thandle_t) { return 0; };
  const auto size = [](thandle_t self) -> toff_t {
    return static_cast<TiffMemory*>(self)->bytes_.size();
  };
  const auto unmap = [](thandle_t, void*, toff_t) {};
  tiff_.reset(TIFFClientOpenExt("TIFF", "r", this, Read, write, Seek, close, size, Map, unmap,
                                options.get()));
  if (tiff_ == nullptr) ThrowCorrupt("has a broken TIFF header");
}

void TiffMemory::ForgetMessages() {
  error_[0] = '\0';
  warning_[0] = '\0';
}

void TiffMemory::ThrowCorrupt(const std::string& what) const {
  const char* reason = error_[0] != '\0' ? error_.data() : warning_.data();
  throw Error(
      ErrorCode::kCorrupt, name_,
      fmt::format("{}{}{}{}; copy the file again, or save it anew from an image editor", what,
                  reason[0] != '\0' ? " (" : "", reason, reason[0] != '\0' ? ")" : ""));
}

int TiffMemory::OnError(TIFF*, void* self, const char* module, const char* format,
                        va_list arguments) {
  Format(&static_cast<TiffMemory*>(self)->error_, module, format, arguments);
  return 1;  // dealt with: libtiff's global handler, which prints, is not called
}

int TiffMemory::OnWarning(TIFF*, void* self, const char* module, const char* format,
                          va_list arguments) {
  Format(&static_cast<TiffMemory*>(self)->warning_, module, format, arguments);
  return 1;
}

tmsize_t TiffMemory::Read(thandle_t self, void* out, tmsize_t bytes) {
  auto& file = *static_cast<TiffMemory*>(self);
  if (bytes <= 0 || file.position_ >= file.bytes_.size()) return 0;
  const size_t got = std::min<size_t>(bytes, file.bytes_.size() - file.position_);
  std::memcpy(out, file.bytes_.data() + file.position_, got);
  file.position_ += got;
  return static_cast<tmsize_t>(got);
}

toff_t TiffMemory::Seek(thandle_t self, toff_t offset, int whence) {
  auto& file = *static_cast<TiffMemory*>(self);
  // Offsets wrap on purpose: they are signed for SEEK_CUR and SEEK_END.
  file.position_ = whence == SEEK_SET   ? offset
                   : whence == SEEK_CUR ? file.position_ + offset
                                        : file.bytes_.size() + offset;
  return file.position_;
}

int TiffMemory::Map(thandle_t self, void** base, toff_t* size) {
  const auto& bytes = static_cast<TiffMemory*>(self)->bytes_;
  *base = const_cast<uint8_t*>(bytes.data());  // opened for reading only
  *size = bytes.size();
  return 1;
}

}  // namespace mstpp
