// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"
#include "mstpp/error.h"

namespace mstpp::cuda {
namespace {

constexpr int kConvWarps = 4;

template <class Policy, bool kCube, int kBlocks>
__global__ void __launch_bounds__(kConvWarps * 32, kBlocks)
    ConvKernel(const __grid_constant__ ConvParams params) {
  Conv3x3<Policy, kCube, kConvWarps>(params).Run();
}

template <class Policy>
__global__ void __launch_bounds__(kConvWarps * 32, 4)
    ImageConvKernel(const __grid_constant__ ImageConvParams params) {
  ImageConvBody<Policy, kConvWarps>(params);
}

// Cuts the image for a kernel whose warps work alone on strips of 16 columns.
template <class Params>
Launch BindStrips(const Kernel<Params>& kernel, Params params, double overhead,
                  const DeviceInfo& gpu) {
  kernel.Prepare();
  params.strips = CeilDivide(params.width, 16);
  const int items = params.strips * params.images;
  const Segments segments =
      ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu) * kConvWarps, overhead, 1);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(CeilDivide(items * segments.count, kConvWarps), params);
}

template <class Policy, bool kCube, int kBlocks>
Launch LaunchConv(const ConvParams& params, const DeviceInfo& gpu) {
  const Kernel<ConvParams> kernel{ConvKernel<Policy, kCube, kBlocks>, kConvWarps * 32,
                                  ConvShape<Policy>::SharedBytes(kConvWarps)};
  return BindStrips(kernel, params, 4.0, gpu);
}

}  // namespace

Launch ConvLaunch(Arithmetic arithmetic, bool to_cube, ConvParams params, const DeviceInfo& gpu) {
  if (arithmetic == Arithmetic::kFp16) {
    return to_cube ? LaunchConv<Fp16, true, 2>(params, gpu)
                   : LaunchConv<Fp16, false, 2>(params, gpu);
  }
  throw Error(ErrorCode::kInternal, "cuda", "no convolution kernel for this precision");
}

Launch ImageConvLaunch(Arithmetic arithmetic, ImageConvParams params, const DeviceInfo& gpu) {
  Kernel<ImageConvParams> kernel{nullptr, kConvWarps * 32, 0};
  switch (arithmetic) {
    case Arithmetic::kFp16:
      kernel.function = ImageConvKernel<Fp16>;
      break;
    case Arithmetic::kBf16:
      kernel.function = ImageConvKernel<Bf16>;
      break;
    case Arithmetic::kTf32:
      kernel.function = ImageConvKernel<Tf32<1>>;
      break;
    case Arithmetic::kTf32x3:
      kernel.function = ImageConvKernel<Tf32<3>>;
      break;
  }
  return BindStrips(kernel, params, 1.0, gpu);
}

}  // namespace mstpp::cuda
