// SPDX-License-Identifier: Apache-2.0
#include "cuda/cuda.h"

#include <fmt/format.h>

#include <utility>

#include "cuda/check.h"
#include "cuda/program.h"
#include "cuda/runner.h"
#include "model/network.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

using cuda::DeviceInfo;
using cuda::DeviceNetwork;

std::string VersionText(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

BackendStatus Unusable(std::string detail, std::string remedy) {
  return {.name = "cuda",
          .usable = false,
          .detail = std::move(detail),
          .remedy = std::move(remedy),
          .precisions = {}};
}

std::string Describe(const DeviceInfo& gpu) {
  return fmt::format("{}, compute capability {}.{}, {} multiprocessors, {:.0f} GiB", gpu.name,
                     gpu.major, gpu.minor, gpu.multiprocessors,
                     static_cast<double>(gpu.memory) / (1 << 30));
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(const Model& model, const Options& options, int index, bool portable)
      : config_(model.config()),
        gpu_(cuda::QueryDevice(index)),
        half_cubes_(options.fp16_transfers) {
    const cuda::DeviceScope scope(index);
    if (!portable) {
      network_ = cuda::MakeFusedNetwork(model.network(), options.precision, gpu_);
    }
    kernels_ = network_ != nullptr ? "fused kernels" : "portable kernels";
    if (network_ == nullptr) {
      network_ = cuda::MakePortableNetwork(model.network(), options.precision, gpu_);
    }
  }

  std::unique_ptr<Scratch> NewScratch() const override {
    const cuda::DeviceScope scope(gpu_.index);
    return std::make_unique<cuda::Runner>(*network_, gpu_, config_, half_cubes_);
  }

  void Run(const TensorView& input, const MutableTensorView& output, Padding padding,
           Scratch& scratch) const override {
    static_cast<cuda::Runner&>(scratch).Run(input, output, padding);
  }

  void RunWithTaps(const TensorView& input, const MutableTensorView& output, Padding padding,
                   Scratch& scratch, const Engine::Tap& tap) const override {
    static_cast<cuda::Runner&>(scratch).RunWithTaps(input, output, padding, tap);
  }

  std::vector<KernelTime> Profile(const TensorView& input, const MutableTensorView& output,
                                  Padding padding, Scratch& scratch, int warm_up,
                                  int runs) const override {
    return static_cast<cuda::Runner&>(scratch).Profile(input, output, padding, warm_up, runs);
  }

  std::string Description() const override {
    return fmt::format("{}, {}{}", Describe(gpu_), kernels_,
                       half_cubes_ ? ", cubes transferred in FP16" : "");
  }

 private:
  Config config_;
  DeviceInfo gpu_;
  bool half_cubes_;
  std::unique_ptr<DeviceNetwork> network_;
  std::string kernels_;
};

}  // namespace

BackendStatus QueryCuda(int index) {
  int driver = 0, runtime = 0, count = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) {
    return Unusable("no NVIDIA driver is installed",
                    "install the NVIDIA driver, or run on the cpu");
  }
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    return Unusable(fmt::format("the NVIDIA driver is too old: it supports CUDA {}, this build "
                                "needs {}",
                                VersionText(driver), VersionText(runtime)),
                    "update the NVIDIA driver");
  }
  if (status != cudaSuccess || count == 0) {
    return Unusable(
        fmt::format("the NVIDIA driver finds no GPU ({})",
                    cudaGetErrorString(status == cudaSuccess ? cudaErrorNoDevice : status)),
        "check nvidia-smi and CUDA_VISIBLE_DEVICES, or run on the cpu");
  }
  if (index >= count) {
    return Unusable(fmt::format("there is no GPU {}: this machine has {}", index, count),
                    fmt::format("choose cuda:0 to cuda:{}", count - 1));
  }
  try {
    const DeviceInfo gpu = cuda::QueryDevice(index);
    const cuda::DeviceScope scope(index);
    cuda::CheckCode();
    return {.name = "cuda",
            .usable = true,
            .detail = fmt::format("{}, driver for CUDA {}, runtime {}", Describe(gpu),
                                  VersionText(driver), VersionText(runtime)),
            .remedy = "",
            .precisions = {Precision::kFP32, Precision::kTF32, Precision::kFP16, Precision::kBF16}};
  } catch (const Error& error) {
    return Unusable(error.what(), "run on the cpu");
  }
}

std::unique_ptr<Backend> CreateCudaBackend(const Model& model, const Options& options, int index) {
  return std::make_unique<CudaBackend>(model, options, index, /*portable=*/false);
}

std::unique_ptr<Backend> CreatePortableCudaBackend(const Model& model, const Options& options,
                                                   int index) {
  return std::make_unique<CudaBackend>(model, options, index, /*portable=*/true);
}

}  // namespace mstpp
