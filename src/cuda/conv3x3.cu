// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"

namespace mstpp::cuda {
namespace {

constexpr int kConvBlocks = 6;  // of a multiprocessor

template <bool kCube, Maps kMaps, class Writer = CubeWriter, bool kGram = false>
__global__ void __launch_bounds__(ConvShape<kMaps>::kThreads, kConvBlocks)
    ConvKernel(const __grid_constant__ ConvParams params) {
  Conv3x3<kCube, kMaps, Writer, kGram>(params).Run();
}

int ConvStrips(int width) { return CeilDivide(width, ConvShape<Maps::kHalf>::kColumns); }
Segments ConvSegments(int height, int width) {
  return SegmentsOfSize(height, ConvStrips(width), kConvBlocks);
}

constexpr int kWarpgroupConvBlocks = 3;  // of a multiprocessor

template <bool kCube, class Writer = CubeWriter, bool kGram = false>
__global__ void __launch_bounds__(WarpgroupConvShape::kThreads, kWarpgroupConvBlocks)
    WarpgroupConvKernel(const __grid_constant__ ConvParams params) {
  WarpgroupConv3x3<kCube, Writer, kGram>(params).Run();
}

// Of a part of S each.
Segments WarpgroupConvSegments(int height, int width) {
  return SegmentsOfSize(height, ConvStrips(width), kWarpgroupConvBlocks, 8.0, 2);
}

Launch LaunchWarpgroupConv(ConvOutput output, ConvParams params, const DeviceInfo& gpu) {
  using Shape = WarpgroupConvShape;
  const bool gram = params.partials != nullptr;
  const auto function = gram                          ? WarpgroupConvKernel<false, CubeWriter, true>
                        : output == ConvOutput::kMap  ? WarpgroupConvKernel<false>
                        : output == ConvOutput::kCube ? WarpgroupConvKernel<true>
                                                      : WarpgroupConvKernel<true, HalfCubeWriter>;
  const Kernel<ConvParams> kernel{function, Shape::kThreads, Shape::kSharedBytes};
  kernel.Prepare();
  params.strips = ConvStrips(params.width);
  const int items = params.strips * params.images;
  const Segments segments =
      gram ? WarpgroupConvSegments(params.height, params.width)
           : ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu), 8.0, 2);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params);
}

template <Maps kMaps>
Launch LaunchConv(ConvOutput output, ConvParams params, const DeviceInfo& gpu) {
  using Shape = ConvShape<kMaps>;
  const bool gram = params.partials != nullptr;
  const auto function = gram                          ? ConvKernel<false, kMaps, CubeWriter, true>
                        : output == ConvOutput::kMap  ? ConvKernel<false, kMaps>
                        : output == ConvOutput::kCube ? ConvKernel<true, kMaps>
                                                      : ConvKernel<true, kMaps, HalfCubeWriter>;
  const Kernel<ConvParams> kernel{function, Shape::kThreads, Shape::kSharedBytes};
  kernel.Prepare();
  params.strips = ConvStrips(params.width);
  const int items = params.strips * params.images;
  const Segments segments =
      gram ? ConvSegments(params.height, params.width)
           : ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu), 2.0, 1);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params);
}

template <Maps kMaps>
__global__ void __launch_bounds__(ImageConvShape<kMaps>::kWarps * 32, kMaps == Maps::kSplit ? 4 : 6)
    ImageConvKernel(const __grid_constant__ ImageConvParams params) {
  ImageConvBody<kMaps>(params);
}

template <Maps kMaps>
Launch LaunchImageConv(ImageConvParams params) {
  using Shape = ImageConvShape<kMaps>;
  params.strips = CeilDivide(params.width, Shape::kColumns);
  params.segments = CeilDivide(params.height, Shape::kRows);
  const Kernel<ImageConvParams> kernel{ImageConvKernel<kMaps>, Shape::kWarps * 32,
                                       Shape::kSharedBytes};
  return kernel.Bind(params.strips * params.segments * params.images, params);
}

}  // namespace

int ConvParts(Maps maps, int height, int width, const DeviceInfo& gpu) {
  const Segments segments = WantsWarpgroups(maps, gpu) ? WarpgroupConvSegments(height, width)
                                                       : ConvSegments(height, width);
  return segments.count * ConvStrips(width);
}

Launch ConvLaunch(ConvOutput output, Maps maps, ConvParams params, const DeviceInfo& gpu) {
  if (WantsWarpgroups(maps, gpu)) return LaunchWarpgroupConv(output, params, gpu);
  return WithMaps(maps, [&]<Maps kMaps>() { return LaunchConv<kMaps>(output, params, gpu); });
}

Launch ImageConvLaunch(Maps maps, ImageConvParams params, const DeviceInfo& /*gpu*/) {
  return WithMaps(maps, [&]<Maps kMaps>() { return LaunchImageConv<kMaps>(params); });
}

}  // namespace mstpp::cuda
