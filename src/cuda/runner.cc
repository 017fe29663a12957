// SPDX-License-Identifier: Apache-2.0
#include "cuda/runner.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "cuda/check.h"
#include "cuda/kernels/network_io.h"
#include "cuda/views.h"
#include "model/padding.h"
#include "mstpp/error.h"

namespace mstpp::cuda {
namespace {

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

// So many numbers in device memory.
std::vector<float> CopyOut(const void* data, size_t count, Precision storage) {
  std::vector<unsigned char> bytes(count * (storage == Precision::kFP32 ? 4 : 2));
  Check(cudaMemcpy(bytes.data(), data, bytes.size(), cudaMemcpyDeviceToHost),
        "copying a block's output");
  return ToFloats(bytes, storage);
}

}  // namespace

Runner::Runner(const DeviceNetwork& network, const DeviceInfo& gpu, const Config& config,
               bool half_cubes)
    : network_(network), gpu_(gpu), config_(config), half_cubes_(half_cubes) {}

Runner::~Runner() {
  const DeviceScope scope(gpu_.index);
  Clear();
}

// Nothing runs any more when memory is given back.
void Runner::Clear() {
  for (std::unique_ptr<Lane>& lane : lanes_) lane.reset();
  for (const Stream* stream : {&in_, &out_}) cudaStreamSynchronize(stream->get());
  for (std::unique_ptr<Slot>& slot : slots_) slot.reset();
}

Lane& Runner::LaneAt(int64_t index) {
  std::unique_ptr<Lane>& lane = lanes_[index];
  if (lane == nullptr) lane = std::make_unique<Lane>(network_);
  return *lane;
}

Shape Runner::PaddedShape(int64_t images, int64_t height, int64_t width) const {
  const int multiple = config_.padding_multiple();
  const int64_t h = RoundUp(height, multiple), w = RoundUp(width, multiple);
  // The kernels count the numbers of a map in int.
  const int64_t channels = config_.channels(config_.levels()) * 5;
  if (h > 1 << 20 || w > 1 << 20 || h * w > (int64_t{1} << 31) / channels) {
    throw Error(ErrorCode::kUnsupported, "cuda",
                "a picture of " + std::to_string(height) + " x " + std::to_string(width) +
                    " is larger than this backend takes at once; use a smaller one or the cpu");
  }
  return {static_cast<int>(images), static_cast<int>(h), static_cast<int>(w)};
}

void Runner::Run(const TensorView& input, const MutableTensorView& output, Padding padding) {
  const DeviceScope scope(gpu_.index);
  const bool on_device = IsDeviceMemory(input.data) && IsDeviceMemory(output.data);
  InGroups(input, [&](const Groups& groups) {
    if (on_device) {
      RunOnDevice(input, output, padding, groups);
    } else {
      RunFromHost(input, output, padding, groups);
    }
  });
}

void Runner::InGroups(const TensorView& input, const std::function<void(const Groups&)>& run) {
  const Shape one = PaddedShape(1, input.h, input.w);
  RunInGroups(ChooseGroups(input.n, int64_t{one.height} * one.width), run, [&] { Clear(); });
}

void Runner::RunOnDevice(const TensorView& input, const MutableTensorView& output, Padding padding,
                         const Groups& groups) {
  for (int64_t first = 0; first < input.n; first += groups.size) {
    const int64_t images = std::min(groups.size, input.n - first);
    LaneAt(first / groups.size % groups.lanes)
        .Launch(PaddedShape(images, input.h, input.w),
                MakeIo(Images(input, first, images), Images(output, first, images), padding));
  }
  for (int i = 0; i < groups.lanes; ++i) LaneAt(i).Wait();
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
  Lane lane(network_);
  const Program program = network_.Compile(shape, /*taps=*/true, arena.data(), lane.io());
  lane.SetIo(MakeIo(
      TensorView::Nchw(image.as<float>(), 1, input.c, input.h, input.w),
      MutableTensorView::Nchw(device_cube.as<float>(), 1, output.c, shape.height, shape.width),
      padding));
  // Every tapped value has memory of its own, so all can be read at the end.
  Enqueue(program, 0, program.steps.size(), lane.main(), lane.aside());
  lane.Wait();
  for (const TapPoint& point : program.taps) {
    const size_t count = static_cast<size_t>(point.height) * point.width * point.stride;
    std::vector<float> values = CopyOut(point.data, count, network_.storage());
    if (point.rests != nullptr) {
      const std::vector<float> rests = CopyOut(point.rests, count, network_.storage());
      std::transform(values.begin(), values.end(), rests.begin(), values.begin(), std::plus<>());
    }
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
