// SPDX-License-Identifier: Apache-2.0
#include "bench_tensors.h"

#include <fmt/format.h>

#include <random>

#include "command.h"

namespace mstpp::cli {

BenchTensors MakeTensors(const Config& config, const std::optional<Image>& picture, Size& size,
                         int batch) {
  BenchTensors t;
  if (picture && picture->channels != config.in_channels) {
    throw UsageError(fmt::format("--input: the picture has {} channels, the network wants {}",
                                 picture->channels, config.in_channels));
  }
  if (picture) size = {picture->height, picture->width};
  const int64_t pixels = size.height * size.width;
  t.input.resize(static_cast<size_t>(batch * config.in_channels * pixels));
  t.output.resize(static_cast<size_t>(batch * config.bands * pixels));
  if (picture) {
    for (size_t i = 0; i < t.input.size(); ++i) {
      t.input[i] = picture->data[i % picture->data.size()] / picture->white;
    }
  } else {
    std::mt19937 generator(1);
    for (float& v : t.input) v = static_cast<float>(generator() >> 8) * 0x1p-24f;
  }
  t.in = TensorView::Nchw(t.input.data(), batch, config.in_channels, size.height, size.width);
  t.out = MutableTensorView::Nchw(t.output.data(), batch, config.bands, size.height, size.width);
  return t;
}

}  // namespace mstpp::cli
