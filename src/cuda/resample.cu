// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"

namespace mstpp::cuda {
namespace {

template <int C>
constexpr int kDownsampleBlocks = C == 32 ? 2 : 1;  // of a multiprocessor

template <int C, Maps kMaps, bool kGram, Products kProducts>
__global__ void __launch_bounds__(DownsampleShape<C>::kThreads, kDownsampleBlocks<C>)
    DownsampleKernel(const __grid_constant__ DownsampleParams params) {
  if constexpr (kProducts == Products::kWarpgroup) {
    WarpgroupDownsample<C, kGram>(params).Run();
  } else {
    Downsample<C, kMaps, kGram>(params).Run();
  }
}

template <int C>
int DownsampleStrips(int width) {
  return CeilDivide(width / 2, DownsampleShape<C>::kColumns);
}
// Of a part of S each.
Segments DownsampleSegments(int height, int width) {
  return SegmentsOfSize(height / 2, DownsampleStrips<32>(width), kDownsampleBlocks<32>);
}

template <int C, Maps kMaps, Products kProducts>
Launch LaunchDownsample(DownsampleParams params, const DeviceInfo& gpu) {
  using Shape = DownsampleShape<C, kProducts>;
  Kernel<DownsampleParams> kernel{DownsampleKernel<C, kMaps, false, kProducts>, Shape::kThreads,
                                  Shape::kSharedBytes};
  params.part_rows = 1;
  if constexpr (C == 32) {
    if (params.partials != nullptr) {
      kernel.function = DownsampleKernel<C, kMaps, true, kProducts>;
      kernel.shared_bytes = Shape::kGramSharedBytes;
      params.part_rows = DownsampleSegments(params.height, params.width).rows;
    }
  }
  kernel.Prepare();
  params.strips = DownsampleStrips<C>(params.width);
  const int items = params.strips * Shape::kParts * params.images;
  const Segments segments =
      ChooseSegments(params.height / 2, items, kernel.ResidentBlocks(gpu), 2.0, params.part_rows);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params);
}

// Of a multiprocessor.
template <int C, Products kProducts>
constexpr int kUpsampleFuseBlocks = (C == 32 ? 6 : 2) / (kProducts == Products::kWarpgroup ? 2 : 1);

template <int C, Maps kMaps, bool kGram, Products kProducts>
__global__ void __launch_bounds__(UpsampleFuseShape<C, kProducts>::kThreads,
                                  kUpsampleFuseBlocks<C, kProducts>)
    UpsampleFuseKernel(const __grid_constant__ UpsampleFuseParams params) {
  if constexpr (kProducts == Products::kWarpgroup) {
    WarpgroupUpsampleFuse<C, kGram>(params).Run();
  } else {
    UpsampleFuse<C, kMaps, kGram>(params).Run();
  }
}

template <int C, Products kProducts>
int UpsampleFuseStrips(int width) {
  return CeilDivide(width, UpsampleFuseShape<C, kProducts>::kColumns);
}
template <int C, Products kProducts>
Segments UpsampleFuseSegments(int height, int width) {
  return SegmentsOfSize(height, UpsampleFuseStrips<C, kProducts>(width),
                        kUpsampleFuseBlocks<C, kProducts>);
}

template <int C, Maps kMaps, Products kProducts>
Launch LaunchUpsampleFuse(UpsampleFuseParams params, const DeviceInfo& gpu) {
  using Shape = UpsampleFuseShape<C, kProducts>;
  const bool gram = params.partials != nullptr;
  const Kernel<UpsampleFuseParams> kernel{gram ? UpsampleFuseKernel<C, kMaps, true, kProducts>
                                               : UpsampleFuseKernel<C, kMaps, false, kProducts>,
                                          Shape::kThreads,
                                          gram ? Shape::kGramSharedBytes : Shape::kSharedBytes};
  kernel.Prepare();
  params.strips = UpsampleFuseStrips<C, kProducts>(params.width);
  const int items = params.strips * params.images;
  Segments segments = UpsampleFuseSegments<C, kProducts>(params.height, params.width);
  params.part_rows = segments.rows;
  if (!gram || C == 64 || Shape::kWarpgroup) {
    segments = ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu), 2.0,
                              gram ? params.part_rows : 1);
  }
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params);
}

}  // namespace

int DownsampleParts(int height, int width) {
  return DownsampleSegments(2 * height, 2 * width).count * DownsampleStrips<32>(2 * width);
}

int UpsampleFuseParts(int C, Maps maps, int height, int width, const DeviceInfo& gpu) {
  return WithForm(maps, gpu, [&]<Maps, Products kProducts>() {
    const auto count = [&]<int kC>() {
      return UpsampleFuseSegments<kC, kProducts>(height / 2, width / 2).count *
             UpsampleFuseStrips<kC, kProducts>(width / 2) *
             (kProducts == Products::kWarpgroup ? 2 : 1);
    };
    return C == 32 ? count.template operator()<32>() : count.template operator()<64>();
  });
}

Launch DownsampleLaunch(int C, Maps maps, DownsampleParams params, const DeviceInfo& gpu) {
  return WithForm(maps, gpu, [&]<Maps kMaps, Products kProducts>() {
    return C == 32 ? LaunchDownsample<32, kMaps, kProducts>(params, gpu)
                   : LaunchDownsample<64, kMaps, kProducts>(params, gpu);
  });
}

Launch UpsampleFuseLaunch(int C, Maps maps, UpsampleFuseParams params, const DeviceInfo& gpu) {
  return WithForm(maps, gpu, [&]<Maps kMaps, Products kProducts>() {
    return C == 32 ? LaunchUpsampleFuse<32, kMaps, kProducts>(params, gpu)
                   : LaunchUpsampleFuse<64, kMaps, kProducts>(params, gpu);
  });
}

}  // namespace mstpp::cuda
