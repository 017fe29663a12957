// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

namespace mstpp {

enum class Precision { kFP32, kTF32, kFP16, kBF16, kINT8 };
enum class Scaling { kFromWeights, kMinMax, kUnit, kNone };
enum class Padding { kReflect, kZero };
enum class Ensemble { kNone, kMean, kMedian };

// Names as on the command line; Parse* throw Error (kInvalidArgument) naming the choices.
const char* ToString(Precision);
const char* ToString(Scaling);
const char* ToString(Padding);
const char* ToString(Ensemble);
Precision ParsePrecision(const std::string&);
Scaling ParseScaling(const std::string&);
Padding ParsePadding(const std::string&);
Ensemble ParseEnsemble(const std::string&);

// Everything an Engine can be told.
struct Options {
  // "auto" (the fastest usable backend), or one by name: "reference", "cpu", "cuda", "cuda:1",
  // "onnxruntime", "onnxruntime-cuda", "tensorrt". A named backend that cannot run is an error,
  // never replaced.
  std::string device = "auto";
  // FP32 unless given. A precision that the backend lacks is an error. kTF32 promises ten bits for
  // factors of products, not FP32's range: on the backend "cuda" numbers in between that are beyond
  // 65504 may give NaN (docs/accuracy.md).
  Precision precision = Precision::kFP32;
  int threads = 0;  // CPU threads; 0 = all the process may use
  // cuda: Engine::Run's cubes are rounded to FP16 on the GPU and cross the bus so, half the bytes:
  // within 2^-11 of each value, or 2^-25 if that is more; infinite from 65520 on. Without effect
  // where the caller's memory is the GPU's.
  bool fp16_transfers = false;
  // How inputs are padded to multiples of Config::padding_multiple(), on the right and bottom.
  Padding padding = Padding::kReflect;
  // Pictures only (Run(Image)); tensors are taken as they are.
  Scaling scaling = Scaling::kFromWeights;
  Ensemble ensemble = Ensemble::kNone;  // the official 8 flips and transposes
  bool clip = true;                     // cubes of pictures to [0, 1], as the official code does
  // ONNX Runtime's library (libonnxruntime.so) for the backends "onnxruntime" and
  // "onnxruntime-cuda"; empty: the system's or the Python package's, wherever one is found.
  std::string onnxruntime_library;
};

}  // namespace mstpp
