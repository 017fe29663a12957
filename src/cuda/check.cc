// SPDX-License-Identifier: Apache-2.0
#include "cuda/check.h"

#include "mstpp/error.h"

namespace mstpp::cuda {

void Check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is not sticky must not meet the next caller
  const std::string text = cudaGetErrorString(status);
  switch (status) {
    case cudaErrorMemoryAllocation:
      throw Error(ErrorCode::kOutOfMemory, "cuda",
                  what +
                      ": the GPU's memory is exhausted; run smaller pictures or batches, or "
                      "free the memory that other programs hold");
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorDevicesUnavailable:
      throw Error(ErrorCode::kDeviceUnavailable, "cuda", what + ": " + text);
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilationDisabled:
      throw Error(ErrorCode::kDeviceUnavailable, "cuda",
                  what + ": this build has no code for this GPU (" + text +
                      "); build mstpp with its architecture in CMAKE_CUDA_ARCHITECTURES");
    default:
      throw Error(
          ErrorCode::kInternal, "cuda",
          what + ": " + text + "; the GPU context may be lost, start the program again to use it");
  }
}

}  // namespace mstpp::cuda
