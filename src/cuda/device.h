// SPDX-License-Identifier: Apache-2.0
// A GPU, and what is held on it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mstpp/engine.h"

namespace mstpp::cuda {

// Makes a device current for the calling thread while it lives.
class DeviceScope {
 public:
  explicit DeviceScope(int device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = -1;
};

struct DeviceInfo {
  int index = 0;
  std::string name;
  int multiprocessors = 0;
  int shared_bytes = 0;  // a block may have
  size_t memory = 0;
  int major = 0, minor = 0;

  // Whether blocks of a kernel may start before the one before it in the stream has ended.
  bool overlaps_kernels() const { return major >= 9; }
};
DeviceInfo QueryDevice(int index);

// Memory of the current device.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t bytes);
  // A copy of host memory.
  explicit DeviceBuffer(std::span<const unsigned char> bytes);

  unsigned char* data() const { return data_.get(); }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(unsigned char* data) const { cudaFree(data); }
  };
  std::unique_ptr<unsigned char, Free> data_;
  size_t size_ = 0;
};

// Host memory that the GPU can copy from and to by itself.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(size_t bytes);
  unsigned char* data() const { return data_.get(); }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(unsigned char* data) const { cudaFreeHost(data); }
  };
  std::unique_ptr<unsigned char, Free> data_;
  size_t size_ = 0;
};

class Stream {
 public:
  Stream();
  cudaStream_t get() const { return stream_.get(); }

 private:
  struct Destroy {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
  };
  std::unique_ptr<CUstream_st, Destroy> stream_;
};

class Event {
 public:
  Event();
  cudaEvent_t get() const { return event_.get(); }

 private:
  struct Destroy {
    void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  };
  std::unique_ptr<CUevent_st, Destroy> event_;
};

// Whether `pointer` is memory that kernels can use as it is.
bool IsDeviceMemory(const void* pointer);

}  // namespace mstpp::cuda
