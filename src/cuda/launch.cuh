// SPDX-License-Identifier: Apache-2.0
// How kernels are made ready to launch and how much of an image each block gets.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <climits>
#include <functional>

#include "cuda/check.h"
#include "cuda/device.h"

namespace mstpp::cuda {

using Launch = std::function<void(cudaStream_t)>;

template <class Params>
struct Kernel {
  void (*function)(const Params);
  int threads = 0;
  int shared_bytes = 0;

  // Allows the shared memory the kernel needs; before ResidentBlocks and launches. All that there
  // is, for the function may already be in use with more.
  void Prepare() const {
    if (shared_bytes <= 48 * 1024) return;
    int device = 0, limit = 0;
    Check(cudaGetDevice(&device), "asking for the current GPU");
    Check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "asking for a GPU's shared memory");
    Check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, limit),
          "reserving shared memory");
  }

  // Blocks that the whole GPU runs at a time.
  int ResidentBlocks(const DeviceInfo& gpu) const {
    int blocks = 0;
    Check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, threads, shared_bytes),
          "asking for a kernel's occupancy");
    return std::max(1, blocks) * gpu.multiprocessors;
  }

  // With `overlaps`, which not every GPU can, blocks may start while the kernel before in the
  // stream still runs, if that says LaunchDependents; this one must say WaitForPrevious before it
  // reads what that writes, or writes at all.
  Launch Bind(int blocks, const Params& params, bool overlaps = false) const {
    return [*this, blocks, params, overlaps](cudaStream_t stream) {
      cudaLaunchAttribute serialization = {};
      serialization.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      serialization.val.programmaticStreamSerializationAllowed = 1;
      cudaLaunchConfig_t config = {};
      config.gridDim = blocks;
      config.blockDim = threads;
      config.dynamicSmemBytes = shared_bytes;
      config.stream = stream;
      config.attrs = &serialization;
      config.numAttrs = overlaps ? 1 : 0;
      Check(cudaLaunchKernelEx(&config, function, params), "launching a kernel");
    };
  }
};

// A map cut into segments of rows.
struct Segments {
  int rows = 0, count = 0;
};

// The cut with the least time if each of the `resident` places takes one item after another:
// `per_segment` items a segment, each as long as its rows and `overhead` more (rows that are loaded
// or computed twice, and the start). `step`: rows are a multiple of it.
inline Segments ChooseSegments(int height, int per_segment, int resident, double overhead,
                               int step) {
  Segments best;
  double least = 0;
  for (int rows = step; rows < height + step; rows += step) {
    const int count = (height + rows - 1) / rows;
    const int64_t waves = (static_cast<int64_t>(count) * per_segment + resident - 1) / resident;
    const double time = static_cast<double>(waves) * (rows + overhead);
    if (best.rows == 0 || time < least) {
      best = {rows, count};
      least = time;
    }
  }
  return best;
}

// The same from an image's size alone, for kernels whose blocks each leave a part of a sum over the
// image: it must be the same bits in any batch and on any GPU. The cut for one image on an H100
// with `blocks` on each of its multiprocessors: mostly one wave. As many images as there are in a
// group are as many such waves, each of which starts anew; longer segments would start less often,
// but leave places empty if there is one image. Kernels to which those starts matter more, those to
// 64 channels with their many weights and few rows, take this as the step of a segment instead and
// leave a part every so many rows, whose bits are the same wherever a segment begins.
inline Segments SegmentsOfSize(int height, int strips, int blocks, double overhead = 2.0,
                               int step = 1) {
  constexpr int kMultiprocessors = 132;  // whatever the GPU has
  return ChooseSegments(height, strips, kMultiprocessors * blocks, overhead, step);
}

inline int CeilDivide(int a, int b) { return (a + b - 1) / b; }

}  // namespace mstpp::cuda
