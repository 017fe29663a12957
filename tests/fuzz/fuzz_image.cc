// SPDX-License-Identifier: Apache-2.0
// Any bytes are either refused with an Error or give a whole picture.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "io/image_reader.h"
#include "mstpp/error.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

uint32_t Crc(const uint8_t* bytes, size_t size) {
  uint32_t crc = ~0U;
  for (size_t i = 0; i < size; ++i) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320U : 0);
  }
  return ~crc;
}

// A PNG's checksums would stop nearly every mutation at the door.
void MendPngChecksums(uint8_t* data, size_t size) {
  if (size < 8 || std::memcmp(data, "\x89PNG\r\n\x1a\n", 8) != 0) return;
  size_t at = 8;
  while (size - at >= 12) {
    const size_t length =
        size_t{data[at]} << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3];
    if (length > size - at - 12) return;
    const uint32_t crc = Crc(data + at + 4, length + 4);
    for (int i = 0; i < 4; ++i) data[at + 8 + length + i] = crc >> (24 - 8 * i) & 0xff;
    at += 12 + length;
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  const size_t mutated = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 8 != 0) MendPngChecksums(data, mutated);
  return mutated;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const mstpp::Image image =
        mstpp::ReadImageFromMemory("fuzz", {data, size}, {.pixels = 1 << 18});
    const auto pixels = static_cast<size_t>(image.width * image.height);
    const bool integers = image.white != 1;
    const bool good = std::all_of(image.data.begin(), image.data.end(), [&](float v) {
      return integers ? v >= 0 && v <= image.white && v == std::floor(v) : std::isfinite(v);
    });
    if (pixels == 0 || image.data.size() != 3 * pixels || !good) std::abort();
  } catch (const mstpp::Error& error) {
    if (error.code() == mstpp::ErrorCode::kInternal) std::abort();
  }
  return 0;
}
