// SPDX-License-Identifier: Apache-2.0
// The portable kernels, ready to launch, for one storage type.
#pragma once

#include "cuda/kernels/io.cuh"
#include "cuda/kernels/portable.cuh"
#include "cuda/launch.cuh"

namespace mstpp::cuda::portable {

template <int kN, class Loader, class Writer>
struct ProductParams {
  ProductSize size;
  const float* weights;
  Loader loader;
  Writer writer;
};

template <int kN, class Loader, class Writer>
__global__ void __launch_bounds__(kProductPixels)
    ProductKernel(const __grid_constant__ ProductParams<kN, Loader, Writer> p) {
  PixelProduct<kN>(p.size, p.weights, p.loader, p.writer);
}

template <class Loader, class Writer>
Launch ProductLaunch(const ProductSize& size, const float* weights, const Loader& loader,
                     const Writer& writer) {
  const auto bind = [&]<int kN>() {
    using Params = ProductParams<kN, Loader, Writer>;
    const Kernel<Params> kernel{ProductKernel<kN, Loader, Writer>, kProductPixels,
                                kProductShared<kN>};
    kernel.Prepare();
    const int pixels = size.images * size.height * size.width;
    return kernel.Bind(CeilDivide(pixels, kProductPixels) * CeilDivide(size.outputs, kN),
                       Params{size, weights, loader, writer});
  };
  return size.outputs > 32 ? bind.template operator()<64>() : bind.template operator()<32>();
}

template <class T>
struct DepthwiseParams {
  Map<const T> x;
  const float* weights;
  T* y;
};
template <class T>
__global__ void __launch_bounds__(128)
    DepthwiseGeluKernel(const __grid_constant__ DepthwiseParams<T> p) {
  DepthwiseGeluBody(p.x, p.weights, p.y);
}
template <class T>
Launch DepthwiseGeluLaunch(const DepthwiseParams<T>& p) {
  const Kernel<DepthwiseParams<T>> kernel{DepthwiseGeluKernel<T>, 128, 0};
  return kernel.Bind(CeilDivide(p.x.images * p.x.height * p.x.width * (p.x.stride / kSlab), 128),
                     p);
}

template <class T>
struct GramSumParams {
  Map<const T> x;
  float* partials;
  int blocks;
};
template <class T>
__global__ void __launch_bounds__(256) GramSumKernel(const __grid_constant__ GramSumParams<T> p) {
  GramSumBody(p.x, p.partials, p.blocks);
}
template <class T>
Launch GramSumLaunch(const GramSumParams<T>& p) {
  const Kernel<GramSumParams<T>> kernel{GramSumKernel<T>, 256, 2 * kSlab * 64 * 4};
  const int tiles = CeilDivide(p.x.stride, 64);
  return kernel.Bind(tiles * tiles * p.blocks * p.x.images, p);
}

// The picture, padded, as a feature map; and a feature map, cropped, as the cube.
template <class T>
struct ConvertParams {
  const NetworkIo* io;
  Map<T> map;
  int channels;
};
template <class T>
__global__ void __launch_bounds__(256)
    ReadPictureKernel(const __grid_constant__ ConvertParams<T> p) {
  const size_t index = static_cast<size_t>(blockIdx.x) * 256 + threadIdx.x;
  const size_t pixel = index / p.map.stride;
  const int channel = static_cast<int>(index % p.map.stride);
  if (pixel >= static_cast<size_t>(p.map.images) * p.map.height * p.map.width) return;
  const int row = static_cast<int>(pixel / p.map.width), x = static_cast<int>(pixel % p.map.width);
  const NetworkIo& io = *p.io;
  float value = 0.0f;
  if (channel < p.channels) {
    value = ReadImage(io, io.image + row / p.map.height * io.image_stride[0], channel,
                      row % p.map.height, x, p.map.height, p.map.width);
  }
  StoreOne(p.map.data + index, value);
}
template <class T>
Launch ReadPictureLaunch(const ConvertParams<T>& p) {
  const Kernel<ConvertParams<T>> kernel{ReadPictureKernel<T>, 256, 0};
  return kernel.Bind(CeilDivide(p.map.images * p.map.height * p.map.width * p.map.stride, 256), p);
}

// Writes the sums, plus a residual, straight to the cube.
template <class T>
struct WriteCube {
  const NetworkIo* io;
  Map<const T> residual;
  int channels;
  template <int kCount>
  MSTPP_DEVICE void Write(const Pixel& p, int n, const float (&sum)[kCount]) const {
    if (p.y >= io->cube_height || p.x >= io->cube_width) return;
    float* at = io->cube + p.image * io->cube_stride[0] + p.y * io->cube_stride[2] +
                p.x * io->cube_stride[3];
    const T* more = residual.At(p.image, p.y, p.x) + n;
    MSTPP_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (n + i < channels) at[(n + i) * io->cube_stride[1]] = sum[i] + LoadOne(more + i);
    }
  }
};

}  // namespace mstpp::cuda::portable
