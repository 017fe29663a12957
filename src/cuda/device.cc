// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"

#include "cuda/check.h"

namespace mstpp::cuda {

DeviceScope::DeviceScope(int device) {
  Check(cudaGetDevice(&previous_), "asking for the current GPU");
  if (previous_ == device) {
    previous_ = -1;
  } else {
    Check(cudaSetDevice(device), "choosing GPU " + std::to_string(device));
  }
}
DeviceScope::~DeviceScope() {
  if (previous_ >= 0) cudaSetDevice(previous_);
}

DeviceInfo QueryDevice(int index) {
  cudaDeviceProp properties;
  Check(cudaGetDeviceProperties(&properties, index), "asking GPU " + std::to_string(index));
  return {.index = index,
          .name = properties.name,
          .multiprocessors = properties.multiProcessorCount,
          .shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin),
          .memory = properties.totalGlobalMem,
          .major = properties.major,
          .minor = properties.minor};
}

DeviceBuffer::DeviceBuffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* data = nullptr;
  Check(cudaMalloc(&data, bytes), "taking " + std::to_string(bytes) + " bytes of GPU memory");
  data_.reset(static_cast<unsigned char*>(data));
}

DeviceBuffer::DeviceBuffer(std::span<const unsigned char> bytes) : DeviceBuffer(bytes.size()) {
  if (bytes.empty()) return;
  Check(cudaMemcpy(data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice),
        "copying weights to the GPU");
}

PinnedBuffer::PinnedBuffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* data = nullptr;
  Check(cudaMallocHost(&data, bytes),
        "taking " + std::to_string(bytes) + " bytes of pinned memory");
  data_.reset(static_cast<unsigned char*>(data));
}

Stream::Stream() {
  cudaStream_t stream = nullptr;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  stream_.reset(stream);
}

Event::Event() {
  cudaEvent_t event = nullptr;
  Check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  event_.reset(event);
}

bool IsDeviceMemory(const void* pointer) {
  cudaPointerAttributes attributes;
  Check(cudaPointerGetAttributes(&attributes, pointer), "asking where a pointer leads");
  return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
}

}  // namespace mstpp::cuda
