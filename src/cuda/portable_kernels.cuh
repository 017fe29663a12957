// SPDX-License-Identifier: Apache-2.0
// The portable kernels, ready to launch, for one storage type and number of terms.
#pragma once

#include "cuda/kernels/io.cuh"
#include "cuda/kernels/portable_conv.cuh"
#include "cuda/kernels/portable_feed_forward.cuh"
#include "cuda/kernels/portable_gram.cuh"
#include "cuda/kernels/portable_position.cuh"
#include "cuda/kernels/portable_product.cuh"
#include "cuda/launch.cuh"

namespace mstpp::cuda::portable {

template <class Loader, class Writer>
struct ProductParams {
  ProductSize size;
  const float* weights;
  Loader loader;
  Writer writer;
};

template <int kTerms, int kN, class Loader, class Writer>
__global__ void __launch_bounds__(kProductPixels)
    ProductKernel(const __grid_constant__ ProductParams<Loader, Writer> p) {
  PixelProduct<kTerms, kN>(p.size, p.weights, p.loader, p.writer);
}

template <int kTerms, class Loader, class Writer>
Launch ProductLaunch(const ProductSize& size, const float* weights, const Loader& loader,
                     const Writer& writer) {
  const auto bind = [&]<int kN>() {
    using Params = ProductParams<Loader, Writer>;
    const Kernel<Params> kernel{ProductKernel<kTerms, kN, Loader, Writer>, kProductPixels,
                                ProductShape<kN>::kSharedBytes};
    kernel.Prepare();
    return kernel.Bind(size.groups * size.BlocksOfGroup(kN), Params{size, weights, loader, writer});
  };
  return size.outputs > 32 ? bind.template operator()<64>() : bind.template operator()<32>();
}

template <class T, class Writer>
struct ConvParams {
  ProductSize size;  // inputs: of all taps
  Map<const T> x;
  const float* weights;
  Writer writer;
};
template <int kTerms, int kN, int kSize, int kStride, class T, class Writer>
__global__ void __launch_bounds__(Tile::kThreads, kN == 32 ? 3 : 2)
    TileConvKernel(const __grid_constant__ ConvParams<T, Writer> p) {
  TileConv<kTerms, kN, kSize, kStride>(p.size, p.x, p.weights, p.writer);
}
template <int kTerms, int kSize, int kStride, class T, class Writer>
Launch ConvLaunch(const ProductSize& size, const Map<const T>& x, const float* weights,
                  const Writer& writer) {
  const auto bind = [&]<int kN>() {
    using Params = ConvParams<T, Writer>;
    using Shape = ConvShape<kTerms, kN, kSize, kStride>;
    const Kernel<Params> kernel{TileConvKernel<kTerms, kN, kSize, kStride, T, Writer>,
                                Shape::kThreads, Shape::kSharedBytes};
    kernel.Prepare();
    return kernel.Bind(
        Tile::Count(size.images, size.height, size.width) * CeilDivide(size.outputs, kN),
        Params{size, x, weights, writer});
  };
  return size.outputs > 32 ? bind.template operator()<64>() : bind.template operator()<32>();
}

template <int kTerms, int kC, class T>
__global__ void __launch_bounds__(FeedForwardShape<kTerms, kC>::kThreads, kC == 32   ? 3
                                                                          : kC == 64 ? 2
                                                                                     : 1)
    TileFeedForwardKernel(const __grid_constant__ FeedForwardParams<T> p) {
  TileFeedForward<kTerms, kC, T>(p).Run();
}
template <int kTerms, class T>
Launch FeedForwardLaunch(const FeedForwardParams<T>& p) {
  const auto bind = [&]<int kC>() {
    using Shape = FeedForwardShape<kTerms, kC>;
    const Kernel<FeedForwardParams<T>> kernel{TileFeedForwardKernel<kTerms, kC, T>, Shape::kThreads,
                                              Shape::kSharedBytes};
    kernel.Prepare();
    return kernel.Bind(Tile::Count(p.x.images, p.x.height, p.x.width), p);
  };
  switch (FeedForwardWidth(p.channels)) {
    case 32:
      return bind.template operator()<32>();
    case 64:
      return bind.template operator()<64>();
    default:
      return bind.template operator()<128>();
  }
}

template <class T>
__global__ void __launch_bounds__(Tile::kThreads)
    PositionKernel(const __grid_constant__ PositionParams<T> p) {
  PositionBody(p);
}
template <class T>
Launch PositionLaunch(const PositionParams<T>& p) {
  using Shape = PositionShape;
  const Kernel<PositionParams<T>> kernel{PositionKernel<T>, Shape::kThreads, Shape::kSharedBytes};
  return kernel.Bind(Tile::Count(p.v.images, p.v.height, p.v.width) * (p.v.stride / kSlab), p);
}

template <class T>
struct GramSumParams {
  Map<const T> x;
  float* partials;
  int blocks;
};
template <int kTerms, int kTile, class T>
__global__ void __launch_bounds__(GramSumShape<kTile>::kThreads)
    GramSumKernel(const __grid_constant__ GramSumParams<T> p) {
  GramSumBody<kTerms, kTile>(p.x, p.partials, p.blocks);
}
template <int kTerms, class T>
Launch GramSumLaunch(const GramSumParams<T>& p) {
  const auto bind = [&]<int kTile>() {
    using Shape = GramSumShape<kTile>;
    const Kernel<GramSumParams<T>> kernel{GramSumKernel<kTerms, kTile, T>, Shape::kThreads,
                                          Shape::kSharedBytes};
    return kernel.Bind(Shape::Tiles(p.x.stride) * p.blocks * p.x.images, p);
  };
  return p.x.stride > 32 ? bind.template operator()<64>() : bind.template operator()<32>();
}

// The picture, padded, as a feature map.
template <class T>
struct ConvertParams {
  const NetworkIo* io;
  Map<T> map;
  int channels;
};
template <class T>
__global__ void __launch_bounds__(256)
    ReadPictureKernel(const __grid_constant__ ConvertParams<T> p) {
  const int pixel = static_cast<int>(blockIdx.x) * 256 + static_cast<int>(threadIdx.x);
  if (pixel >= p.map.images * p.map.height * p.map.width) return;
  const int row = pixel / p.map.width, x = pixel % p.map.width;
  const int image = row / p.map.height, y = row % p.map.height;
  const NetworkIo& io = *p.io;
  const float* from = io.image + image * io.image_stride[0];
  for (int c = 0; c < p.map.stride; c += 4) {
    Four v;
    MSTPP_UNROLL
    for (int i = 0; i < 4; ++i) {
      v.v[i] =
          c + i < p.channels ? ReadImage(io, from, c + i, y, x, p.map.height, p.map.width) : 0.0f;
    }
    StoreFour(p.map.At(image, y, x) + c, v);
  }
}
template <class T>
Launch ReadPictureLaunch(const ConvertParams<T>& p) {
  const Kernel<ConvertParams<T>> kernel{ReadPictureKernel<T>, 256, 0};
  return kernel.Bind(CeilDivide(p.map.images * p.map.height * p.map.width, 256), p);
}

}  // namespace mstpp::cuda::portable
