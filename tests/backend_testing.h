// SPDX-License-Identifier: Apache-2.0
// Arrays, golden data and runs of a backend, for the tests of every backend.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/registry.h"
#include "io/npy.h"

namespace mstpp::testing {

// N x C x H x W.
struct Array {
  int64_t n = 0, c = 0, h = 0, w = 0;
  std::vector<float> data;

  Array() = default;
  Array(int64_t n_, int64_t c_, int64_t h_, int64_t w_)
      : n(n_), c(c_), h(h_), w(w_), data(static_cast<size_t>(n_ * c_ * h_ * w_)) {}
  TensorView view() const { return TensorView::Nchw(data.data(), n, c, h, w); }
  MutableTensorView view() { return MutableTensorView::Nchw(data.data(), n, c, h, w); }
};

inline std::string GoldenPath(const std::string& name) {
  return std::string(MSTPP_TEST_DATA) + "/golden/" + name;
}

inline Array ReadGolden(const std::string& name) {
  NpyReader reader(GoldenPath(name));
  const std::vector<int64_t>& shape = reader.shape();
  Array array(shape.at(0), shape.at(1), shape.at(2), shape.at(3));
  reader.Read(array.data.data(), reader.elements());
  return array;
}

inline Array RandomArray(int64_t n, int64_t c, int64_t h, int64_t w, unsigned seed) {
  Array array(n, c, h, w);
  std::mt19937 generator(seed);
  for (float& v : array.data) v = static_cast<float>(generator() >> 8) * 0x1p-24f;
  return array;
}

inline double LargestMagnitude(const std::vector<float>& values) {
  double largest = 0;
  for (float v : values) largest = std::max(largest, std::abs(static_cast<double>(v)));
  return largest;
}

// Infinity if anything is not finite: NaN never passes.
inline double LargestError(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double error = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(error <= largest)) largest = error;
    if (std::isnan(error)) return INFINITY;
  }
  return largest;
}

inline std::unique_ptr<Backend> MakeBackend(const std::string& device, const Model& model,
                                            int threads = 0) {
  Options options;
  options.device = device;
  options.threads = threads;
  const DeviceChoice choice = ChooseDevice(Backends(), device, options.precision);
  return choice.entry->create(model, options, choice.index);
}

// Output poisoned with NaN first, so that a value left unwritten shows.
inline Array RunBackend(const Backend& backend, const Model& model, const Array& input,
                        Padding padding = Padding::kReflect) {
  Array output(input.n, model.config().bands, input.h, input.w);
  std::fill(output.data.begin(), output.data.end(), NAN);
  const std::unique_ptr<Scratch> scratch = backend.NewScratch();
  backend.Run(input.view(), output.view(), padding, *scratch);
  return output;
}

}  // namespace mstpp::testing
