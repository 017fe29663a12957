// SPDX-License-Identifier: Apache-2.0
// The instructions that C++ has no name for, one small function each. Kernels use these and plain
// C++ only, so that a host program can run them with its own versions (tests/cuda_emulator.h).
#pragma once

#ifdef MSTPP_EMULATE_CUDA
#include "cuda_emulator.h"
#else

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define MSTPP_DEVICE __device__ __forceinline__
#define MSTPP_HOST_DEVICE __host__ __device__
#define MSTPP_UNROLL _Pragma("unroll")
#define MSTPP_UNROLL_2 _Pragma("unroll 2")
#define MSTPP_UNROLL_4 _Pragma("unroll 4")
#define MSTPP_UNROLL_8 _Pragma("unroll 8")
#define MSTPP_NO_UNROLL _Pragma("unroll 1")

namespace mstpp::cuda {

MSTPP_DEVICE unsigned char* SharedMemory() {
  extern __shared__ __align__(1024) unsigned char mstpp_shared_memory[];
  return mstpp_shared_memory;
}

MSTPP_DEVICE __half2 AsHalf2(uint32_t bits) { return *reinterpret_cast<__half2*>(&bits); }
MSTPP_DEVICE uint32_t AsBits(__half2 value) { return *reinterpret_cast<uint32_t*>(&value); }

MSTPP_DEVICE uint32_t HalfMul(uint32_t a, uint32_t b) {
  return AsBits(__hmul2(AsHalf2(a), AsHalf2(b)));
}
MSTPP_DEVICE uint32_t HalfAdd(uint32_t a, uint32_t b) {
  return AsBits(__hadd2(AsHalf2(a), AsHalf2(b)));
}
MSTPP_DEVICE uint32_t HalfSubtract(uint32_t a, uint32_t b) {
  return AsBits(__hsub2(AsHalf2(a), AsHalf2(b)));
}
MSTPP_DEVICE uint32_t HalfFma(uint32_t a, uint32_t b, uint32_t c) {
  return AsBits(__hfma2(AsHalf2(a), AsHalf2(b), AsHalf2(c)));
}
// c - a * b.
MSTPP_DEVICE uint32_t HalfNegatedFma(uint32_t a, uint32_t b, uint32_t c) {
  return AsBits(__hfma2(__hneg2(AsHalf2(a)), AsHalf2(b), AsHalf2(c)));
}
MSTPP_DEVICE uint32_t HalfAbs(uint32_t a) { return AsBits(__habs2(AsHalf2(a))); }
// a * b + c, clamped to [0, 1]; NaN gives 0.
MSTPP_DEVICE uint32_t HalfFmaSaturate(uint32_t a, uint32_t b, uint32_t c) {
  return AsBits(__hfma2_sat(AsHalf2(a), AsHalf2(b), AsHalf2(c)));
}
MSTPP_DEVICE uint32_t HalfPack(float low, float high) {
  return AsBits(__floats2half2_rn(low, high));
}
MSTPP_DEVICE uint32_t Bf16Pack(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
// Of the bytes of low, 0 to 3, and of high, 4 to 7, those that the digits of `places` name.
MSTPP_DEVICE uint32_t PermuteBytes(uint32_t low, uint32_t high, uint32_t places) {
  return __byte_perm(low, high, places);
}
MSTPP_DEVICE uint32_t AsUint(float value) { return __float_as_uint(value); }
MSTPP_DEVICE float AsFloat(uint32_t bits) { return __uint_as_float(bits); }
MSTPP_DEVICE float HalfLow(uint32_t a) { return __low2float(AsHalf2(a)); }
MSTPP_DEVICE float HalfHigh(uint32_t a) { return __high2float(AsHalf2(a)); }

// What a whole warp does together is volatile: else the compiler moves it to where its result is
// used, into a branch that some lanes do not take, and the warp never ends.

// d = a b + c: a is 16 x 16 (rows lane/4 and lane/4 + 8), b 16 x 8 (columns lane/4).
MSTPP_DEVICE void MmaHalf(uint32_t& d0, uint32_t& d1, uint32_t a0, uint32_t a1, uint32_t a2,
                          uint32_t a3, uint32_t b0, uint32_t b1, uint32_t c0, uint32_t c1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1},{%2,%3,%4,%5},{%6,%7},{%8,%9};"
      : "=r"(d0), "=r"(d1)
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(c0), "r"(c1));
}
// The same for 16 x 8 by 8 x 8.
MSTPP_DEVICE void MmaHalf(uint32_t& d0, uint32_t& d1, uint32_t a0, uint32_t a1, uint32_t b0,
                          uint32_t c0, uint32_t c1) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0,%1},{%2,%3},{%4},{%5,%6};"
               : "=r"(d0), "=r"(d1)
               : "r"(a0), "r"(a1), "r"(b0), "r"(c0), "r"(c1));
}
MSTPP_DEVICE void MmaHalf(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                          uint32_t b0, uint32_t b1, float c0, float c1, float c2, float c3) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(c0), "f"(c1), "f"(c2), "f"(c3));
}
// The same for 16 x 8 by 8 x 8.
MSTPP_DEVICE void MmaHalf(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b0, float c0, float c1,
                          float c2, float c3) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3},{%4,%5},{%6},{%7,%8,%9,%10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a0), "r"(a1), "r"(b0), "f"(c0), "f"(c1), "f"(c2), "f"(c3));
}
// The same for 16 x 8 by 8 x 8 in TF32: the hardware drops the low 13 bits of each factor.
MSTPP_DEVICE void MmaTf32(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                          uint32_t b0, uint32_t b1, float c0, float c1, float c2, float c3) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(c0), "f"(c1), "f"(c2), "f"(c3));
}
// The transpose of an 8 x 8 matrix of halves spread over a warp, a row every four lanes.
MSTPP_DEVICE uint32_t TransposeHalf(uint32_t a) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(a));
  return result;
}

// Four 8 x 8 matrices of halves from shared memory; lane i has the address of row i % 8 of matrix
// i / 8, 16 bytes. Of each matrix the lane gets, or gives, two neighbours: row lane/4, columns
// 2 (lane % 4) and the next.
MSTPP_DEVICE void LoadMatrices(uint32_t (&m)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kStoresMatrices = false;
MSTPP_DEVICE void StoreMatrices(void*, const uint32_t (&)[4]) {}
#else
constexpr bool kStoresMatrices = true;
MSTPP_DEVICE void StoreMatrices(void* row, const uint32_t (&m)[4]) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address),
               "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
               : "memory");
}
#endif

MSTPP_DEVICE uint32_t Shuffle(uint32_t value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
MSTPP_DEVICE float Shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
MSTPP_DEVICE uint32_t ShuffleXor(uint32_t value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
MSTPP_DEVICE float ShuffleXor(float value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

// A value below 8 that the whole warp has, as one that the compiler knows to be the same in all
// lanes: it is kept once, and branches are the warp's.
MSTPP_DEVICE int OfWarp(int value) {
  int result = 0;
  MSTPP_UNROLL
  for (int bit = 1; bit < 8; bit *= 2) {
    if (__ballot_sync(0xffffffffu, (value & bit) != 0) != 0) result += bit;
  }
  return result;
}

// A barrier of a block of kThreads, which its warps may reach from different places in the code.
template <int kThreads>
MSTPP_DEVICE void BlockBarrier() {
  asm volatile("barrier.sync 1, %0;" ::"n"(kThreads) : "memory");
}

// Of kernels that overlap (Kernel::Bind in launch.cuh): from here on the next one's blocks may
// start where there is room; and waits until all of the kernel before is done and can be seen.
MSTPP_DEVICE void LaunchDependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
MSTPP_DEVICE void WaitForPrevious() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The pointer, which was read from memory, as one to global memory.
template <class T>
MSTPP_DEVICE T* Global(T* pointer) {
  __builtin_assume(__isGlobal(pointer));
  return pointer;
}

// 16 bytes from global to shared memory without waiting; zeros where `inside` is false (`source`
// is not read then).
MSTPP_DEVICE void CopyAsync(void* shared, const void* source, bool inside) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = inside ? 16 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(source),
               "r"(bytes)
               : "memory");
}
// The same in threads of which `wanted` is true; it need not be the warp's.
MSTPP_DEVICE void CopyAsyncIf(bool wanted, void* shared, const void* source, bool inside) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = inside ? 16 : 0;
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %3, 0; @p cp.async.ca.shared.global [%0], [%1], 16, %2; }" ::
          "r"(address),
      "l"(source), "r"(bytes), "r"(static_cast<int>(wanted))
      : "memory");
}
MSTPP_DEVICE void CopyCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most kPending of this thread's latest groups are still under way.
template <int kPending>
MSTPP_DEVICE void CopyWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// To a unit or two in the last place.
MSTPP_DEVICE float ReciprocalSqrt(float value) {
  float result;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
MSTPP_DEVICE float Reciprocal(float value) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
MSTPP_DEVICE float Exp2(float value) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}

}  // namespace mstpp::cuda

#endif  // MSTPP_EMULATE_CUDA
