// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"
#include "mstpp/error.h"

namespace mstpp::cuda {
namespace {

constexpr int kUpWarps = 4;

template <class Policy, int C, int kTiles, int kBlocks>
__global__ void __launch_bounds__(DownsampleShape<Policy, C, kTiles>::kWarps * 32, kBlocks)
    DownsampleKernel(const __grid_constant__ DownsampleParams params) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  Downsample<Policy, C, kTiles>(params).Run();
}

template <class Policy, int C, int kTiles, int kBlocks>
Launch LaunchDownsample(DownsampleParams params, const DeviceInfo& gpu) {
  using Shape = DownsampleShape<Policy, C, kTiles>;
  const Kernel<DownsampleParams> kernel{DownsampleKernel<Policy, C, kTiles, kBlocks>,
                                        Shape::kWarps * 32, Shape::kSharedBytes, 2};
  kernel.Prepare();
  params.strips = CeilDivide(params.width / 2, 16);
  const int items = params.strips * Shape::kParts * params.images;
  const Segments segments =
      ChooseSegments(params.height / 2, items, kernel.ResidentBlocks(gpu), 2.5, 1);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params);
}

template <class Policy, int C, int kTiles, int kBlocks>
__global__ void __launch_bounds__(kUpWarps * 32, kBlocks)
    UpsampleFuseKernel(const __grid_constant__ UpsampleFuseParams params) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  UpsampleFuse<Policy, C, kTiles, kUpWarps>(params).Run();
}

template <class Policy, int C, int kTiles, int kBlocks>
Launch LaunchUpsampleFuse(UpsampleFuseParams params, const DeviceInfo& gpu) {
  using Shape = UpsampleFuseShape<Policy, C, kTiles>;
  const Kernel<UpsampleFuseParams> kernel{UpsampleFuseKernel<Policy, C, kTiles, kBlocks>,
                                          kUpWarps * 32, Shape::SharedBytes(kUpWarps), 2};
  kernel.Prepare();
  params.strips = CeilDivide(params.width, 16);
  const int items = params.strips * Shape::kParts * params.images;
  const Segments segments =
      ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu) * kUpWarps, 1.0, 1);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(CeilDivide(items * segments.count, kUpWarps), params);
}

}  // namespace

Launch DownsampleLaunch(Arithmetic arithmetic, int C, DownsampleParams params,
                        const DeviceInfo& gpu) {
  if (arithmetic == Arithmetic::kFp16) {
    return C == 32 ? LaunchDownsample<Fp16, 32, 2, 2>(params, gpu)
                   : LaunchDownsample<Fp16, 64, 1, 1>(params, gpu);
  }
  throw Error(ErrorCode::kInternal, "cuda", "no downsampling kernel for this precision");
}

Launch UpsampleFuseLaunch(Arithmetic arithmetic, int C, UpsampleFuseParams params,
                          const DeviceInfo& gpu) {
  if (arithmetic == Arithmetic::kFp16) {
    return C == 32 ? LaunchUpsampleFuse<Fp16, 32, 4, 2>(params, gpu)
                   : LaunchUpsampleFuse<Fp16, 64, 2, 2>(params, gpu);
  }
  throw Error(ErrorCode::kInternal, "cuda", "no upsampling kernel for this precision");
}

}  // namespace mstpp::cuda
