// SPDX-License-Identifier: Apache-2.0
// What instructions take of a GPU's energy: nJ a warp instruction beyond the 140 W of an idle H100,
// each repeated for a second by 32 warps an SM, operands at random.
// Here, in two commands:
//
//   c++ -std=c++20 -c -I../../{include,src} -I/usr/local/cuda/include ../../bench/power_meter.cc
//
//   nvcc -std=c++20 -O3 -arch=sm_90a -I../../include -I../../src -I../../bench -o energy
//     energy.cu power_meter.o ../../src/cuda/check.cc -lfmt
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "cuda/kernels/hopper.cuh"
#include "power_meter.h"

namespace mstpp::cuda {

enum Kind {
  kFma,
  kAdd,
  kFloatFma,
  kLogic,
  kPermute,
  kPack,
  kShuffle,
  kTanh,
  kMma,
  kMmaDiagonals,
  kMmaZeros,
  kMmaFloat,
  kMma8,
  kMma8Diagonal,
  kRows,
  kRowsFloat,
  kLoadMatrices,
  kLoad,
  kStore,
  kLoadL2,
  kLoadMemory,
  kStoreMemory,
  kKinds
};
const char* const kNames[] = {"HFMA2",
                              "HADD2",
                              "FFMA",
                              "LOP3",
                              "PRMT",
                              "F2FP",
                              "SHFL",
                              "tanh of half2",
                              "mma k = 16, FP16 sums",
                              "the same by diagonals",
                              "the same by zeros",
                              "mma k = 16, FP32 sums",
                              "mma k = 8, FP16 sums",
                              "the same by a diagonal",
                              "wgmma m64n64k16, FP16 sums",
                              "wgmma m64n64k16, FP32 sums",
                              "LDSM.x4",
                              "LDS.128",
                              "STS.128",
                              "LDG.128 from the L2",
                              "LDG.128 from memory",
                              "STG.128 to memory"};
constexpr int kWarps = 16, kBlocks = 2;  // of a multiprocessor
constexpr int kOperations = 16;          // of a round
// 16 bytes each: what the L2 holds, and what it does not.
constexpr size_t kFew = size_t{1} << 20, kMany = size_t{1} << 28;

// Halves of either sign between 0.125 and 1.
__device__ uint32_t Random(uint32_t seed) {
  seed = (seed ^ seed >> 16) * 0x7feb352du;
  seed = (seed ^ seed >> 15) * 0x846ca68bu;
  return ((seed ^ seed >> 16) & 0x8fff8fffu) | 0x30003000u;
}

template <Kind kKind>
__global__ void __launch_bounds__(kWarps * 32)
    Measure(uint32_t* out, uint4* memory, size_t mask, int rounds) {
  auto* shared = reinterpret_cast<uint4*>(SharedMemory());
  const int lane = threadIdx.x & 31;
  const size_t thread = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  // Factors and what is added, in the registers side by side that products want; sums.
  uint32_t a[4][4], b[4][2], c[2], sum[16][2];
  float f[4], floats[16][4], many[32];
  for (int i = 0; i < 16; ++i) {
    a[i / 4][i % 4] = Random(thread * 64 + i);
    for (int j = 0; j < 2; ++j) sum[i][j] = Random(thread * 64 + 16 + 2 * i + j);
    for (int j = 0; j < 4; ++j) floats[i][j] = HalfLow(sum[(i + j) % 16][0]);
    many[i] = many[i + 16] = 0.0f;
  }
  for (int i = 0; i < 8; ++i) {
    b[i / 2][i % 2] = Random(thread * 64 + 48 + i);
    if (kKind == kMmaZeros && rounds > 0) b[i / 2][i % 2] = 0u;
    if (kKind == kMmaDiagonals || kKind == kMma8Diagonal) {
      // Column lane / 4 is not zero in its own row only.
      b[i / 2][i % 2] &= (lane & 3) != lane >> 3 ? 0u : (lane & 4) != 0 ? 0xffff0000u : 0xffffu;
    }
  }
  for (int i = 0; i < 2; ++i) c[i] = Random(thread * 64 + 56 + i);
  for (int i = 0; i < 4; ++i) f[i] = HalfHigh(a[i][0]);
  for (int i = threadIdx.x; i < 1024; i += blockDim.x) {
    shared[i] = make_uint4(Random(i), Random(i + 1024), Random(i + 2048), Random(i + 4096));
  }
  __syncthreads();
  MSTPP_NO_UNROLL
  for (int r = 0; r < rounds; ++r) {
    if constexpr (kKind == kRows) {
      for (int i = 0; i < kOperations; i += 4) {
        BeginRows<64, false>(reinterpret_cast<uint32_t(&)[16]>(sum), a, shared);
        AwaitRows<0>(reinterpret_cast<uint32_t(&)[16]>(sum), a);
      }
    } else if constexpr (kKind == kRowsFloat) {
      for (int i = 0; i < kOperations; i += 4) {
        BeginRows<64, false>(many, a, shared);
        AwaitRows<0>(many, a);
      }
    }
    MSTPP_UNROLL
    for (int u = 0; u < kOperations; ++u) {
      // Of any two products a factor differs, else the compiler leaves one out.
      const uint32_t(&x)[4] = a[u % 4];
      const uint32_t(&y)[2] = b[u / 4];
      uint32_t &s = sum[u][0], &t = sum[u][1];
      if constexpr (kKind == kFma) s = HalfFma(s, x[0], y[1]);
      if constexpr (kKind == kAdd) s = HalfSubtract(x[0], s);
      if constexpr (kKind == kFloatFma) floats[u][0] = fmaf(floats[u][0], floats[u][1], f[u % 4]);
      if constexpr (kKind == kLogic) {
        asm volatile("lop3.b32 %0, %0, %1, %2, 0x96;" : "+r"(s) : "r"(x[0]), "r"(y[1]));
      }
      if constexpr (kKind == kPermute) s = PermuteBytes(s, x[0], 0x5410u);
      if constexpr (kKind == kPack) s = HalfPack(AsFloat(s), floats[u][1]);
      if constexpr (kKind == kShuffle) s = ShuffleXor(s, 4);
      if constexpr (kKind == kTanh) asm volatile("tanh.approx.f16x2 %0, %0;" : "+r"(s));
      if constexpr (kKind >= kMma && kKind <= kMmaZeros) {
        MmaHalf(s, t, x[0], x[1], x[2], x[3], y[0], y[1], c[0], c[1]);
      }
      if constexpr (kKind == kMmaFloat) {
        MmaHalf(floats[u], x[0], x[1], x[2], x[3], y[0], y[1], f[0], f[1], f[2], f[3]);
      }
      if constexpr (kKind == kMma8 || kKind == kMma8Diagonal) {
        MmaHalf(s, t, x[0], x[1], y[0], c[0], c[1]);
      }
      uint32_t got[4] = {};
      if constexpr (kKind == kLoadMatrices) LoadMatrices(got, shared + u * 32 + lane);
      if constexpr (kKind == kLoad) {
        const auto address =
            static_cast<uint32_t>(__cvta_generic_to_shared(shared + u * 32 + (lane ^ (r & 1))));
        asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3},[%4];"
                     : "=r"(got[0]), "=r"(got[1]), "=r"(got[2]), "=r"(got[3])
                     : "r"(address));
      }
      if constexpr (kKind == kStore)
        shared[u * 32 + (lane ^ (r & 1))] = make_uint4(x[0], x[1], x[2], x[3]);
      if constexpr (kKind >= kLoadL2) {
        const size_t threads = static_cast<size_t>(gridDim.x) * blockDim.x;
        uint4* at = memory + ((thread + (r * size_t{kOperations} + u) * threads) & mask);
        if constexpr (kKind == kStoreMemory) {
          *at = make_uint4(x[0], x[1], x[2], x[3]);
        } else {
          asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3},[%4];"
                       : "=r"(got[0]), "=r"(got[1]), "=r"(got[2]), "=r"(got[3])
                       : "l"(at));
        }
      }
      if constexpr (kKind >= kLoadMatrices) s ^= got[0] ^ got[1] ^ got[2] ^ got[3];
    }
  }
  uint32_t all = 0;
  for (int i = 0; i < 32; ++i) all ^= sum[i / 2][i % 2] ^ AsUint(many[i]);
  for (int i = 0; i < 64; ++i) all ^= AsUint(floats[i / 4][i % 4]);
  out[thread] = all;
}

double Now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

template <Kind kKind>
void Run(const PowerMeter& meter, int multiprocessors, uint32_t* out, uint4* memory) {
  const size_t mask = kKind == kLoadL2 ? kFew - 1 : kMany - 1;
  int rounds = 100;
  const auto launch = [&] {
    Measure<kKind><<<multiprocessors * kBlocks, kWarps * 32, 16384>>>(out, memory, mask, rounds);
    cudaDeviceSynchronize();
  };
  launch();
  const double begun = Now();
  launch();
  rounds = std::max(1, static_cast<int>(rounds * 0.01 / (Now() - begun)));  // a launch: 10 ms
  // Between two of NVML's counts, after half a second.
  int64_t launches = 0;
  const auto next_count = [&] {
    for (const uint64_t before = meter.Millijoules(); meter.Millijoules() == before; ++launches) {
      launch();
    }
    return meter.Millijoules();
  };
  for (const double begin = Now(); Now() - begin < 0.5;) launch();
  const uint64_t first = next_count();
  const double begin = Now();
  launches = 0;
  while (Now() - begin < 1) launch(), ++launches;
  const double joules = static_cast<double>(next_count() - first) / 1000, seconds = Now() - begin;
  const double instructions =
      1.0 * launches * rounds * kOperations * multiprocessors * kBlocks * kWarps;
  std::printf("%-28s %7.3f nJ, %4.0f W\n", kNames[kKind],
              (joules - 140 * seconds) / instructions * 1e9, joules / seconds);
  if constexpr (kKind + 1 < kKinds) {
    Run<static_cast<Kind>(kKind + 1)>(meter, multiprocessors, out, memory);
  }
}

}  // namespace mstpp::cuda

int main() {
  const mstpp::cuda::PowerMeter meter(0);
  cudaDeviceProp properties;
  cudaGetDeviceProperties(&properties, 0);
  std::printf("%s\n", properties.name);
  const int blocks = properties.multiProcessorCount * mstpp::cuda::kBlocks;
  constexpr size_t kBytes = mstpp::cuda::kMany * sizeof(uint4);
  uint32_t* out = nullptr;
  uint4* memory = nullptr;
  cudaMalloc(&out, blocks * mstpp::cuda::kWarps * 32 * sizeof *out);
  cudaMalloc(&memory, kBytes);
  cudaMemset(memory, 0x35, kBytes);
  mstpp::cuda::Run<mstpp::cuda::kFma>(meter, properties.multiProcessorCount, out, memory);
  std::printf("%s\n", cudaGetErrorString(cudaDeviceSynchronize()));
}
