// SPDX-License-Identifier: Apache-2.0
#include "cuda/box_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "cuda/check.h"
#include "mstpp/error.h"

namespace mstpp::cuda {

namespace {

PFN_cuTensorMapEncodeTiled_v12000 FindEncoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = {};
  Check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                         cudaEnableDefault, &found),
        "looking for cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess) {
    throw Error(ErrorCode::kDeviceUnavailable, "cuTensorMapEncodeTiled",
                "the driver has no such function; install one of CUDA 12 or later");
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

}  // namespace

CUtensorMap MakeBoxMap(const void* map, int images, int height, int width, int channels,
                       int columns, int rows) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = FindEncoder();
  const auto unsigned64 = [](int value) { return static_cast<cuuint64_t>(value); };
  const cuuint64_t sizes[] = {unsigned64(channels), unsigned64(width), unsigned64(height),
                              unsigned64(images)};
  const cuuint64_t pitches[] = {2 * sizes[0], 2 * sizes[0] * sizes[1],
                                2 * sizes[0] * sizes[1] * sizes[2]};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(columns), static_cast<cuuint32_t>(rows), 1};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  CUtensorMap result;
  const CUresult status =
      encode(&result, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, const_cast<void*>(map), sizes, pitches,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw Error(ErrorCode::kInternal, "cuTensorMapEncodeTiled",
                fmt::format("error {}", static_cast<int>(status)));
  }
  return result;
}

}  // namespace mstpp::cuda
