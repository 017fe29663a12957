// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

namespace mstpp::cuda {

// How a map of halves lies in memory, images x height x width x channels, for a kernel that copies
// boxes of it (BoxMap of kernels/hopper.cuh): 64 channels of so many columns and rows.
CUtensorMap MakeBoxMap(const void* map, int images, int height, int width, int channels,
                       int columns, int rows);

}  // namespace mstpp::cuda
