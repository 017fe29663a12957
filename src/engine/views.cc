// SPDX-License-Identifier: Apache-2.0
#include "engine/views.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <utility>

#include "mstpp/error.h"

namespace mstpp {
namespace {

TensorView Const(const MutableTensorView& v) {
  return {v.data, v.n, v.c, v.h, v.w, v.stride_n, v.stride_c, v.stride_h, v.stride_w};
}

struct Axis {
  int64_t size, stride;
};

std::array<Axis, 4> Axes(const TensorView& v) {
  return {{{v.n, v.stride_n}, {v.c, v.stride_c}, {v.h, v.stride_h}, {v.w, v.stride_w}}};
}

// The addresses from the first byte to the one after the last.
std::pair<uintptr_t, uintptr_t> Extent(const TensorView& view) {
  int64_t low = 0, high = 0;
  for (const Axis& axis : Axes(view)) {
    const int64_t reach = (axis.size - 1) * axis.stride;
    (reach < 0 ? low : high) += reach;
  }
  const auto base = reinterpret_cast<uintptr_t>(view.data);
  return {base + low * sizeof(float), base + (high + 1) * sizeof(float)};
}

void CheckSides(const char* name, const TensorView& view) {
  if (view.data == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, name, "the tensor's data is null");
  }
  for (const Axis& axis : Axes(view)) {
    if (axis.size < 1) {
      throw Error(ErrorCode::kInvalidArgument, name,
                  fmt::format("the tensor is {}; every side must be 1 or more", ShapeText(view)));
    }
  }
}

void CheckStrides(const TensorView& output) {
  for (const Axis& axis : Axes(output)) {
    if (axis.size > 1 && axis.stride == 0) {
      throw Error(ErrorCode::kInvalidArgument, "output",
                  "a stride is 0, so values would overwrite each other");
    }
  }
}

}  // namespace

std::string ShapeText(const TensorView& view) {
  return fmt::format("{} x {} x {} x {}", view.n, view.c, view.h, view.w);
}

void CheckTensorViews(const TensorView& input, const MutableTensorView& output, int channels,
                      int bands) {
  const TensorView out = Const(output);
  CheckSides("input", input);
  if (input.c != channels) {
    throw Error(ErrorCode::kInvalidArgument, "input",
                fmt::format("the tensor is {}, but the network takes {} channels", ShapeText(input),
                            channels));
  }
  CheckSides("output", out);
  if (out.n != input.n || out.c != bands || out.h != input.h || out.w != input.w) {
    throw Error(ErrorCode::kInvalidArgument, "output",
                fmt::format("the tensor is {}; for an input of {} it must be {} x {} x {} x {}",
                            ShapeText(out), ShapeText(input), input.n, bands, input.h, input.w));
  }
  CheckStrides(out);
  const auto [in_begin, in_end] = Extent(input);
  const auto [out_begin, out_end] = Extent(out);
  if (in_begin < out_end && out_begin < in_end) {
    throw Error(ErrorCode::kInvalidArgument, "output", "the memory overlaps that of the input");
  }
}

}  // namespace mstpp
