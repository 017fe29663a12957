// SPDX-License-Identifier: Apache-2.0
// The CPU backend: float32, fused tiles, the restructured S-MSA (docs/architecture.md).
#pragma once

#include <memory>

#include "engine/backend.h"

namespace mstpp {

BackendStatus QueryCpu(int index);
std::unique_ptr<Backend> CreateCpuBackend(const Model& model, const Options& options, int index);

}  // namespace mstpp
