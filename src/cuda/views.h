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

// A cube as a kernel writes it and the bus carries it: of floats, or of halves (FP16).
template <class T>
BasicTensorView<T> CubeAt(T* data, int64_t n, int64_t c, int64_t h, int64_t w) {
  const int64_t row = sizeof(T) == sizeof(float) ? w : HalfRow(w);
  return {data, n, c, h, w, c * h * row, h * row, row, 1};
}
using HalfView = BasicTensorView<const uint16_t>;

// Copies between views of the same size in host memory, on several threads.
void CopyView(const TensorView& from, const MutableTensorView& to);
// Of them the rows `first` to `last` - 1, counted through all images and channels.
void CopyRows(const TensorView& from, const MutableTensorView& to, int64_t first, int64_t last);
void CopyRows(const HalfView& from, const MutableTensorView& to, int64_t first, int64_t last);

// What the kernels are told of views that they can read and write.
NetworkIo MakeIo(const TensorView& input, const MutableTensorView& output, Padding padding);
NetworkIo MakeIo(const TensorView& input, const BasicTensorView<uint16_t>& output, Padding padding);

}  // namespace mstpp::cuda
