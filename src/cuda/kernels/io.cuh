// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/kernels/network_io.h"
#include "cuda/kernels/ptx.cuh"

namespace mstpp::cuda {

// Where a row or column of the padded picture lies in the picture; -1 if it is zero.
MSTPP_DEVICE int SourceIndex(int at, int size, int padded_size, bool reflect) {
  if (static_cast<unsigned>(at) >= static_cast<unsigned>(padded_size)) return -1;
  if (at < size) return at;
  return reflect ? 2 * size - 2 - at : -1;
}

// A pixel of the padded picture, which zeros surround.
MSTPP_DEVICE float ReadImage(const NetworkIo& io, const float* image, int channel, int y, int x,
                             int padded_height, int padded_width) {
  y = SourceIndex(y, io.height, padded_height, io.reflect);
  x = SourceIndex(x, io.width, padded_width, io.reflect);
  if (y < 0 || x < 0) return 0.0f;
  return image[channel * io.image_stride[1] + y * io.image_stride[2] + x * io.image_stride[3]];
}

}  // namespace mstpp::cuda
