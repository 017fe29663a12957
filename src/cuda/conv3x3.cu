// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"

namespace mstpp::cuda {
namespace {

template <bool kCube, Maps kMaps, class Writer = CubeWriter>
__global__ void __launch_bounds__(ConvShape<kMaps>::kThreads, 6)
    ConvKernel(const __grid_constant__ ConvParams params) {
  Conv3x3<kCube, kMaps, Writer>(params).Run();
}

template <Maps kMaps>
Launch LaunchConv(ConvOutput output, ConvParams params, const DeviceInfo& gpu) {
  using Shape = ConvShape<kMaps>;
  const auto function = output == ConvOutput::kMap    ? ConvKernel<false, kMaps>
                        : output == ConvOutput::kCube ? ConvKernel<true, kMaps>
                                                      : ConvKernel<true, kMaps, HalfCubeWriter>;
  const Kernel<ConvParams> kernel{function, Shape::kThreads, Shape::kSharedBytes};
  kernel.Prepare();
  params.strips = CeilDivide(params.width, Shape::kColumns);
  const int items = params.strips * params.images;
  const Segments segments =
      ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu), 2.0, 1);
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

Launch ConvLaunch(ConvOutput output, Maps maps, ConvParams params, const DeviceInfo& gpu) {
  return WithMaps(maps, [&]<Maps kMaps>() { return LaunchConv<kMaps>(output, params, gpu); });
}

Launch ImageConvLaunch(Maps maps, ImageConvParams params, const DeviceInfo& /*gpu*/) {
  return WithMaps(maps, [&]<Maps kMaps>() { return LaunchImageConv<kMaps>(params); });
}

}  // namespace mstpp::cuda
