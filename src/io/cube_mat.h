// SPDX-License-Identifier: Apache-2.0
// The layout of a cube in a MAT-file of version 7.3, which is HDF5 behind a block of 512 bytes.
// HDF5's dimensions are MATLAB's in reverse: what MATLAB sees as (height, width, bands) lies as
// (bands, width, height), each band transposed.
#pragma once

#include <cstdint>

namespace mstpp {

inline constexpr char kMatCube[] = "cube";          // float32, (bands, width, height)
inline constexpr char kMatBands[] = "bands";        // float64, (bands, 1): wavelengths in nm
inline constexpr char kMatMetadata[] = "metadata";  // UTF-16 characters, (length, 1): JSON

inline constexpr int64_t kMatPiece = 1 << 18;  // numbers transposed at a time: 1 MiB stays in cache

// out[c][r] = in[r][c]. Tiles, so that a line of the cache that is fetched is used whole on both
// sides.
inline void Transpose(const float* in, int64_t in_stride, int64_t rows, int64_t columns, float* out,
                      int64_t out_stride) {
  constexpr int64_t kTile = 16;  // floats a cache line
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    const int64_t r1 = r0 + kTile < rows ? r0 + kTile : rows;
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = r0; r < r1; ++r) out[c * out_stride + r] = in[r * in_stride + c];
    }
  }
}

}  // namespace mstpp
