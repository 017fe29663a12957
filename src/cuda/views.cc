// SPDX-License-Identifier: Apache-2.0
#include "cuda/views.h"

#include <algorithm>
#include <cstring>

namespace mstpp::cuda {

void CopyView(const TensorView& from, const MutableTensorView& to) {
  for (int64_t n = 0; n < from.n; ++n) {
    for (int64_t c = 0; c < from.c; ++c) {
      for (int64_t y = 0; y < from.h; ++y) {
        const float* source = from.data + n * from.stride_n + c * from.stride_c + y * from.stride_h;
        float* target = to.data + n * to.stride_n + c * to.stride_c + y * to.stride_h;
        if (from.stride_w == 1 && to.stride_w == 1) {
          std::memcpy(target, source, static_cast<size_t>(from.w) * sizeof(float));
        } else {
          for (int64_t x = 0; x < from.w; ++x) target[x * to.stride_w] = source[x * from.stride_w];
        }
      }
    }
  }
}

NetworkIo MakeIo(const TensorView& input, const MutableTensorView& output, Padding padding) {
  NetworkIo io = {};
  io.image = input.data;
  io.cube = output.data;
  const int64_t in[4] = {input.stride_n, input.stride_c, input.stride_h, input.stride_w};
  const int64_t out[4] = {output.stride_n, output.stride_c, output.stride_h, output.stride_w};
  std::copy_n(in, 4, io.image_stride);
  std::copy_n(out, 4, io.cube_stride);
  io.height = static_cast<int>(input.h);
  io.width = static_cast<int>(input.w);
  io.cube_height = static_cast<int>(output.h);
  io.cube_width = static_cast<int>(output.w);
  io.reflect = padding == Padding::kReflect ? 1 : 0;
  return io;
}

}  // namespace mstpp::cuda
