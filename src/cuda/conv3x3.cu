// SPDX-License-Identifier: Apache-2.0
#include <type_traits>

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
template <Products kProducts>
constexpr ConvCut kConvCut =
    kProducts == Products::kWarpgroup ? ConvCut{3, 8.0, 2} : ConvCut{6, 2.0, 1};

template <Maps kMaps, Products kProducts>
using ConvShapeOf =
    std::conditional_t<kProducts == Products::kWarpgroup, WarpgroupConvShape, ConvShape<kMaps>>;

template <Maps kMaps, Products kProducts, bool kCube, class Writer = CubeWriter, bool kGram = false>
__global__ void __launch_bounds__(ConvShapeOf<kMaps, kProducts>::kThreads,
                                  kConvCut<kProducts>.blocks)
    ConvKernel(const __grid_constant__ ConvParams params) {
  if constexpr (kProducts == Products::kWarpgroup) {
    WarpgroupConv3x3<kCube, Writer, kGram>(params).Run();
  } else {
    Conv3x3<kCube, kMaps, Writer, kGram>(params).Run();
  }
}

int ConvStrips(int width) { return CeilDivide(width, ConvStrip::kColumns); }
// Of a part of S each.
Segments ConvSegments(const ConvCut& cut, int height, int width) {
  return SegmentsOfSize(height, ConvStrips(width), cut.blocks, cut.overhead, cut.step);
}

template <Maps kMaps, Products kProducts>
Launch LaunchConv(ConvOutput output, ConvParams params, const DeviceInfo& gpu) {
  using Shape = ConvShapeOf<kMaps, kProducts>;
  constexpr ConvCut kCut = kConvCut<kProducts>;
  const bool gram = params.partials != nullptr;
  const auto function = gram ? ConvKernel<kMaps, kProducts, false, CubeWriter, true>
                        : output == ConvOutput::kMap ? ConvKernel<kMaps, kProducts, false>
                        : output == ConvOutput::kCube
                            ? ConvKernel<kMaps, kProducts, true>
                            : ConvKernel<kMaps, kProducts, true, HalfCubeWriter>;
  const Kernel<ConvParams> kernel{function, Shape::kThreads, Shape::kSharedBytes};
  kernel.Prepare();
  params.strips = ConvStrips(params.width);
  const int items = params.strips * params.images;
  const Segments segments = gram ? ConvSegments(kCut, params.height, params.width)
                                 : ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu),
                                                  kCut.overhead, kCut.step);
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
  return WithForm(maps, gpu, [&]<Maps, Products kProducts>() {
    return ConvSegments(kConvCut<kProducts>, height, width).count * ConvStrips(width);
  });
}

Launch ConvLaunch(ConvOutput output, Maps maps, ConvParams params, const DeviceInfo& gpu) {
  return WithForm(maps, gpu, [&]<Maps kMaps, Products kProducts>() {
    return LaunchConv<kMaps, kProducts>(output, params, gpu);
  });
}

Launch ImageConvLaunch(Maps maps, ImageConvParams params, const DeviceInfo& /*gpu*/) {
  return WithMaps(maps, [&]<Maps kMaps>() { return LaunchImageConv<kMaps>(params); });
}

}  // namespace mstpp::cuda
