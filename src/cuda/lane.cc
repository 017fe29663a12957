// SPDX-License-Identifier: Apache-2.0
#include "cuda/lane.h"

#include <cstring>
#include <utility>

#include "cuda/check.h"
#include "cuda/kernels/network_io.h"
#include "cuda/node_range.h"

namespace mstpp::cuda {
namespace {

// Graphs kept; a program that meets more shapes pays for new ones now and then.
constexpr size_t kGraphs = 16;

}  // namespace

void Enqueue(const Program& program, size_t first, size_t last, cudaStream_t main,
             cudaStream_t aside) {
  Event event;
  NodeRange range;
  bool forked = false;
  const auto order = [&](cudaStream_t before, cudaStream_t after) {
    Check(cudaEventRecord(event.get(), before), "recording an event");
    Check(cudaStreamWaitEvent(after, event.get()), "waiting for an event");
  };
  for (size_t i = first; i < last; ++i) {
    const Step& step = program.steps[i];
    if (step.aside && !forked) order(main, aside);
    if (step.aside) forked = true;
    if (step.joins && forked) {
      order(aside, main);
      forked = false;
    }
    range.Enter(step.node);
    step.launch(step.aside ? aside : main);
  }
  if (forked) order(aside, main);
}

Graph::Graph(const Program& program, cudaStream_t main, cudaStream_t aside) {
  cudaGraph_t captured = nullptr;
  Check(cudaStreamBeginCapture(main, cudaStreamCaptureModeRelaxed), "capturing a graph");
  try {
    Enqueue(program, 0, program.steps.size(), main, aside);
  } catch (...) {
    cudaStreamEndCapture(main, &captured);
    if (captured != nullptr) cudaGraphDestroy(captured);
    throw;
  }
  Check(cudaStreamEndCapture(main, &captured), "capturing a graph");
  cudaGraphExec_t graph = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&graph, captured, 0);
  cudaGraphDestroy(captured);
  Check(status, "making a graph");
  graph_.reset(graph);
}

void Graph::Launch(cudaStream_t stream) const {
  Check(cudaGraphLaunch(graph_.get(), stream), "launching the network");
}

Lane::Lane(const DeviceNetwork& network) : network_(network), io_memory_(sizeof(NetworkIo)) {}

Lane::~Lane() {
  // Not the whole device: another thread may be capturing a graph.
  for (const Stream* stream : {&main_, &aside_}) cudaStreamSynchronize(stream->get());
}

void Lane::Launch(const Shape& shape, const NetworkIo& io) {
  const Graph& graph = GraphFor(shape);
  SetIo(io);
  graph.Launch(main_.get());
}

void Lane::Wait() const { Check(cudaStreamSynchronize(main_.get()), "running the network"); }

void Lane::SetIo(const NetworkIo& io) {
  if (io_ != nullptr && std::memcmp(io_.get(), &io, sizeof io) == 0) return;
  Check(cudaMemcpyAsync(io_memory_.data(), &io, sizeof io, cudaMemcpyHostToDevice, main_.get()),
        "describing the picture to the GPU");
  io_ = std::make_unique<NetworkIo>(io);
}

const Graph& Lane::GraphFor(const Shape& shape) {
  if (const auto found = graphs_.find(shape); found != graphs_.end()) return *found->second;
  const size_t bytes = network_.ArenaBytes(shape, /*taps=*/false);
  if (bytes > arena_.size() || graphs_.size() >= kGraphs) {
    Wait();
    graphs_.clear();
  }
  if (bytes > arena_.size()) {
    arena_ = DeviceBuffer();
    arena_ = DeviceBuffer(bytes);
  }
  const Program program = network_.Compile(shape, /*taps=*/false, arena_.data(), io());
  auto made = std::make_unique<Graph>(program, main_.get(), aside_.get());
  return *graphs_.emplace(shape, std::move(made)).first->second;
}

}  // namespace mstpp::cuda
