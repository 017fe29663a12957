// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.cuh"
#include "cuda/kernels/portable.cuh"

namespace mstpp::cuda {
namespace {

constexpr int kPositionWarps = 4;

template <int C, int P, int kBlocks>
__global__ void __launch_bounds__(kPositionWarps * 32, kBlocks)
    PositionKernel(const __grid_constant__ PositionParams params) {
  PositionBody<C, P, kPositionWarps>(params);
}

template <int C, int P, int kBlocks>
Launch LaunchPosition(PositionParams params, const DeviceInfo& gpu) {
  using Shape = PositionShape<C, P>;
  const Kernel<PositionParams> kernel{PositionKernel<C, P, kBlocks>, kPositionWarps * 32,
                                      Shape::SharedBytes(kPositionWarps)};
  kernel.Prepare();
  params.strips = StripCount(params.width, 8 * P, 2);
  const int items = params.strips * Shape::kSlices * params.images;
  // A share of the GPU stays free for the kernels from S to M, which run beside this one and are
  // what feed_forward waits for.
  constexpr int kTwentieths = C == 32 ? 10 : C == 64 ? 16 : 14;
  const int warps = kernel.ResidentBlocks(gpu) * kPositionWarps * kTwentieths / 20;
  const Segments segments = ChooseSegments(params.height, items, warps, 4.0, 1);
  params.rows = segments.rows;
  params.segments = segments.count;
  return kernel.Bind(CeilDivide(items * segments.count, kPositionWarps), params);
}

template <int C>
__global__ void __launch_bounds__(Gram16Shape<C>::kWarps * 32)
    Gram16Kernel(const __grid_constant__ GramParams params) {
  Gram16<C>(params).Run();
}

template <int C>
Launch LaunchGram16(const GramParams& params) {
  using Shape = Gram16Shape<C>;
  const Kernel<GramParams> kernel{Gram16Kernel<C>, Shape::kWarps * 32, Shape::kSharedBytes};
  kernel.Prepare();
  return kernel.Bind(params.blocks * params.images, params);
}

__global__ void __launch_bounds__(kReduceThreads)
    GramReduceKernel(const __grid_constant__ GramReduceParams params) {
  GramReduceBody(params);
}

template <int C, GramParts kParts>
__global__ void __launch_bounds__(kReduceThreads)
    Gram16ReduceKernel(const __grid_constant__ GramReduceParams params) {
  Gram16ReduceBody<C, kParts>(params);
}

template <int C>
Launch LaunchGram16Reduce(GramParts parts, const GramReduceParams& params, const DeviceInfo& gpu) {
  Kernel<GramReduceParams> kernel{Gram16ReduceKernel<C, GramParts::kRead>, kReduceThreads,
                                  kReduceThreads * 16};
  if constexpr (C <= 64) {
    if (parts == GramParts::kQuads) kernel.function = Gram16ReduceKernel<C, GramParts::kQuads>;
    if (parts == GramParts::kVecs) kernel.function = Gram16ReduceKernel<C, GramParts::kVecs>;
  }
  // Behind gram; kernels that write x do not say LaunchDependents.
  const bool overlaps = parts == GramParts::kRead && gpu.overlaps_kernels();
  return kernel.Bind(kReduceBlocks<C> * params.images, params, overlaps);
}

__global__ void __launch_bounds__(kAttentionThreads)
    AttentionLogitsKernel(const __grid_constant__ AttentionParams params) {
  AttentionLogitsBody(params);
}

template <MatrixForm kForm, int kThreads>
__global__ void __launch_bounds__(kThreads)
    AttentionMatrixKernel(const __grid_constant__ AttentionParams params) {
  AttentionMatrixBody<kForm, kThreads>(params);
}

template <MatrixForm kForm>
Kernel<AttentionParams> MatrixKernel(const AttentionParams& p) {
  const int threads = AttentionMatrixThreads(p.channels);
  return {threads == kAttentionThreads ? AttentionMatrixKernel<kForm, kAttentionThreads>
                                       : AttentionMatrixKernel<kForm, kManyAttentionThreads>,
          threads, AttentionShape(p.channels, p.heads, p.C, threads).size * 4};
}

__global__ void __launch_bounds__(128)
    AttentionTapKernel(const __grid_constant__ AttentionTapParams p) {
  const int index = blockIdx.x * 128 + threadIdx.x;
  const int pixel = index / p.C, channel = index % p.C;
  if (pixel >= p.pixels) return;
  const size_t at = static_cast<size_t>(pixel) * p.C;
  const auto* x = static_cast<const portable::Half*>(p.x) + at;
  float sum = portable::LoadOne(x + channel) +
              portable::LoadOne(static_cast<const portable::Half*>(p.d) + at + channel);
  if (p.rests > 0) sum += portable::LoadOne(x + p.rests + channel);
  for (int i = 0; i < p.C; ++i) {
    const int weight = p.bricks ? BrickWeight(channel, i, p.C) : TileWeight(channel, i, p.C / 32);
    sum = fmaf(portable::LoadOne(x + i),
               portable::LoadOne(static_cast<const portable::Half*>(p.matrix) + weight), sum);
  }
  auto* y = static_cast<portable::Half*>(p.y) + at + channel;
  portable::StoreOne(y, sum);
  if (p.rests > 0) portable::StoreOne(y + p.rests, sum - portable::LoadOne(y));
}

}  // namespace

Launch AttentionTapLaunch(const AttentionTapParams& params) {
  const Kernel<AttentionTapParams> kernel{AttentionTapKernel, 128, 0};
  return kernel.Bind(CeilDivide(params.pixels * params.C, 128), params);
}

Launch PositionLaunch(int C, PositionParams params, const DeviceInfo& gpu) {
  if (C == 32) return LaunchPosition<32, 4, 2>(params, gpu);
  if (C == 64) return LaunchPosition<64, 4, 2>(params, gpu);
  return LaunchPosition<128, 2, 2>(params, gpu);
}

int GramBlocks(int C, int pixels) {
  return std::clamp(pixels / (C == 32 ? 1024 : C == 64 ? 512 : 256), 1, 132);
}

Launch GramLaunch(int C, GramParams params) {
  if (C == 32) return LaunchGram16<32>(params);
  if (C == 64) return LaunchGram16<64>(params);
  return LaunchGram16<128>(params);
}

Launch GramReduceLaunch(GramReduceParams params) {
  const Kernel<GramReduceParams> kernel{GramReduceKernel, kReduceThreads, kReduceThreads * 4};
  return kernel.Bind(params.size / 32 * params.images, params);
}

Launch Gram16ReduceLaunch(int C, GramParts parts, GramReduceParams params, const DeviceInfo& gpu) {
  if (C == 32) return LaunchGram16Reduce<32>(parts, params, gpu);
  if (C == 64) return LaunchGram16Reduce<64>(parts, params, gpu);
  return LaunchGram16Reduce<128>(parts, params, gpu);
}

Launch AttentionLogitsLaunch(AttentionParams params, const DeviceInfo& gpu) {
  const Kernel<AttentionParams> kernel{
      AttentionLogitsKernel, kAttentionThreads,
      AttentionShape(params.channels, params.heads, params.C, kAttentionThreads).size * 4};
  kernel.Prepare();
  return kernel.Bind(AttentionLogitsBlocks(params.channels, params.heads) * params.images, params,
                     gpu.overlaps_kernels());
}

Launch AttentionMatrixLaunch(MatrixForm form, AttentionParams params, const DeviceInfo& gpu) {
  const Kernel<AttentionParams> kernel =
      form == MatrixForm::kHalfTiles    ? MatrixKernel<MatrixForm::kHalfTiles>(params)
      : form == MatrixForm::kHalfBricks ? MatrixKernel<MatrixForm::kHalfBricks>(params)
                                        : MatrixKernel<MatrixForm::kPlain>(params);
  kernel.Prepare();
  return kernel.Bind(params.C / kAttentionRows * params.images, params, gpu.overlaps_kernels());
}

}  // namespace mstpp::cuda
