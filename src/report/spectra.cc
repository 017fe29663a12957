// SPDX-License-Identifier: Apache-2.0
#include "report/spectra.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "mstpp/error.h"

namespace mstpp {
namespace {

constexpr double kSameNm = 0.01;

bool Same(const std::vector<double>& a, const std::vector<double>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](double x, double y) { return std::abs(x - y) < kSameNm; });
}

// A wanted wavelength between two bands of the cube.
struct Mix {
  size_t low = 0, high = 0;
  double share = 0;  // of `high`
};

std::vector<Mix> Mixes(const Cube& cube, const std::vector<double>& wanted) {
  const std::vector<double>& nm = cube.wavelengths_nm;
  std::vector<size_t> order(nm.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return nm[a] < nm[b]; });
  const double first = nm[order.front()], last = nm[order.back()];
  std::vector<Mix> mixes;
  for (const double at : wanted) {
    if (at < first - kSameNm || at > last + kSameNm) {
      throw Error(ErrorCode::kInvalidArgument, cube.provenance.source,
                  fmt::format("its bands, from {} to {} nm, do not reach the {} nm that the "
                              "weights reconstruct",
                              first, last, at));
    }
    const auto above =
        std::find_if(order.begin(), order.end(), [&](size_t b) { return nm[b] >= at; });
    Mix mix;
    mix.high = above == order.end() ? order.back() : *above;
    mix.low = above == order.begin() ? order.front() : *(above - 1);
    const double gap = nm[mix.high] - nm[mix.low];
    mix.share = gap > 0 ? std::clamp((at - nm[mix.low]) / gap, 0., 1.) : 1;
    mixes.push_back(mix);
  }
  return mixes;
}

}  // namespace

Cube AtWavelengths(Cube cube, int bands, const std::vector<double>& wavelengths_nm) {
  if (cube.wavelengths_nm.empty() || wavelengths_nm.empty()) {
    if (cube.bands != bands) {
      throw Error(ErrorCode::kInvalidArgument, cube.provenance.source,
                  fmt::format("has {} bands and the weights reconstruct {}; which belong together "
                              "is unknown, since {} not say their wavelengths",
                              cube.bands, bands,
                              cube.wavelengths_nm.empty() ? "the cube's do" : "the weights' do"));
    }
    cube.wavelengths_nm = wavelengths_nm;
    return cube;
  }
  if (Same(cube.wavelengths_nm, wavelengths_nm)) return cube;
  const std::vector<Mix> mixes = Mixes(cube, wavelengths_nm);
  const int64_t pixels = cube.pixels();
  std::vector<float> data(mixes.size() * static_cast<size_t>(pixels));
  float* out = data.data();
  for (const Mix& mix : mixes) {
    const float* low = cube.data.data() + static_cast<int64_t>(mix.low) * pixels;
    const float* high = cube.data.data() + static_cast<int64_t>(mix.high) * pixels;
    for (int64_t i = 0; i < pixels; ++i) {
      *out++ = static_cast<float>((1 - mix.share) * low[i] + mix.share * high[i]);
    }
  }
  cube.data = std::move(data);
  cube.bands = static_cast<int64_t>(mixes.size());
  cube.wavelengths_nm = wavelengths_nm;
  return cube;
}

}  // namespace mstpp
