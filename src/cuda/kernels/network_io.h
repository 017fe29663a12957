// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace mstpp::cuda {

// Halves from one row of a cube of halves to the next. Channels and images follow one another.
constexpr int64_t HalfRow(int64_t width) { return (width + 7) / 8 * 8; }

// The caller's picture and cube, as the first and the last kernel of the network see them. Lies in
// device memory, so that one CUDA graph serves any pointers.
struct NetworkIo {
  const float* image;
  void* cube;               // of floats, or of halves in rows as HalfRow says
  int64_t image_stride[4];  // images, channels, rows, columns; in elements
  int64_t cube_stride[4];
  int height, width;            // of the picture, not padded
  int cube_height, cube_width;  // what to write of the padded cube
  int reflect;                  // else zeros
};

}  // namespace mstpp::cuda
