// SPDX-License-Identifier: Apache-2.0
// Runs a DeviceNetwork: working memory, one CUDA graph a shape, pictures in and cubes out.
#pragma once

#include <map>
#include <memory>

#include "cuda/device.h"
#include "cuda/program.h"
#include "engine/backend.h"

namespace mstpp::cuda {

// Pictures a graph takes at a time: more hide launches and the ends of kernels, fewer keep the
// feature maps in the GPU's cache and the memory small.
constexpr int kGroup = 2;

// A captured program.
class Graph {
 public:
  Graph(const Program& program, cudaStream_t main, cudaStream_t aside);
  void Launch(cudaStream_t stream) const;

 private:
  struct Destroy {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
  };
  std::unique_ptr<CUgraphExec_st, Destroy> graph_;
};

// Launches the steps from `first` to before `last`, the ones that run aside on `aside`.
void Enqueue(const Program& program, size_t first, size_t last, cudaStream_t main,
             cudaStream_t aside);

// What one Run at a time needs. Grows with the shapes it meets.
class Runner final : public Scratch {
 public:
  Runner(const DeviceNetwork& network, const DeviceInfo& gpu, const Config& config);
  ~Runner() override;

  void Run(const TensorView& input, const MutableTensorView& output, Padding padding);
  void RunWithTaps(const TensorView& input, const MutableTensorView& output, Padding padding,
                   const Engine::Tap& tap);
  std::vector<KernelTime> Profile(const TensorView& input, const MutableTensorView& output,
                                  Padding padding, int warm_up, int runs);

 private:
  // Where a group of pictures is on the GPU while it is there, if the caller's memory is the
  // host's.
  struct Slot {
    DeviceBuffer image, cube;
    PinnedBuffer host_image, host_cube;
    Event copied_in, computed, copied_out;
  };

  Shape PaddedShape(int images, int64_t height, int64_t width) const;
  const Graph& GraphFor(const Shape& shape);
  unsigned char* Arena(size_t bytes);
  void SetIo(const NetworkIo& io);
  void RunOnDevice(const TensorView& input, const MutableTensorView& output, Padding padding);
  void RunFromHost(const TensorView& input, const MutableTensorView& output, Padding padding);
  void ProfileGroup(const TensorView& input, const MutableTensorView& output, Padding padding,
                    int warm_up, int runs, std::vector<KernelTime>& times);
  void RunImageWithTaps(const TensorView& input, const MutableTensorView& output, Padding padding,
                        const Engine::Tap& tap);

  const DeviceNetwork& network_;
  DeviceInfo gpu_;
  Config config_;
  Stream main_, aside_, in_, out_;
  DeviceBuffer arena_, io_memory_;
  std::unique_ptr<NetworkIo> io_;  // as it is on the GPU
  std::map<Shape, std::unique_ptr<Graph>> graphs_;
  Slot slots_[2];
};

}  // namespace mstpp::cuda
