// SPDX-License-Identifier: Apache-2.0
// Products with the weights as mma.sync's first operand and the pixels as its second (FP16, sums in
// FP32): sixteen output channels by eight pixels.
//
// Lane (g, t), g = lane / 4, t = lane % 4, brings pixel g: two neighbouring pairs of the Vec that
// it holds anyway, channels 8t + 4s .. 8t + 4s + 3 of 32 in step s. (With the pixels first, the
// operand is two pixels' pairs in turn: a register move each.) The sums come back with channels in
// rows, g and g + 8, and pixels in columns, 2t and 2t + 1; turned by movmatrix, a lane has four
// channels of its pixel, neighbours in memory if the packer ordered the outputs so (Packer::Rows).
#pragma once

#include "cuda/kernels/lanes.cuh"

namespace mstpp::cuda {

// A lane's part of sixteen outputs by sixteen inputs.
struct WeightRows {
  uint32_t a[4];
};
constexpr int kWeightRowsBytes = 32 * sizeof(WeightRows);

MSTPP_DEVICE WeightRows LoadWeightRows(const void* array, int index, int lane) {
  const uint4 word = reinterpret_cast<const uint4*>(array)[index * 32 + lane];
  return {{word.x, word.y, word.z, word.w}};
}

// Those that copy sixteen inputs to outputs of the same order.
MSTPP_DEVICE WeightRows IdentityRows(int lane) {
  const uint32_t one = OnDiagonal(kOneHalf, lane);
  return {{one, 0u, 0u, one}};
}

// d = weights * pixels + c: four channels of the lane's pixel.
MSTPP_DEVICE void Multiply(float (&d)[4], const WeightRows& w, HalfPair x0, HalfPair x1,
                           const float (&c)[4]) {
  MmaHalf(d, w.a[0], w.a[1], w.a[2], w.a[3], x0.bits, x1.bits, c[0], c[1], c[2], c[3]);
}

// The lane's pixel's channels 2t, 2t + 1 (first) and 8 + 2t, 9 + 2t (second) of the sixteen.
MSTPP_DEVICE void TurnToPixels(const float (&d)[4], HalfPair& first, HalfPair& second) {
  first.bits = TransposeHalf(HalfPack(d[0], d[1]));
  second.bits = TransposeHalf(HalfPack(d[2], d[3]));
}

// The same of the sums' rests.
MSTPP_DEVICE void TurnRestsToPixels(const float (&d)[4], HalfPair& first, HalfPair& second) {
  float rest[4] = {d[0], d[1], d[2], d[3]};
  LeaveRest(rest[0], rest[1]);
  LeaveRest(rest[2], rest[3]);
  TurnToPixels(rest, first, second);
}

// Stores those of the lane's pixel, or their rests, if it is `inside`.
MSTPP_DEVICE void StorePixel(unsigned char* to, const float (&d)[4], bool inside) {
  HalfPair first, second;
  TurnToPixels(d, first, second);
  if (inside) *reinterpret_cast<uint2*>(to) = make_uint2(first.bits, second.bits);
}
MSTPP_DEVICE void StorePixelRests(unsigned char* to, const float (&d)[4], bool inside) {
  HalfPair first, second;
  TurnRestsToPixels(d, first, second);
  if (inside) *reinterpret_cast<uint2*>(to) = make_uint2(first.bits, second.bits);
}

}  // namespace mstpp::cuda
