// SPDX-License-Identifier: Apache-2.0
#include "io/png_writer.h"

#include <fmt/format.h>
#include <spng.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "core/atomic_file.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

struct ContextDeleter {
  void operator()(spng_ctx* context) const { spng_ctx_free(context); }
};

// The file, and what went wrong writing it: exceptions must not pass through libspng.
struct Sink {
  AtomicFile* file;
  std::exception_ptr error;
};

int WriteBytes(spng_ctx*, void* user, void* bytes, size_t length) {
  auto* sink = static_cast<Sink*>(user);
  try {
    sink->file->Write(bytes, length);
    return SPNG_OK;
  } catch (...) {
    sink->error = std::current_exception();
    return SPNG_IO_ERROR;
  }
}

void CheckImage(const std::string& path, const Image& image) {
  constexpr int64_t kMostSide = std::numeric_limits<int32_t>::max();  // of PNG
  if (image.channels != 3 || image.width <= 0 || image.height <= 0 || image.width > kMostSide ||
      image.height > kMostSide ||
      image.data.size() / 3 / static_cast<uint64_t>(image.width) !=
          static_cast<uint64_t>(image.height) ||
      image.data.size() % (3 * static_cast<uint64_t>(image.width)) != 0) {
    throw Error(ErrorCode::kInvalidArgument, path,
                fmt::format("no PNG can be made of {} values for {} channels of {} x {}",
                            image.data.size(), image.channels, image.width, image.height));
  }
  if (image.white != 255 && image.white != 65535) {
    throw Error(ErrorCode::kInvalidArgument, path,
                fmt::format("a PNG's white is 255 or 65535, not {}", image.white));
  }
}

template <typename T>
T ToCount(float value) {
  constexpr float kMost = std::numeric_limits<T>::max();
  if (!(value > 0)) return 0;  // NaN too
  return static_cast<T>(std::lround(std::min(value, kMost)));
}

class PngWriter {
 public:
  PngWriter(const std::string& path, const Image& image)
      : path_(path), image_(image), file_(path), context_(spng_ctx_new(SPNG_CTX_ENCODER)) {
    if (context_ == nullptr) throw std::bad_alloc();
  }

  void Write() {
    const bool wide = image_.white == 65535;
    spng_ihdr header{};
    header.width = static_cast<uint32_t>(image_.width);
    header.height = static_cast<uint32_t>(image_.height);
    header.bit_depth = wide ? 16 : 8;
    header.color_type = SPNG_COLOR_TYPE_TRUECOLOR;
    constexpr uint8_t kRelativeColorimetric = 1;
    Check(spng_set_png_stream(context_.get(), WriteBytes, &sink_));
    Check(spng_set_ihdr(context_.get(), &header));
    Check(spng_set_srgb(context_.get(), kRelativeColorimetric));
    Check(spng_encode_image(context_.get(), nullptr, 0, SPNG_FMT_PNG,
                            SPNG_ENCODE_PROGRESSIVE | SPNG_ENCODE_FINALIZE));
    if (wide) {
      WriteRows<uint16_t>();
    } else {
      WriteRows<uint8_t>();
    }
    file_.Commit();
  }

 private:
  void Check(int status) const {
    if (sink_.error) std::rethrow_exception(sink_.error);
    if (status == SPNG_EMEM) throw std::bad_alloc();
    if (status != SPNG_OK) throw Error(ErrorCode::kInternal, path_, spng_strerror(status));
  }

  template <typename T>
  void WriteRows() {
    std::vector<T> row(static_cast<size_t>(3 * image_.width));
    for (int64_t y = 0; y < image_.height; ++y) {
      for (int64_t channel = 0; channel < 3; ++channel) {
        const float* in = image_.data.data() + (channel * image_.height + y) * image_.width;
        for (int64_t x = 0; x < image_.width; ++x) row[3 * x + channel] = ToCount<T>(in[x]);
      }
      const int status = spng_encode_row(context_.get(), row.data(), row.size() * sizeof(T));
      const bool last = y + 1 == image_.height;
      Check(last && status == SPNG_EOI ? SPNG_OK : status);
    }
  }

  const std::string& path_;
  const Image& image_;
  AtomicFile file_;
  Sink sink_{&file_, nullptr};
  std::unique_ptr<spng_ctx, ContextDeleter> context_;
};

}  // namespace

void WritePng(const std::string& path, const Image& image) {
  CheckImage(path, image);
  try {
    PngWriter(path, image).Write();
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, path, "not enough memory to write the picture");
  }
}

}  // namespace mstpp
