// SPDX-License-Identifier: Apache-2.0
// Pictures and cubes as the caller gives them.
#pragma once

#include "cuda/kernels/network_io.h"
#include "mstpp/engine.h"
#include "mstpp/options.h"

namespace mstpp::cuda {

template <class T>
BasicTensorView<T> Images(BasicTensorView<T> view, int64_t first, int64_t count) {
  view.data += first * view.stride_n;
  view.n = count;
  return view;
}

// Copies between views of the same size in host memory, on several threads.
void CopyView(const TensorView& from, const MutableTensorView& to);

// What the kernels are told of views that they can read and write.
NetworkIo MakeIo(const TensorView& input, const MutableTensorView& output, Padding padding);

}  // namespace mstpp::cuda
