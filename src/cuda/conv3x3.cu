// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"

namespace mstpp::cuda {
namespace {

// How a form of the kernel cuts images: blocks of a multiprocessor, what a block's beginning takes
// in rows, and what its rows are a multiple of.
struct ConvCut {
  int blocks;
  double overhead;
  int step;
};
constexpr ConvCut kConvCut{6, 2.0, 1}, kWarpgroupConvCut{3, 8.0, 2};

int ConvStrips(int width) { return CeilDivide(width, ConvShape<Maps::kHalf>::kColumns); }
// Of a part of S each.
Segments ConvSegments(const ConvCut& cut, int height, int width) {
  return SegmentsOfSize(height, ConvStrips(width), cut.blocks, cut.overhead, cut.step);
}

Launch BindConv(const Kernel<ConvParams>& kernel, const ConvCut& cut, ConvParams params,
                const DeviceInfo& gpu) {
  kernel.Prepare();
  params.strips = ConvStrips(params.width);
  const int items = params.strips * params.images;
  const Segments segments = params.partials != nullptr
                                ? ConvSegments(cut, params.height, params.width)
                                : ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu),
                                                 cut.overhead, cut.step);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params);
}

template <bool kCube, Maps kMaps, class Writer = CubeWriter, bool kGram = false>
__global__ void __launch_bounds__(ConvShape<kMaps>::kThreads, kConvCut.blocks)
    ConvKernel(const __grid_constant__ ConvParams params) {
  Conv3x3<kCube, kMaps, Writer, kGram>(params).Run();
}

template <bool kCube, class Writer = CubeWriter, bool kGram = false>
__global__ void __launch_bounds__(WarpgroupConvShape::kThreads, kWarpgroupConvCut.blocks)
    WarpgroupConvKernel(const __grid_constant__ ConvParams params) {
  WarpgroupConv3x3<kCube, Writer, kGram>(params).Run();
}

Launch LaunchWarpgroupConv(ConvOutput output, ConvParams params, const DeviceInfo& gpu) {
  using Shape = WarpgroupConvShape;
  const bool gram = params.partials != nullptr;
  const auto function = gram                          ? WarpgroupConvKernel<false, CubeWriter, true>
                        : output == ConvOutput::kMap  ? WarpgroupConvKernel<false>
                        : output == ConvOutput::kCube ? WarpgroupConvKernel<true>
                                                      : WarpgroupConvKernel<true, HalfCubeWriter>;
  return BindConv({function, Shape::kThreads, Shape::kSharedBytes}, kWarpgroupConvCut, params, gpu);
}

template <Maps kMaps>
Launch LaunchConv(ConvOutput output, ConvParams params, const DeviceInfo& gpu) {
  using Shape = ConvShape<kMaps>;
  const bool gram = params.partials != nullptr;
  const auto function = gram                          ? ConvKernel<false, kMaps, CubeWriter, true>
                        : output == ConvOutput::kMap  ? ConvKernel<false, kMaps>
                        : output == ConvOutput::kCube ? ConvKernel<true, kMaps>
                                                      : ConvKernel<true, kMaps, HalfCubeWriter>;
  return BindConv({function, Shape::kThreads, Shape::kSharedBytes}, kConvCut, params, gpu);
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
  const ConvCut& cut = WantsWarpgroups(maps, gpu) ? kWarpgroupConvCut : kConvCut;
  return ConvSegments(cut, height, width).count * ConvStrips(width);
}

Launch ConvLaunch(ConvOutput output, Maps maps, ConvParams params, const DeviceInfo& gpu) {
  if (WantsWarpgroups(maps, gpu)) return LaunchWarpgroupConv(output, params, gpu);
  return WithMaps(maps, [&]<Maps kMaps>() { return LaunchConv<kMaps>(output, params, gpu); });
}

Launch ImageConvLaunch(Maps maps, ImageConvParams params, const DeviceInfo& /*gpu*/) {
  return WithMaps(maps, [&]<Maps kMaps>() { return LaunchImageConv<kMaps>(params); });
}

}  // namespace mstpp::cuda
