// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace mstpp::cuda {

// The caller's picture and cube, as the first and the last kernel of the network see them. Lies in
// device memory, so that one CUDA graph serves any pointers.
struct NetworkIo {
  const float* image;
  float* cube;
  int64_t image_stride[4];  // images, channels, rows, columns; in elements
  int64_t cube_stride[4];
  int height, width;            // of the picture, not padded
  int cube_height, cube_width;  // what to write of the padded cube
  int reflect;                  // else zeros
};

}  // namespace mstpp::cuda
