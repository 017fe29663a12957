// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"

namespace mstpp::cuda {
namespace {

template <bool kCube, class Writer = CubeWriter>
__global__ void __launch_bounds__(ConvShape::kThreads, 6)
    ConvKernel(const __grid_constant__ ConvParams params) {
  Conv3x3<kCube, Writer>(params).Run();
}

__global__ void __launch_bounds__(ImageConvShape::kWarps * 32, 6)
    ImageConvKernel(const __grid_constant__ ImageConvParams params) {
  ImageConvBody(params);
}

}  // namespace

Launch ConvLaunch(ConvOutput output, ConvParams params, const DeviceInfo& gpu) {
  const auto function = output == ConvOutput::kMap    ? ConvKernel<false>
                        : output == ConvOutput::kCube ? ConvKernel<true>
                                                      : ConvKernel<true, HalfCubeWriter>;
  const Kernel<ConvParams> kernel{function, ConvShape::kThreads, ConvShape::kSharedBytes};
  kernel.Prepare();
  params.strips = CeilDivide(params.width, ConvShape::kColumns);
  const int items = params.strips * params.images;
  const Segments segments =
      ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu), 2.0, 1);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params);
}

Launch ImageConvLaunch(ImageConvParams params, const DeviceInfo& /*gpu*/) {
  using Shape = ImageConvShape;
  params.strips = CeilDivide(params.width, Shape::kColumns);
  params.segments = CeilDivide(params.height, Shape::kRows);
  const Kernel<ImageConvParams> kernel{ImageConvKernel, Shape::kWarps * 32, Shape::kSharedBytes};
  return kernel.Bind(params.strips * params.segments * params.images, params);
}

}  // namespace mstpp::cuda
