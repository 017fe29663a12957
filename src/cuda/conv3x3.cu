// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"

namespace mstpp::cuda {
namespace {

template <bool kCube>
__global__ void __launch_bounds__(ConvShape::kThreads, 6)
    ConvKernel(const __grid_constant__ ConvParams params) {
  Conv3x3<kCube>(params).Run();
}

__global__ void __launch_bounds__(ImageConvShape::kWarps * 32, 6)
    ImageConvKernel(const __grid_constant__ ImageConvParams params) {
  ImageConvBody(params);
}

}  // namespace

Launch ConvLaunch(bool to_cube, ConvParams params, const DeviceInfo& gpu) {
  const Kernel<ConvParams> kernel{to_cube ? ConvKernel<true> : ConvKernel<false>,
                                  ConvShape::kThreads, ConvShape::kSharedBytes};
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
