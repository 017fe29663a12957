// SPDX-License-Identifier: Apache-2.0
// The CUDA backend: fused kernels for the published network and its like in FP16, portable ones for
// the rest of the family and the other precisions. Compiled in with MSTPP_CUDA; needs no driver
// until it is used.
#pragma once

#include <memory>

#include "engine/backend.h"

namespace mstpp {

BackendStatus QueryCuda(int index);
std::unique_ptr<Backend> CreateCudaBackend(const Model& model, const Options& options, int index);

// With the portable kernels whatever the network: for tests.
std::unique_ptr<Backend> CreatePortableCudaBackend(const Model& model, const Options& options,
                                                   int index);

}  // namespace mstpp
