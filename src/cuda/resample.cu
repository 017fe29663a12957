// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"

namespace mstpp::cuda {
namespace {

template <int C, Maps kMaps>
__global__ void __launch_bounds__(DownsampleShape<C>::kThreads, C == 32 ? 2 : 1)
    DownsampleKernel(const __grid_constant__ DownsampleParams params) {
  Downsample<C, kMaps>(params).Run();
}

template <int C, Maps kMaps>
Launch LaunchDownsample(DownsampleParams params, const DeviceInfo& gpu) {
  using Shape = DownsampleShape<C>;
  const Kernel<DownsampleParams> kernel{DownsampleKernel<C, kMaps>, Shape::kThreads,
                                        Shape::kSharedBytes};
  kernel.Prepare();
  params.strips = CeilDivide(params.width / 2, Shape::kColumns);
  const int items = params.strips * Shape::kParts * params.images;
  const Segments segments =
      ChooseSegments(params.height / 2, items, kernel.ResidentBlocks(gpu), 2.0, 1);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params);
}

template <int C, Maps kMaps>
__global__ void __launch_bounds__(UpsampleFuseShape<C>::kThreads, C == 32 ? 6 : 2)
    UpsampleFuseKernel(const __grid_constant__ UpsampleFuseParams params) {
  UpsampleFuse<C, kMaps>(params).Run();
}

template <int C, Maps kMaps>
Launch LaunchUpsampleFuse(UpsampleFuseParams params, const DeviceInfo& gpu) {
  using Shape = UpsampleFuseShape<C>;
  const Kernel<UpsampleFuseParams> kernel{UpsampleFuseKernel<C, kMaps>, Shape::kThreads,
                                          Shape::kSharedBytes};
  kernel.Prepare();
  params.strips = CeilDivide(params.width, Shape::kColumns);
  const int items = params.strips * params.images;
  const Segments segments =
      ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu), 2.0, 1);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params);
}

}  // namespace

Launch DownsampleLaunch(int C, Maps maps, DownsampleParams params, const DeviceInfo& gpu) {
  return WithMaps(maps, [&]<Maps kMaps>() {
    return C == 32 ? LaunchDownsample<32, kMaps>(params, gpu)
                   : LaunchDownsample<64, kMaps>(params, gpu);
  });
}

Launch UpsampleFuseLaunch(int C, Maps maps, UpsampleFuseParams params, const DeviceInfo& gpu) {
  return WithMaps(maps, [&]<Maps kMaps>() {
    return C == 32 ? LaunchUpsampleFuse<32, kMaps>(params, gpu)
                   : LaunchUpsampleFuse<64, kMaps>(params, gpu);
  });
}

}  // namespace mstpp::cuda
