// SPDX-License-Identifier: Apache-2.0
// What an Engine does around its backend: checks, scaling, ensemble, clipping, provenance.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/scaling.h"

namespace mstpp {

class Pipeline {
 public:
  // `options.device` is the backend that was chosen, by name.
  Pipeline(Model model, Options options, std::unique_ptr<Backend> backend);

  // As the methods of Engine.
  Cube Run(const Image& image) const;
  void Run(const TensorView& input, const MutableTensorView& output) const;
  void RunWithTaps(const TensorView& input, const MutableTensorView& output,
                   const Engine::Tap& tap) const;
  std::vector<KernelTime> Profile(const TensorView& input, const MutableTensorView& output,
                                  int warm_up, int runs) const;

  const Model& model() const { return model_; }
  const Options& options() const { return options_; }
  const std::string& device_description() const { return description_; }

 private:
  // The memory of one Run at a time.
  struct Workspace {
    std::unique_ptr<Scratch> scratch;
    std::vector<float> scaled;       // the picture
    std::vector<float> turned;       // a variant of it
    std::vector<float> turned_cube;  // the network's output for the variant
    std::vector<float> reduction;
  };

  // A workspace that is free, or a new one. Whoever takes it gives it back only if all went well:
  // after an exception its state is anybody's guess and it is dropped.
  std::unique_ptr<Workspace> TakeWorkspace() const;
  void GiveWorkspace(std::unique_ptr<Workspace> workspace) const;

  void CheckImage(const Image& image) const;
  void CheckViews(const TensorView& input, const MutableTensorView& output) const;
  void CheckPadding(const std::string& where, int64_t height, int64_t width) const;

  void RunPicture(const Image& image, Cube& cube) const;
  void RunEnsemble(Workspace& workspace, Cube& cube) const;
  void RunBackend(const float* input, int64_t height, int64_t width, float* output,
                  Scratch& scratch) const;
  Provenance MakeProvenance(const Image& image, const ScalingRange& range) const;

  Model model_;
  Options options_;
  Scaling scaling_;  // resolved
  std::unique_ptr<Backend> backend_;
  std::string description_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> free_;
};

}  // namespace mstpp
