// SPDX-License-Identifier: Apache-2.0
#include "cuda/box_map.h"
#include "cuda/kernels.cuh"

namespace mstpp::cuda {
namespace {

// Blocks that wait take places, which other pictures of a batch can use.
bool StartsEarly(int images, const DeviceInfo& gpu) {
  return gpu.overlaps_kernels() && images == 1;
}

template <int C, int P, int kBlocks, Maps kMaps, Products kProducts>
__global__ void __launch_bounds__(FeedForwardShape<C, P, kMaps>::kWarps * 32, kBlocks)
    FeedForwardKernel(const __grid_constant__ FeedForwardParams params) {
  if constexpr (kProducts == Products::kWarpgroup) {
    WarpgroupStripFeedForward(params).Run();
  } else {
    FeedForward<C, P, kMaps>(params).Run();
  }
}

template <int C, int P, int kBlocks, Maps kMaps, Products kProducts = Products::kWarps>
Launch LaunchFeedForward(FeedForwardParams params, const DeviceInfo& gpu) {
  using Shape = FeedForwardShape<C, P, kMaps, kProducts>;
  const Kernel<FeedForwardParams> kernel{FeedForwardKernel<C, P, kBlocks, kMaps, kProducts>,
                                         Shape::kWarps * 32, Shape::kSharedBytes};
  kernel.Prepare();
  params.strips = StripCount(params.width, 8 * P, 1);
  const int items = params.strips * params.images;
  const Segments segments =
      ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu), 3.0, 2);
  params.rests = size_t{2} * C * params.images * params.height * params.width;
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params, StartsEarly(params.images, gpu));
}

template <int C>
__global__ void __launch_bounds__(WarpgroupFeedForwardShape<C>::kThreads, 1)
    WarpgroupFeedForwardKernel(const __grid_constant__ WarpgroupFeedForwardParams params) {
  WarpgroupFeedForward<C>(params).Run();
}

template <int C>
Launch LaunchWarpgroupFeedForward(WarpgroupFeedForwardParams params, const DeviceInfo& gpu) {
  using Shape = WarpgroupFeedForwardShape<C>;
  const Kernel<WarpgroupFeedForwardParams> kernel{WarpgroupFeedForwardKernel<C>, Shape::kThreads,
                                                  Shape::kSharedBytes};
  kernel.Prepare();
  params.strips = CeilDivide(params.width, Shape::kColumns);
  params.segments = CeilDivide(params.height, Shape::kRows);
  const auto boxes = [&](const void* map) {
    return MakeBoxMap(map, params.images, params.height, params.width, C, Shape::kPitch,
                      Shape::kRows + 2);
  };
  params.x_boxes = boxes(params.x);
  params.d_boxes = boxes(params.d);
  const int tiles = params.strips * params.segments * params.images;
  return kernel.Bind(std::min(tiles, kernel.ResidentBlocks(gpu)), params,
                     StartsEarly(params.images, gpu));
}

}  // namespace

Launch WarpgroupFeedForwardLaunch(int C, WarpgroupFeedForwardParams params, const DeviceInfo& gpu) {
  if (C == 64) return LaunchWarpgroupFeedForward<64>(params, gpu);
  return LaunchWarpgroupFeedForward<128>(params, gpu);
}

int FusedSharedBytes(Maps maps) {
  return maps == Maps::kSplit ? FeedForwardShape<128, 2, Maps::kSplit>::kSharedBytes
                              : FeedForwardShape<128, 2, Maps::kHalf>::kSharedBytes;
}

Launch FeedForwardLaunch(int C, Maps maps, FeedForwardParams params, const DeviceInfo& gpu) {
  if (C == 32 && WantsWarpgroups(maps, gpu)) {
    return LaunchFeedForward<32, 4, 3, Maps::kHalf, Products::kWarpgroup>(params, gpu);
  }
  return WithMaps(maps, [&]<Maps kMaps>() {
    if (C == 32) return LaunchFeedForward<32, 4, 3, kMaps>(params, gpu);
    if (C == 64) return LaunchFeedForward<64, 4, 1, kMaps>(params, gpu);
    return LaunchFeedForward<128, 2, 1, kMaps>(params, gpu);
  });
}

}  // namespace mstpp::cuda
