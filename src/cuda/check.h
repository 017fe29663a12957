// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace mstpp::cuda {

// Throws Error unless `status` is success: kOutOfMemory for exhausted memory, kDeviceUnavailable
// for what a driver, a device or this build lacks, kInternal for the rest.
void Check(cudaError_t status, const std::string& what);

}  // namespace mstpp::cuda
