// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"

namespace mstpp::cuda {
namespace {

template <int C, int P, int kBlocks>
__global__ void __launch_bounds__(FeedForwardShape<C, P>::kWarps * 32, kBlocks)
    FeedForwardKernel(const __grid_constant__ FeedForwardParams params) {
  FeedForward<C, P>(params).Run();
}

template <int C, int P, int kBlocks>
Launch LaunchFeedForward(FeedForwardParams params, const DeviceInfo& gpu) {
  using Shape = FeedForwardShape<C, P>;
  const Kernel<FeedForwardParams> kernel{FeedForwardKernel<C, P, kBlocks>, Shape::kWarps * 32,
                                         Shape::kSharedBytes};
  kernel.Prepare();
  params.strips = StripCount(params.width, 8 * P, 1);
  const int items = params.strips * params.images;
  const Segments segments =
      ChooseSegments(params.height, items, kernel.ResidentBlocks(gpu), 3.0, 2);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(items * segments.count, params);
}

}  // namespace

Launch FeedForwardLaunch(int C, FeedForwardParams params, const DeviceInfo& gpu) {
  if (C == 32) return LaunchFeedForward<32, 4, 3>(params, gpu);
  if (C == 64) return LaunchFeedForward<64, 4, 1>(params, gpu);
  return LaunchFeedForward<128, 2, 1>(params, gpu);
}

}  // namespace mstpp::cuda
