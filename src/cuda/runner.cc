// SPDX-License-Identifier: Apache-2.0
#include "cuda/runner.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
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
    } else if (half_cubes_) {
      RunFromHost<uint16_t>(input, output, padding, groups);
    } else {
      RunFromHost<float>(input, output, padding, groups);
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

// Groups are copied in and out while others are computed. They are half as large as those in the
// device's memory, for then there are more of them.
template <class Element>
void Runner::RunFromHost(const TensorView& input, const MutableTensorView& output, Padding padding,
                         const Groups& groups) {
  const int64_t size = (groups.size + 1) / 2, count = (input.n + size - 1) / size;
  const auto pictures_at = [&](float* memory, int64_t images) {
    return MutableTensorView::Nchw(memory, images, input.c, input.h, input.w);
  };
  const auto cubes_at = [&](auto* memory, int64_t images) {
    return CubeAt(memory, images, output.c, output.h, output.w);
  };
  const size_t image_bytes = pictures_at(nullptr, 1).stride_n * sizeof(float);
  const size_t cube_bytes = cubes_at(static_cast<Element*>(nullptr), 1).stride_n * sizeof(Element);
  for (int64_t i = 0; i < std::min<int64_t>(count, kSlots); ++i) {
    const auto grow = [&](auto& buffer, size_t bytes) {
      if (buffer.size() >= size * bytes) return false;
      buffer = {};
      buffer = std::decay_t<decltype(buffer)>(size * bytes);
      return true;
    };
    if (slots_[i] == nullptr) slots_[i] = std::make_unique<Slot>();
    Slot& slot = *slots_[i];
    grow(slot.image, image_bytes);
    grow(slot.host_image, image_bytes);
    // What no kernel writes, the ends of rows of halves, is copied too.
    if (grow(slot.cube, cube_bytes)) {
      Check(cudaMemsetAsync(slot.cube.data(), 0, slot.cube.size(), in_.get()), "clearing memory");
    }
    grow(slot.host_cube, cube_bytes);
  }
  const auto images_of = [&](int64_t k) { return std::min(size, input.n - k * size); };
  const auto collect = [&](int64_t k) {
    const Slot& slot = *slots_[k % kSlots];
    const int64_t images = images_of(k);
    Check(cudaEventSynchronize(slot.copied_out.get()), "running the network");
    CopyView(cubes_at(slot.host_cube.template as<const Element>(), images),
             Images(output, k * size, images));
  };
  for (int64_t k = 0; k < count; ++k) {
    const Slot& slot = *slots_[k % kSlots];
    Lane& lane = LaneAt(k % groups.lanes);
    if (k >= kSlots) collect(k - kSlots);  // then the slot is free
    const int64_t images = images_of(k);
    CopyView(Images(input, k * size, images), pictures_at(slot.host_image.as<float>(), images));
    Check(cudaMemcpyAsync(slot.image.data(), slot.host_image.data(), images * image_bytes,
                          cudaMemcpyHostToDevice, in_.get()),
          "copying a picture to the GPU");
    Check(cudaEventRecord(slot.copied_in.get(), in_.get()), "recording an event");
    Check(cudaStreamWaitEvent(lane.main(), slot.copied_in.get()), "waiting for an event");
    Shape shape = PaddedShape(images, input.h, input.w);
    shape.half_cube = std::is_same_v<Element, uint16_t>;
    lane.Launch(shape,
                MakeIo(TensorView::Nchw(slot.image.as<float>(), images, input.c, input.h, input.w),
                       cubes_at(slot.cube.template as<Element>(), images), padding));
    Check(cudaEventRecord(slot.computed.get(), lane.main()), "recording an event");
    Check(cudaStreamWaitEvent(out_.get(), slot.computed.get()), "waiting for an event");
    Check(cudaMemcpyAsync(slot.host_cube.data(), slot.cube.data(), images * cube_bytes,
                          cudaMemcpyDeviceToHost, out_.get()),
          "copying a cube from the GPU");
    Check(cudaEventRecord(slot.copied_out.get(), out_.get()), "recording an event");
  }
  for (int64_t k = std::max<int64_t>(0, count - kSlots); k < count; ++k) collect(k);
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
