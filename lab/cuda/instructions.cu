// SPDX-License-Identifier: Apache-2.0
// What one instruction of each kind costs a scheduler: cycles a warp instruction, with four warps a
// scheduler and sixteen independent chains a warp.
//   nvcc -std=c++20 -O3 -arch=sm_90 -I../../src instructions.cu -o instructions
#include <cstdio>

#include "cuda/kernels/lanes.cuh"
#include "cycles.cuh"

namespace mstpp::cuda {

enum Kind {
  kFma,
  kGelu,
  kMmaHalf,
  kMmaFloat,
  kGeluAndMma,
  kShuffle,
  kLoad,
  kBroadcast,
  kPack,
  kTranspose,
  kFmaImmediate,
  kFmaThree,
  kMul,
  kFmaSaturate,
  kFloatFma,
  kMixed,
  kMmaHalf8,
  kMmaTf32,
  kTanhHalf,
  kTanhFloat,
  kExp2,
  kPermute,
  kFmaBesideMma,
  kFmaThreeBesideMma,
  kKinds
};
const char* const kNames[] = {"HFMA2",
                              "Gelu of 4 HFMA2 lanes",
                              "mma fp16 sums",
                              "mma fp32 sums",
                              "Gelu + 2 mma",
                              "SHFL",
                              "LDS.128",
                              "LDS.128 of 4 words",
                              "F2FP",
                              "MOVM",
                              "HFMA2 immediate",
                              "HFMA2 3 registers",
                              "HMUL2",
                              "HFMA2.SAT",
                              "FFMA",
                              "HFMA2 and FFMA",
                              "mma k = 8, fp16 sums",
                              "mma TF32",
                              "tanh of half2",
                              "tanh of float",
                              "ex2 of float",
                              "PRMT",
                              "HFMA2, mma in kernel",
                              "HFMA2 3, mma in kernel"};
const int kOperations[] = {64, 4,  16, 16, 4,  16, 16, 16, 16, 16, 64, 64,
                           64, 64, 64, 64, 16, 16, 16, 16, 16, 16, 64, 64};

template <Kind kKind>
__global__ void Measure(uint32_t* out, long long* cycles, int rounds) {
  auto* shared = reinterpret_cast<uint4*>(SharedMemory());
  const int lane = threadIdx.x & 31;
  for (int i = threadIdx.x; i < 1024; i += blockDim.x) shared[i] = make_uint4(i, i, i, i);
  HalfVec v[4];
  for (int i = 0; i < 16; ++i) v[i / 4].pair[i % 4].bits = 0x2c003000u + threadIdx.x * 17 + i;
  float f[16][4];
  for (int i = 0; i < 16; ++i) f[i][0] = f[i][1] = f[i][2] = f[i][3] = static_cast<float>(i + lane);
  const uint32_t w = 0x2e662e66u + lane, c = 0x11111111u;
  __syncthreads();
  const long long begin = clock64();
  MSTPP_NO_UNROLL
  for (int r = 0; r < rounds; ++r) {
    if (kKind == kFma || kKind == kFmaBesideMma) {
      MSTPP_UNROLL
      for (int u = 0; u < 64; ++u) {
        uint32_t& x = v[u / 4 % 4].pair[u % 4].bits;
        x = HalfFma(x, w, c);
      }
    }
    if (kKind == kGelu || kKind == kGeluAndMma) {
      MSTPP_UNROLL
      for (int u = 0; u < 4; ++u) {
        Gelu(v[u].pair);
        if (kKind == kGeluAndMma) {
          MSTPP_UNROLL
          for (int m = 0; m < 2; ++m) {
            float(&d)[4] = f[u * 2 + m];
            MmaHalf(d, v[u].pair[0].bits, v[u].pair[1].bits, v[u].pair[2].bits, v[u].pair[3].bits,
                    w, c, d[0], d[1], d[2], d[3]);
          }
        }
      }
    }
    if ((kKind >= kFmaImmediate && kKind <= kMixed) || kKind == kFmaThreeBesideMma) {
      MSTPP_UNROLL
      for (int u = 0; u < 64; ++u) {
        uint32_t& x = v[u / 4 % 4].pair[u % 4].bits;
        const uint32_t y = AsUint(f[u % 16][1]), z = AsUint(f[(u + 5) % 16][2]);
        if (kKind == kFmaImmediate) x = HalfFma(x, y, 0x48064806u);
        if (kKind == kFmaThree || kKind == kFmaThreeBesideMma) x = HalfFma(y, z, x);
        if (kKind == kMul) x = HalfMul(x, y);
        if (kKind == kFmaSaturate) x = HalfFmaSaturate(x, y, 0x38003800u);
        if (kKind == kFloatFma || (kKind == kMixed && u % 2 == 0)) {
          f[u % 16][0] = fmaf(f[u % 16][1], f[(u + 5) % 16][2], f[u % 16][0]);
        }
        if (kKind == kMixed && u % 2 == 1) x = HalfFma(y, z, x);
      }
    }
    MSTPP_UNROLL
    for (int u = 0; u < 16; ++u) {
      uint32_t& x = v[u / 4].pair[u % 4].bits;
      if (kKind == kMmaHalf) {
        uint32_t& y = reinterpret_cast<uint32_t&>(f[u][0]);
        MmaHalf(x, y, w, w, c, c, w, c, x, y);
      }
      if (kKind == kMmaFloat) {
        MmaHalf(f[u], w, w, c, c, w, c, f[u][0], f[u][1], f[u][2], f[u][3]);
      }
      if (kKind == kShuffle) x = Shuffle(x, (lane + 4) & 31);
      if (kKind == kLoad || kKind == kBroadcast) {
        const int at = kKind == kLoad ? lane : lane & 3;
        const auto address =
            static_cast<uint32_t>(__cvta_generic_to_shared(shared + u * 32 + (at ^ (r & 1))));
        uint4 got;
        asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3},[%4];"
                     : "=r"(got.x), "=r"(got.y), "=r"(got.z), "=r"(got.w)
                     : "r"(address));
        x ^= got.x ^ got.y ^ got.z ^ got.w;
      }
      if (kKind == kPack) x = HalfPack(f[u][0], AsFloat(x));
      if (kKind == kTranspose) x = TransposeHalf(x);
      if (kKind == kMmaHalf8) {
        uint32_t& y = reinterpret_cast<uint32_t&>(f[u][0]);
        MmaHalf(x, y, w, c, w, x, y);
      }
      if (kKind == kMmaTf32) {
        MmaTf32(f[u], w, w, c, c, w, c, f[u][0], f[u][1], f[u][2], f[u][3]);
      }
      if (kKind == kTanhHalf) asm("tanh.approx.f16x2 %0, %0;" : "+r"(x));
      if (kKind == kTanhFloat) asm("tanh.approx.f32 %0, %0;" : "+f"(f[u][0]));
      if (kKind == kExp2) f[u][0] = Exp2(f[u][0]);
      if (kKind == kPermute) x = PermuteBytes(x, w, c);
    }
  }
  const long long end = clock64();
  // Only in kernels without a product ptxas uses HFMA2.MMA too, which another pipe takes.
  if (kKind == kFmaBesideMma || kKind == kFmaThreeBesideMma) {
    MmaHalf(v[0].pair[0].bits, v[0].pair[1].bits, w, c, w, v[0].pair[0].bits, v[0].pair[1].bits);
  }
  uint32_t sum = 0;
  for (int i = 0; i < 16; ++i) {
    sum ^= v[i / 4].pair[i % 4].bits;
    for (int j = 0; j < 4; ++j) sum ^= AsUint(f[i][j]);
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
  if (blockIdx.x == 0 && threadIdx.x == 0) *cycles = end - begin;
}

template <Kind kKind>
void Run(const Cycles& cycles) {
  std::printf("%-24s %6.2f\n", kNames[kKind],
              cycles.OfRound(Measure<kKind>, 2000, 16384) / kOperations[kKind]);
  if constexpr (kKind + 1 < kKinds) Run<static_cast<Kind>(kKind + 1)>(cycles);
}

}  // namespace mstpp::cuda

int main() { mstpp::cuda::Run<mstpp::cuda::kFma>(Cycles()); }
