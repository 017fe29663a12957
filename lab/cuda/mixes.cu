// SPDX-License-Identifier: Apache-2.0
// What kinds of instruction cost a scheduler together, in cycles of all that one line names, with
// four warps a scheduler.
//   nvcc -std=c++20 -O3 -arch=sm_90 -I../../src mixes.cu -o mixes
#include <cstdio>

#include "cuda/kernels/ptx.cuh"
#include "cycles.cuh"

namespace mstpp::cuda {

// Of every slot: mma.sync with kDepth (or none), half2 multiply-adds, LOP3s and halves of a tanh of
// half2.
template <int kDepth, int kHalf2, int kLogic, int kTanhHalves>
__global__ void __launch_bounds__(512) Measure(uint32_t* out, long long* cycles, int rounds) {
  uint32_t half2[16], logic[8], tanh[8], low[16], high[16], a[4][4], b[4][2];
  for (int i = 0; i < 16; ++i) {
    half2[i] = 0x2c003000u + threadIdx.x * 17 + i;
    low[i] = high[i] = a[i / 4][i % 4] = half2[i];
    logic[i % 8] = tanh[i % 8] = b[i % 8 / 2][i % 2] = half2[i] + 3;
  }
  __syncthreads();
  const long long begin = clock64();
  MSTPP_NO_UNROLL
  for (int r = 0; r < rounds; ++r) {
    MSTPP_UNROLL
    for (int u = 0; u < 16; ++u) {
      const uint32_t(&x)[4] = a[u % 4];
      const uint32_t(&y)[2] = b[u / 4];
      if (kDepth == 16) {
        MmaHalf(low[u], high[u], x[0], x[1], x[2], x[3], y[0], y[1], low[u], high[u]);
      } else if (kDepth == 8) {
        MmaHalf(low[u], high[u], x[0], x[1], y[0], low[u], high[u]);
      }
      MSTPP_UNROLL
      for (int k = u * kHalf2; k < (u + 1) * kHalf2; ++k) {
        asm volatile("fma.rn.f16x2 %0, %0, %1, %2;"
                     : "+r"(half2[k % 16])
                     : "r"(a[k % 4][0]), "r"(b[k % 3][1]));
      }
      MSTPP_UNROLL
      for (int k = u * kLogic; k < (u + 1) * kLogic; ++k) {
        asm volatile("lop3.b32 %0, %0, %1, %2, 0x96;"
                     : "+r"(logic[k % 8])
                     : "r"(a[0][0]), "r"(b[0][1]));
      }
      if (kTanhHalves == 2 || (kTanhHalves == 1 && u % 2 == 0)) {
        asm volatile("tanh.approx.f16x2 %0, %0;" : "+r"(tanh[u % 8]));
      }
    }
  }
  const long long end = clock64();
  uint32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum ^= half2[i] ^ logic[i % 8] ^ tanh[i % 8] ^ low[i] ^ high[i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
  if (blockIdx.x == 0 && threadIdx.x == 0) *cycles = end - begin;
}

template <int kDepth, int kHalf2, int kLogic, int kTanhHalves>
void Run(const Cycles& cycles) {
  std::printf("mma k = %2d, half2 %d, LOP3 %d, tanh of half2 %.1f: %6.2f\n", kDepth, kHalf2, kLogic,
              kTanhHalves / 2.0,
              cycles.OfRound(Measure<kDepth, kHalf2, kLogic, kTanhHalves>, 500, 0) / 16);
}

}  // namespace mstpp::cuda

int main() {
  using mstpp::cuda::Run;
  const Cycles cycles;
  Run<16, 0, 0, 0>(cycles);
  Run<8, 0, 0, 0>(cycles);
  Run<0, 4, 0, 0>(cycles);
  Run<16, 2, 0, 0>(cycles);
  Run<16, 4, 0, 0>(cycles);
  Run<8, 4, 0, 0>(cycles);
  Run<0, 0, 4, 0>(cycles);
  Run<16, 0, 2, 0>(cycles);
  Run<16, 0, 4, 0>(cycles);
  Run<0, 0, 0, 1>(cycles);
  Run<16, 0, 0, 1>(cycles);
}
