// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>

namespace mstpp::cpu {

// A feature map: height x width x channels, float32. Channels are padded to the panel width with
// zeros, and a border of one pixel of zeros surrounds the map, so that 3x3 and 4x4 convolutions
// need no special case at the edges.
struct Map {
  float* data = nullptr;  // pixel (0, 0)
  ptrdiff_t height = 0, width = 0;
  size_t channels = 0;
  size_t pixel = 0;  // floats from a pixel to the next: the padded channels
  size_t row = 0;    // floats from a row to the next

  float* at(ptrdiff_t y, ptrdiff_t x) const {
    return data + y * static_cast<ptrdiff_t>(row) + x * static_cast<ptrdiff_t>(pixel);
  }
};

inline size_t MapFloats(size_t height, size_t width, size_t pixel) {
  return (height + 2) * (width + 2) * pixel;
}

// A map over `memory` of MapFloats floats; its border is not yet zero.
inline Map MakeMap(float* memory, size_t height, size_t width, size_t channels, size_t pixel) {
  Map map;
  map.height = static_cast<ptrdiff_t>(height);
  map.width = static_cast<ptrdiff_t>(width);
  map.channels = channels;
  map.pixel = pixel;
  map.row = (width + 2) * pixel;
  map.data = memory + map.row + pixel;
  return map;
}

inline void ZeroBorder(const Map& map) {
  const size_t row_bytes = map.row * sizeof(float);
  std::memset(map.at(-1, -1), 0, row_bytes);
  std::memset(map.at(map.height, -1), 0, row_bytes);
  for (ptrdiff_t y = 0; y < map.height; ++y) {
    std::memset(map.at(y, -1), 0, map.pixel * sizeof(float));
    std::memset(map.at(y, map.width), 0, map.pixel * sizeof(float));
  }
}

// Part of a map that one thread works on.
struct Tile {
  ptrdiff_t y0 = 0, y1 = 0, x0 = 0, x1 = 0;
  size_t width() const { return static_cast<size_t>(x1 - x0); }
};

// The most columns of a tile: three rows of hidden channels then stay in the L1 or L2 cache.
inline constexpr size_t kTileWidth = 64;

}  // namespace mstpp::cpu
