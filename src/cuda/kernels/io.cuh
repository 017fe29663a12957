// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/kernels/network_io.h"
#include "cuda/kernels/ptx.cuh"

namespace mstpp::cuda {

// A pixel of the padded picture, which zeros surround.
MSTPP_DEVICE float ReadImage(const NetworkIo& io, const float* image, int channel, int y, int x,
                             int padded_height, int padded_width) {
  if (static_cast<unsigned>(y) >= static_cast<unsigned>(padded_height) ||
      static_cast<unsigned>(x) >= static_cast<unsigned>(padded_width)) {
    return 0.0f;
  }
  if (y >= io.height || x >= io.width) {
    if (!io.reflect) return 0.0f;
    if (y >= io.height) y = 2 * io.height - 2 - y;
    if (x >= io.width) x = 2 * io.width - 2 - x;
  }
  return image[channel * io.image_stride[1] + y * io.image_stride[2] + x * io.image_stride[3]];
}

}  // namespace mstpp::cuda
