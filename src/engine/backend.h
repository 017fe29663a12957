// SPDX-License-Identifier: Apache-2.0
// The backend contract: all that an engine of this project must provide.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mstpp/engine.h"
#include "mstpp/error.h"

namespace mstpp {

// Working memory and, on a GPU, the streams of one Run at a time. It grows on first use of a shape.
struct Scratch {
  virtual ~Scratch() = default;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::unique_ptr<Scratch> NewScratch() const = 0;

  // Input N x C x H x W, any H and W >= 1 (padding by reflection was checked to be possible);
  // output N x bands x H x W. The backend pads and crops. Const and safe to call from several
  // threads, each with its own Scratch.
  virtual void Run(const TensorView& input, const MutableTensorView& output, Padding padding,
                   Scratch& scratch) const = 0;
  virtual void RunWithTaps(const TensorView& input, const MutableTensorView& output,
                           Padding padding, Scratch& scratch, const Engine::Tap& tap) const = 0;

  // Engine::Profile.
  virtual std::vector<KernelTime> Profile(const TensorView&, const MutableTensorView&, Padding,
                                          Scratch&, int /*warm_up*/, int /*runs*/) const {
    throw Error(ErrorCode::kUnsupported, "profile",
                "this backend cannot tell how long each block takes; cpu, cuda and reference can");
  }

  // What it runs on: "AMD EPYC, AVX2, 2 threads".
  virtual std::string Description() const = 0;
};

// One row of the registry (registry.cc): an explicit table, nothing registers itself.
struct BackendEntry {
  const char* name;
  // Usable on this machine or not and why; `index` is N of "cuda:N".
  BackendStatus (*query)(int index);
  std::unique_ptr<Backend> (*create)(const Model& model, const Options& options, int index);
  bool takes_index = false;  // may be named "cuda:1"
  // Asked instead of `query` if the answer depends on an option.
  BackendStatus (*query_with)(const Options& options, int index) = nullptr;

  BackendStatus Query(const Options& options, int index) const {
    return query_with != nullptr ? query_with(options, index) : query(index);
  }
};

}  // namespace mstpp
