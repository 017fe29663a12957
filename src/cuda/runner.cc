// SPDX-License-Identifier: Apache-2.0
#include "cuda/runner.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cuda/check.h"
#include "cuda/kernels/network_io.h"
#include "cuda/node_range.h"
#include "cuda/views.h"
#include "model/padding.h"
#include "mstpp/error.h"

namespace mstpp::cuda {
namespace {

// Graphs kept; a program that meets more shapes pays for new ones now and then.
constexpr size_t kGraphs = 16;

std::vector<float> ToFloats(const std::vector<unsigned char>& bytes, Precision storage) {
  std::vector<float> values(bytes.size() / (storage == Precision::kFP32 ? 4 : 2));
  if (storage == Precision::kFP32) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    if (storage == Precision::kFP16) {
      values[i] = __half2float(__half(__half_raw{bits}));
    } else {
      const uint32_t raw = static_cast<uint32_t>(bits) << 16;
      std::memcpy(&values[i], &raw, 4);
    }
  }
  return values;
}

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

Runner::Runner(const DeviceNetwork& network, const DeviceInfo& gpu, const Config& config)
    : network_(network), gpu_(gpu), config_(config), io_memory_(sizeof(NetworkIo)) {}

Runner::~Runner() {
  const DeviceScope scope(gpu_.index);
  // Not the whole device: another thread may be capturing a graph.
  for (const Stream* stream : {&main_, &aside_, &in_, &out_}) cudaStreamSynchronize(stream->get());
  graphs_.clear();
  for (Slot& slot : slots_) slot = Slot();
  arena_ = DeviceBuffer();
  io_memory_ = DeviceBuffer();
}

Shape Runner::PaddedShape(int images, int64_t height, int64_t width) const {
  const int multiple = config_.padding_multiple();
  const int64_t h = RoundUp(height, multiple), w = RoundUp(width, multiple);
  // The kernels count the numbers of a map in int.
  const int64_t channels = config_.channels(config_.levels()) * 5;
  if (h > 1 << 20 || w > 1 << 20 || h * w > (int64_t{1} << 31) / channels) {
    throw Error(ErrorCode::kUnsupported, "cuda",
                "a picture of " + std::to_string(height) + " x " + std::to_string(width) +
                    " is larger than this backend takes at once; use a smaller one or the cpu");
  }
  return {images, static_cast<int>(h), static_cast<int>(w)};
}

unsigned char* Runner::Arena(size_t bytes) {
  if (bytes > arena_.size()) {
    graphs_.clear();  // they hold addresses in the old one
    arena_ = DeviceBuffer();
    arena_ = DeviceBuffer(bytes);
  }
  return arena_.data();
}

const Graph& Runner::GraphFor(const Shape& shape) {
  auto found = graphs_.find(shape);
  if (found == graphs_.end()) {
    if (graphs_.size() >= kGraphs) graphs_.clear();
    unsigned char* arena = Arena(network_.ArenaBytes(shape, /*taps=*/false));
    const Program program =
        network_.Compile(shape, /*taps=*/false, arena, io_memory_.as<NetworkIo>());
    found =
        graphs_.emplace(shape, std::make_unique<Graph>(program, main_.get(), aside_.get())).first;
  }
  return *found->second;
}

void Runner::SetIo(const NetworkIo& io) {
  if (io_ != nullptr && std::memcmp(io_.get(), &io, sizeof io) == 0) return;
  Check(cudaMemcpyAsync(io_memory_.data(), &io, sizeof io, cudaMemcpyHostToDevice, main_.get()),
        "describing the picture to the GPU");
  io_ = std::make_unique<NetworkIo>(io);
}

void Runner::Run(const TensorView& input, const MutableTensorView& output, Padding padding) {
  const DeviceScope scope(gpu_.index);
  if (IsDeviceMemory(input.data) && IsDeviceMemory(output.data)) {
    RunOnDevice(input, output, padding);
  } else {
    RunFromHost(input, output, padding);
  }
}

void Runner::RunOnDevice(const TensorView& input, const MutableTensorView& output,
                         Padding padding) {
  for (int64_t first = 0; first < input.n; first += kGroup) {
    const int images = static_cast<int>(std::min<int64_t>(kGroup, input.n - first));
    const Graph& graph = GraphFor(PaddedShape(images, input.h, input.w));
    SetIo(MakeIo(Images(input, first, images), Images(output, first, images), padding));
    graph.Launch(main_.get());
  }
  Check(cudaStreamSynchronize(main_.get()), "running the network");
}

// Group k is copied in while k - 1 is computed and k - 2 copied out.
void Runner::RunFromHost(const TensorView& input, const MutableTensorView& output,
                         Padding padding) {
  const int group = static_cast<int>(std::min<int64_t>(kGroup, input.n));
  const int64_t groups = (input.n + group - 1) / group;
  const int64_t image_floats = input.c * input.h * input.w;
  const int64_t cube_floats = output.c * output.h * output.w;
  for (int64_t i = 0; i < std::min<int64_t>(groups, 2); ++i) {
    const auto grow = [](auto& buffer, int64_t floats) {
      if (buffer.size() < static_cast<size_t>(floats) * sizeof(float)) {
        buffer = {};
        buffer = std::decay_t<decltype(buffer)>(static_cast<size_t>(floats) * sizeof(float));
      }
    };
    grow(slots_[i].image, group * image_floats);
    grow(slots_[i].host_image, group * image_floats);
    grow(slots_[i].cube, group * cube_floats);
    grow(slots_[i].host_cube, group * cube_floats);
  }
  const auto count = [&](int64_t k) { return std::min<int64_t>(group, input.n - k * group); };
  const auto collect = [&](int64_t k) {
    Slot& slot = slots_[k % 2];
    Check(cudaEventSynchronize(slot.copied_out.get()), "running the network");
    CopyView(TensorView::Nchw(slot.host_cube.as<float>(), count(k), output.c, output.h, output.w),
             Images(output, k * group, count(k)));
  };
  for (int64_t k = 0; k < groups; ++k) {
    Slot& slot = slots_[k % 2];
    if (k >= 2) collect(k - 2);  // then the slot is free
    const int images = static_cast<int>(count(k));
    CopyView(
        Images(input, k * group, images),
        MutableTensorView::Nchw(slot.host_image.as<float>(), images, input.c, input.h, input.w));
    Check(cudaMemcpyAsync(slot.image.data(), slot.host_image.data(),
                          static_cast<size_t>(images * image_floats) * sizeof(float),
                          cudaMemcpyHostToDevice, in_.get()),
          "copying a picture to the GPU");
    Check(cudaEventRecord(slot.copied_in.get(), in_.get()), "recording an event");
    Check(cudaStreamWaitEvent(main_.get(), slot.copied_in.get()), "waiting for an event");
    const Graph& graph = GraphFor(PaddedShape(images, input.h, input.w));
    SetIo(
        MakeIo(TensorView::Nchw(slot.image.as<float>(), images, input.c, input.h, input.w),
               MutableTensorView::Nchw(slot.cube.as<float>(), images, output.c, output.h, output.w),
               padding));
    graph.Launch(main_.get());
    Check(cudaEventRecord(slot.computed.get(), main_.get()), "recording an event");
    Check(cudaStreamWaitEvent(out_.get(), slot.computed.get()), "waiting for an event");
    Check(cudaMemcpyAsync(slot.host_cube.data(), slot.cube.data(),
                          static_cast<size_t>(images * cube_floats) * sizeof(float),
                          cudaMemcpyDeviceToHost, out_.get()),
          "copying a cube from the GPU");
    Check(cudaEventRecord(slot.copied_out.get(), out_.get()), "recording an event");
  }
  for (int64_t k = std::max<int64_t>(0, groups - 2); k < groups; ++k) collect(k);
}

void Runner::RunWithTaps(const TensorView& input, const MutableTensorView& output, Padding padding,
                         const Engine::Tap& tap) {
  const DeviceScope scope(gpu_.index);
  for (int64_t i = 0; i < input.n; ++i) {
    RunImageWithTaps(Images(input, i, 1), Images(output, i, 1), padding, tap);
  }
}

void Runner::RunImageWithTaps(const TensorView& input, const MutableTensorView& output,
                              Padding padding, const Engine::Tap& tap) {
  const Shape shape = PaddedShape(1, input.h, input.w);
  std::vector<float> picture(static_cast<size_t>(input.c * input.h * input.w));
  CopyView(input, MutableTensorView::Nchw(picture.data(), 1, input.c, input.h, input.w));
  const DeviceBuffer image(std::span(reinterpret_cast<const unsigned char*>(picture.data()),
                                     picture.size() * sizeof(float)));
  std::vector<float> cube(static_cast<size_t>(output.c) * shape.height * shape.width);
  const DeviceBuffer device_cube(cube.size() * sizeof(float));
  const DeviceBuffer arena(network_.ArenaBytes(shape, /*taps=*/true));
  const Program program =
      network_.Compile(shape, /*taps=*/true, arena.data(), io_memory_.as<NetworkIo>());
  SetIo(MakeIo(
      TensorView::Nchw(image.as<float>(), 1, input.c, input.h, input.w),
      MutableTensorView::Nchw(device_cube.as<float>(), 1, output.c, shape.height, shape.width),
      padding));
  // Every tapped value has memory of its own, so all can be read at the end.
  Enqueue(program, 0, program.steps.size(), main_.get(), aside_.get());
  Check(cudaStreamSynchronize(main_.get()), "running the network");
  for (const TapPoint& point : program.taps) {
    std::vector<unsigned char> bytes(static_cast<size_t>(point.height) * point.width *
                                     point.stride *
                                     (network_.storage() == Precision::kFP32 ? 4 : 2));
    Check(cudaMemcpy(bytes.data(), point.data, bytes.size(), cudaMemcpyDeviceToHost),
          "copying a block's output");
    const std::vector<float> values = ToFloats(bytes, network_.storage());
    tap(point.name, {.data = values.data(),
                     .n = 1,
                     .c = point.channels,
                     .h = point.height,
                     .w = point.width,
                     .stride_n = 0,
                     .stride_c = 1,
                     .stride_h = static_cast<int64_t>(point.width) * point.stride,
                     .stride_w = point.stride});
  }
  Check(cudaMemcpy(cube.data(), device_cube.data(), device_cube.size(), cudaMemcpyDeviceToHost),
        "copying the cube");
  const auto padded = TensorView::Nchw(cube.data(), 1, output.c, shape.height, shape.width);
  tap("conv_out", padded);
  TensorView cropped = padded;
  cropped.h = output.h;
  cropped.w = output.w;
  CopyView(cropped, output);
}

}  // namespace mstpp::cuda
