// SPDX-License-Identifier: Apache-2.0
// The reference backend: scalar float64, straight from the published equations. Slow and obviously
// right; every other backend is tested against it.
#pragma once

#include <memory>

#include "engine/backend.h"

namespace mstpp {

BackendStatus QueryReference(int index);
std::unique_ptr<Backend> CreateReferenceBackend(const Model& model, const Options& options,
                                                int index);

}  // namespace mstpp
