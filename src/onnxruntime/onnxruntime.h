// SPDX-License-Identifier: Apache-2.0
// Backends that have ONNX Runtime run the network, which is handed to it as an ONNX model in
// memory: "onnxruntime" on the CPU, "onnxruntime-cuda" through its CUDA provider.
#pragma once

#include <memory>

#include "engine/backend.h"

namespace mstpp {

BackendStatus QueryOnnxRuntime(const Options& options, int index);
std::unique_ptr<Backend> CreateOnnxRuntimeBackend(const Model& model, const Options& options,
                                                  int index);
BackendStatus QueryOnnxRuntimeCuda(const Options& options, int index);
std::unique_ptr<Backend> CreateOnnxRuntimeCudaBackend(const Model& model, const Options& options,
                                                      int index);

}  // namespace mstpp
