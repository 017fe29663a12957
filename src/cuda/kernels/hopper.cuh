// SPDX-License-Identifier: Apache-2.0
// What Hopper alone has. Elsewhere, products in machine code for plain sm_90 too, a kernel that
// needs it must not be launched.
//
// Products of a warpgroup: four warps, of which each has sixteen rows of the first factor, 16
// inputs at a time, in its registers as for mma.sync; the second factor is in shared memory, inputs
// x N outputs in bricks of eight outputs by eight inputs, 128 bytes, output after output
// (Packer::Bricks): first those of all outputs and the first eight inputs, then of the next. So
// what a product reads at a time has every bank once.
//
// Or the first factor is in shared memory too, 64 rows in panels of 64 inputs: a row's 128 bytes
// follow each other at a multiple of 1024; 16 bytes of row i at place (chunk ^ i) % 8, for the
// banks' sake again.
//
// Copies of any size to shared memory, of which one thread gives notice and any can wait for.
#pragma once

#ifndef MSTPP_EMULATE_CUDA
#include <cuda.h>
#endif

#include <type_traits>

#include "cuda/kernels/weight_rows.cuh"

namespace mstpp::cuda {

// How a kernel that has both forms multiplies: each warp by itself, or four warps together.
enum class Products { kWarps, kWarpgroup };

#ifndef MSTPP_EMULATE_CUDA

// How a map lies in memory, for BeginBoxCopy: images x height x width x channels.
using BoxMap = CUtensorMap;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// Before a barrier behind which a copy overwrites, or a product reads, shared memory that this
// thread has written.
MSTPP_DEVICE void OrderCopies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Where copies are waited for, turn after turn. Before other threads see it there must be a
// barrier.
MSTPP_DEVICE void InitCopies(uint64_t* copies) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(copies));
  asm volatile(
      "mbarrier.init.shared::cta.b64 [%0], 1; fence.mbarrier_init.release.cluster;" ::"r"(address)
      : "memory");
}
// By one thread, a turn each: the copies that it is about to begin have so many bytes together.
MSTPP_DEVICE void AnnounceCopies(uint64_t* copies, int bytes) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(copies));
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes)
               : "memory");
}
// A multiple of 16 bytes.
MSTPP_DEVICE void BeginCopy(void* shared, const void* source, int bytes, uint64_t* copies) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(copies));
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(source), "r"(bytes), "r"(address)
      : "memory");
}
// 64 channels of kColumns x kRows pixels, which the map must be made for; zeros outside the image.
// 128 bytes a pixel, at a multiple of 1024; 16 bytes of pixel i at place (chunk ^ i) % 8.
template <int kColumns, int kRows>
MSTPP_DEVICE void BeginBoxCopy(void* shared, const BoxMap& map, int channel, int column, int row,
                               int image, uint64_t* copies) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(copies));
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(to),
      "l"(&map), "r"(channel), "r"(column), "r"(row), "r"(image), "r"(address)
      : "memory");
}
// Waits for the end of a turn: the first is 0, and no more than one has ended since.
MSTPP_DEVICE void AwaitCopy(uint64_t* copies, int turn) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(copies));
  asm volatile(
      "{ .reg .pred p;\n"
      "WAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@!p bra WAIT; }" ::"r"(address),
      "r"(turn & 1)
      : "memory");
}
#else
MSTPP_DEVICE void OrderCopies() {}
MSTPP_DEVICE void InitCopies(uint64_t*) { __trap(); }
MSTPP_DEVICE void AnnounceCopies(uint64_t*, int) {}
MSTPP_DEVICE void BeginCopy(void*, const void*, int, uint64_t*) {}
template <int kColumns, int kRows>
MSTPP_DEVICE void BeginBoxCopy(void*, const BoxMap&, int, int, int, int, uint64_t*) {}
MSTPP_DEVICE void AwaitCopy(uint64_t*, int) {}
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MSTPP_PAIRS(i)                                                                        \
  "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), \
      "+r"(d[i + 6]), "+r"(d[i + 7]), "+r"(d[i + 8]), "+r"(d[i + 9]), "+r"(d[i + 10]),        \
      "+r"(d[i + 11]), "+r"(d[i + 12]), "+r"(d[i + 13]), "+r"(d[i + 14]), "+r"(d[i + 15])
#define MSTPP_FLOATS(i)                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7]), "+f"(d[i + 8]), "+f"(d[i + 9]), "+f"(d[i + 10]),        \
      "+f"(d[i + 11]), "+f"(d[i + 12]), "+f"(d[i + 13]), "+f"(d[i + 14]), "+f"(d[i + 15])
#define MSTPP_TILE(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])

// What is computed of registers before stays before, and what is computed of them after, after: the
// compiler does not know when a product is done with them.
MSTPP_DEVICE void KeepOrder(float& value) { asm volatile("" : "+f"(value)::"memory"); }
MSTPP_DEVICE void KeepOrder(uint32_t& value) { asm volatile("" : "+r"(value)::"memory"); }
template <class T, int N>
MSTPP_DEVICE void KeepOrder(T (&values)[N]) {
  MSTPP_UNROLL
  for (int i = 0; i < N; ++i) KeepOrder(values[i]);
}
MSTPP_DEVICE void KeepOrder(WeightRows& rows) { KeepOrder(rows.a); }

// A factor's place in its descriptor.
MSTPP_DEVICE uint64_t SharedPlace(const void* factor) {
  return (static_cast<uint32_t>(__cvta_generic_to_shared(factor)) & 0x3ffffu) >> 4;
}
// The second factor's descriptor, `offset` bytes from `bricks`; eight inputs lie kInputBytes from
// the eight before.
template <int kInputBytes>
MSTPP_DEVICE uint64_t BricksAt(const void* bricks, int offset) {
  constexpr uint64_t kOutputs = 128 / 16, kInputs = kInputBytes / 16;
  return (SharedPlace(bricks) | kInputs << 16 | kOutputs << 32) + offset / 16;
}
// The same from the inputs 16 s on, where they lie next to each other.
template <int N>
MSTPP_DEVICE uint64_t Bricks(const void* bricks, int s) {
  return BricksAt<16 * N>(bricks, s * 32 * N);
}
// The first factor's where it is in shared memory, in panels `panel_bytes` apart.
MSTPP_DEVICE uint64_t Panels(const void* rows, int panel_bytes, int s) {
  constexpr uint64_t kEightRows = 1024 / 16, k128ByteSwizzle = 1;
  return (SharedPlace(rows) | kEightRows << 32 | k128ByteSwizzle << 62) +
         s / 4 * (panel_bytes / 16) + s % 4 * (32 / 16);
}

// d (+)= a b of 16 inputs: pairs of halves or floats, of rows lane / 4 and lane / 4 + 8 in turn;
// or, of 32 outputs, those of each eight as mma.sync has them.
template <bool kFirst>
MSTPP_DEVICE void MultiplyBricks(uint32_t (&d)[16], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %21, 0; "
      "wgmma.mma_async.sync.aligned.m64n64k16.f16.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "{%16, %17, %18, %19}, %20, p, 1, 1, 0; }"
      : MSTPP_PAIRS(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kFirst ? 0 : 1));
}
template <bool kFirst>
MSTPP_DEVICE void MultiplyBricks(float (&d)[4][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %21, 0; "
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "{%16, %17, %18, %19}, %20, p, 1, 1, 0; }"
      : MSTPP_TILE(0), MSTPP_TILE(1), MSTPP_TILE(2), MSTPP_TILE(3)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kFirst ? 0 : 1));
}
template <bool kFirst>
MSTPP_DEVICE void MultiplyBricks(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0; "
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
      : MSTPP_FLOATS(0), MSTPP_FLOATS(16)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kFirst ? 0 : 1));
}
template <bool kFirst>
MSTPP_DEVICE void MultiplyBricks(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %69, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
      : MSTPP_FLOATS(0), MSTPP_FLOATS(16), MSTPP_FLOATS(32), MSTPP_FLOATS(48)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kFirst ? 0 : 1));
}

// The same of a first factor in shared memory.
template <bool kFirst>
MSTPP_DEVICE void MultiplyBricks(float (&d)[4][4], uint64_t a, uint64_t b) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %18, 0; "
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "%16, %17, p, 1, 1, 0, 0; }"
      : MSTPP_TILE(0), MSTPP_TILE(1), MSTPP_TILE(2), MSTPP_TILE(3)
      : "l"(a), "l"(b), "n"(kFirst ? 0 : 1));
}

#undef MSTPP_PAIRS
#undef MSTPP_FLOATS
#undef MSTPP_TILE

// Products step by step, all between BeginProducts and EndProducts at once. Nobody may touch what
// is in registers of them until they are awaited: all but the last kPending begun.
MSTPP_DEVICE void BeginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
MSTPP_DEVICE void EndProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending = 0>
MSTPP_DEVICE void AwaitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// d (+)= a b of 16 inputs and 32 outputs (BricksAt).
template <bool kFirst, int kInputBytes>
MSTPP_DEVICE void AddProduct(float (&d)[4][4], const uint32_t (&a)[4], const void* bricks,
                             int offset) {
  MultiplyBricks<kFirst>(d, a, BricksAt<kInputBytes>(bricks, offset));
}

// All steps of d = a b or, unless kFirst, d += a b; a(s): the first factor of step s.
template <int N, bool kFirst, int kSteps, class T, int kSize, class F>
MSTPP_DEVICE void BeginSteps(T (&d)[kSize], const F& a, const void* bricks) {
  BeginProducts();
  MSTPP_UNROLL
  for (int s = 0; s < kSteps; ++s) {
    if (kFirst && s == 0) {
      MultiplyBricks<true>(d, a(s), Bricks<N>(bricks, s));
    } else {
      MultiplyBricks<false>(d, a(s), Bricks<N>(bricks, s));
    }
  }
  EndProducts();
}
// Begins d = a b or, unless kFirst, d += a b of 16 kSteps inputs: of each step the warp's rows as
// mma.sync's first operand, and `bricks` of N outputs, from the first one in d on. Nobody may touch
// d and a before AwaitRows.
template <int N, bool kFirst, class T, int kSize, int kSteps>
MSTPP_DEVICE void BeginRows(T (&d)[kSize], uint32_t (&a)[kSteps][4], const void* bricks) {
  KeepOrder(d);
  KeepOrder(a);
  BeginSteps<N, kFirst, kSteps>(
      d, [&](int s) -> const uint32_t(&)[4] { return a[s]; }, bricks);
}
// Waits for all products but the last kPending begun.
template <int kPending, class T, int kSize, int kSteps>
MSTPP_DEVICE void AwaitRows(T (&d)[kSize], uint32_t (&a)[kSteps][4]) {
  AwaitProducts<kPending>();
  KeepOrder(d);
  KeepOrder(a);
}
// The same of a first factor in shared memory, in panels `panel_bytes` apart. Whoever has written
// it must have called OrderCopies before a barrier.
template <int N, bool kFirst, int kSteps, class T, int kSize>
MSTPP_DEVICE void BeginRows(T (&d)[kSize], const void* rows, int panel_bytes, const void* bricks) {
  KeepOrder(d);
  BeginSteps<N, kFirst, kSteps>(
      d, [&](int s) { return Panels(rows, panel_bytes, s); }, bricks);
}
template <int kPending, class T, int kSize>
MSTPP_DEVICE void AwaitRows(T (&d)[kSize]) {
  AwaitProducts<kPending>();
  KeepOrder(d);
}
#else
template <class T>
MSTPP_DEVICE void KeepOrder(T&) {}
MSTPP_DEVICE void BeginProducts() { __trap(); }
MSTPP_DEVICE void EndProducts() {}
template <int kPending = 0>
MSTPP_DEVICE void AwaitProducts() {}
template <bool kFirst, int kInputBytes>
MSTPP_DEVICE void AddProduct(float (&)[4][4], const uint32_t (&)[4], const void*, int) {}
template <int N, bool kFirst, class T, int kSize, int kSteps>
MSTPP_DEVICE void BeginRows(T (&)[kSize], uint32_t (&)[kSteps][4], const void*) {
  __trap();
}
template <int kPending, class T, int kSize, int kSteps>
MSTPP_DEVICE void AwaitRows(T (&)[kSize], uint32_t (&)[kSteps][4]) {}
template <int N, bool kFirst, int kSteps, class T, int kSize>
MSTPP_DEVICE void BeginRows(T (&)[kSize], const void*, int, const void*) {
  __trap();
}
template <int kPending, class T, int kSize>
MSTPP_DEVICE void AwaitRows(T (&)[kSize]) {}
#endif

#endif  // MSTPP_EMULATE_CUDA

// All at once.
template <int N, bool kFirst, class T, int kSize, int kSteps>
MSTPP_DEVICE void MultiplyRows(T (&d)[kSize], uint32_t (&a)[kSteps][4], const void* bricks) {
  BeginRows<N, kFirst>(d, a, bricks);
  AwaitRows<0>(d, a);
}

}  // namespace mstpp::cuda
