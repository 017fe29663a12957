// SPDX-License-Identifier: Apache-2.0
// Runs kernels that count their own cycles, a block of 16 warps an SM, four a scheduler: one block,
// so that clock64 tells the truth.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>

class Cycles {
 public:
  Cycles() {
    cudaDeviceProp properties;
    cudaGetDeviceProperties(&properties, 0);
    blocks_ = properties.multiProcessorCount;
    cudaMalloc(&out_, blocks_ * 512 * sizeof *out_);
    cudaMalloc(&cycles_, sizeof *cycles_);
    std::printf("%s\n", properties.name);
  }
  ~Cycles() { std::printf("%s\n", cudaGetErrorString(cudaDeviceSynchronize())); }

  // What a warp's round costs its scheduler, of a kernel (out, cycles, rounds) that has run once
  // before.
  template <class Kernel>
  double OfRound(Kernel kernel, int rounds, int shared_bytes) const {
    for (int i = 0; i < 2; ++i) kernel<<<blocks_, 512, shared_bytes>>>(out_, cycles_, rounds);
    long long cycles = 0;
    cudaMemcpy(&cycles, cycles_, sizeof cycles, cudaMemcpyDeviceToHost);
    return static_cast<double>(cycles) / rounds / 4;
  }

 private:
  int blocks_ = 0;
  uint32_t* out_ = nullptr;
  long long* cycles_ = nullptr;
};
