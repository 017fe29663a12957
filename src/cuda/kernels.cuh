// SPDX-License-Identifier: Apache-2.0
// The fused kernels, each ready to launch for one shape. They fill in how the image is cut.
#pragma once

#include "cuda/kernels/attention_matrix.cuh"
#include "cuda/kernels/conv3x3.cuh"
#include "cuda/kernels/downsample.cuh"
#include "cuda/kernels/feed_forward.cuh"
#include "cuda/kernels/gram.cuh"
#include "cuda/kernels/image_conv.cuh"
#include "cuda/kernels/position.cuh"
#include "cuda/kernels/upsample_fuse.cuh"
#include "cuda/kernels/warpgroup_conv3x3.cuh"
#include "cuda/kernels/warpgroup_downsample.cuh"
#include "cuda/kernels/warpgroup_feed_forward.cuh"
#include "cuda/kernels/warpgroup_strip_feed_forward.cuh"
#include "cuda/kernels/warpgroup_upsample_fuse.cuh"
#include "cuda/launch.cuh"

namespace mstpp::cuda {

// f of maps known when it is compiled: f.operator()<kMaps>().
template <class F>
auto WithMaps(Maps maps, const F& f) {
  return maps == Maps::kSplit ? f.template operator()<Maps::kSplit>()
                              : f.template operator()<Maps::kHalf>();
}

// Whether kernels with products of warpgroups (kernels/hopper.cuh) are what is fastest on this GPU,
// and compiled for it. All these launches decide by that, but feed_forward's: with C >= 64 it is
// WarpgroupFeedForwardLaunch then. Weights, M and S's parts are laid out accordingly.
bool WantsWarpgroups(Maps maps, const DeviceInfo& gpu);

// f of the form that is wanted, too: f.operator()<kMaps, kProducts>().
template <class F>
auto WithForm(Maps maps, const DeviceInfo& gpu, const F& f) {
  if (WantsWarpgroups(maps, gpu)) {
    return f.template operator()<Maps::kHalf, Products::kWarpgroup>();
  }
  return WithMaps(maps,
                  [&]<Maps kMaps>() { return f.template operator()<kMaps, Products::kWarps>(); });
}

// C is that of the map that is written, but for the gram's and downsampling's, which is read.
Launch PositionLaunch(int C, PositionParams params, const DeviceInfo& gpu);
enum class ConvOutput { kMap, kCube, kHalfCube };
// `maps`: what residuals and results are; x as a factor is halves, d always.
Launch FeedForwardLaunch(int C, Maps maps, FeedForwardParams params, const DeviceInfo& gpu);
Launch WarpgroupFeedForwardLaunch(int C, WarpgroupFeedForwardParams params, const DeviceInfo& gpu);
Launch ConvLaunch(ConvOutput output, Maps maps, ConvParams params, const DeviceInfo& gpu);
Launch ImageConvLaunch(Maps maps, ImageConvParams params, const DeviceInfo& gpu);
Launch DownsampleLaunch(int C, Maps maps, DownsampleParams params, const DeviceInfo& gpu);
Launch UpsampleFuseLaunch(int C, Maps maps, UpsampleFuseParams params, const DeviceInfo& gpu);

// How many parts of S an image of this size gives where the kernel that writes it leaves them, in
// its parameters' partials if these are not null.
int ConvParts(Maps maps, int height, int width, const DeviceInfo& gpu);
int DownsampleParts(int height, int width);  // to 64 channels
int UpsampleFuseParts(int C, Maps maps, int height, int width, const DeviceInfo& gpu);

// The most shared memory that a block of any of these takes.
int FusedSharedBytes(Maps maps);

// How many parts of S an image of so many pixels gives by gram: from its size only.
int GramBlocks(int C, int pixels);
Launch GramLaunch(int C, GramParams params);
Launch GramReduceLaunch(GramReduceParams params);
Launch Gram16ReduceLaunch(int C, GramParts parts, GramReduceParams params, const DeviceInfo& gpu);
Launch AttentionLogitsLaunch(AttentionParams params, const DeviceInfo& gpu);
Launch AttentionMatrixLaunch(MatrixForm form, AttentionParams params, const DeviceInfo& gpu);

// x + d + X M' + b_proj for one image, which otherwise only exists inside the feed-forward kernel.
// With split maps x and y have their rests `rests` halves further on, else that is 0.
struct AttentionTapParams {
  const void *x, *d, *matrix;
  bool bricks;  // M's form
  void* y;
  int C, pixels;
  size_t rests;
};
Launch AttentionTapLaunch(const AttentionTapParams& params);

}  // namespace mstpp::cuda
