// SPDX-License-Identifier: Apache-2.0
// A DeviceNetwork on streams of its own.
#pragma once

#include <map>
#include <memory>

#include "cuda/device.h"
#include "cuda/program.h"

namespace mstpp::cuda {

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

// Runs one group of pictures at a time: two streams, working memory, one CUDA graph a shape. Grows
// with the shapes it meets.
class Lane {
 public:
  explicit Lane(const DeviceNetwork& network);
  ~Lane();  // waits for what runs
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // Enqueues the network for pictures given by `io`, behind what the main stream has to do.
  void Launch(const Shape& shape, const NetworkIo& io);
  void Wait() const;

  // For programs that are launched otherwise.
  void SetIo(const NetworkIo& io);
  const NetworkIo* io() const { return io_memory_.as<NetworkIo>(); }
  cudaStream_t main() const { return main_.get(); }
  cudaStream_t aside() const { return aside_.get(); }

  const DeviceBuffer& arena() const { return arena_; }

 private:
  const Graph& GraphFor(const Shape& shape);

  const DeviceNetwork& network_;
  // Graphs hold addresses in the memory before them.
  Stream main_, aside_;
  DeviceBuffer arena_, io_memory_;
  std::unique_ptr<NetworkIo> io_;  // as it is on the GPU
  std::map<Shape, std::unique_ptr<Graph>> graphs_;
};

}  // namespace mstpp::cuda
