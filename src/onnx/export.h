// SPDX-License-Identifier: Apache-2.0
// A network as an ONNX file, straight from its weights.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "model/lower.h"
#include "mstpp/model.h"
#include "mstpp/options.h"

namespace mstpp {

// The graph's input is "input", float32, N x in_channels x H x W; its output "output", float32,
// N x bands x H x W. Extents that are not given may be anything at each run.
struct OnnxOptions {
  int opset = 17;  // 13 to 17; below 17 LayerNormalization is written out
  int64_t batch = 0;
  int64_t height = 0, width = 0;  // both or neither
  // How the graph pads to Config::padding_multiple(). Without, H and W must be multiples of it.
  std::optional<Padding> padding = Padding::kReflect;
  bool crop = true;  // what was padded away again; else the output is as large as the padded input
  // kFP32, or kFP16: weights and arithmetic in float16, but float32 for LayerNorm's sums, for sums
  // over pixels (norms of queries and keys; S), for softmax and for the input and output.
  Precision precision = Precision::kFP32;
  AttentionForm form = AttentionForm::kPublished;
  // Every block's output is a graph output too, float32, at its padded size, under its PyTorch
  // name as in Engine::RunWithTaps.
  bool taps = false;
};

// The bytes of an ONNX file. Throws Error (kInvalidArgument, kUnsupported).
std::string BuildOnnx(const Model& model, const OnnxOptions& options);

// Writes it, whole or not at all. Throws Error (also kIo).
void ExportOnnx(const Model& model, const std::string& path, const OnnxOptions& options);

}  // namespace mstpp
