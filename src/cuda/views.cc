// SPDX-License-Identifier: Apache-2.0
#include "cuda/views.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <cstring>

namespace mstpp::cuda {

void CopyView(const TensorView& from, const MutableTensorView& to) {
  // One thread copies several times slower than a GPU's bus.
  constexpr int64_t kFloatsAtATime = 1 << 17;
  const int64_t grain = std::max<int64_t>(1, kFloatsAtATime / std::max<int64_t>(1, from.w));
  const tbb::blocked_range<int64_t> rows(0, from.n * from.c * from.h, static_cast<size_t>(grain));
  tbb::parallel_for(rows, [&](const tbb::blocked_range<int64_t>& range) {
    for (int64_t row = range.begin(); row < range.end(); ++row) {
      const int64_t y = row % from.h, c = row / from.h % from.c, n = row / from.h / from.c;
      const float* source = from.data + n * from.stride_n + c * from.stride_c + y * from.stride_h;
      float* target = to.data + n * to.stride_n + c * to.stride_c + y * to.stride_h;
      if (from.stride_w == 1 && to.stride_w == 1) {
        std::memcpy(target, source, static_cast<size_t>(from.w) * sizeof(float));
      } else {
        for (int64_t x = 0; x < from.w; ++x) target[x * to.stride_w] = source[x * from.stride_w];
      }
    }
  });
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
