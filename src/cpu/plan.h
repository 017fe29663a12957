// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/map.h"
#include "model/graph.h"

namespace mstpp::cpu {

// A map cut into tiles. The cut depends on the map's size alone, never on the number of threads:
// partial sums over tiles are then the same however the tiles are shared out.
class TileGrid {
 public:
  TileGrid() = default;
  TileGrid(ptrdiff_t height, ptrdiff_t width);
  size_t count() const { return rows_ * columns_; }
  Tile tile(size_t i) const;

 private:
  ptrdiff_t height_ = 0, width_ = 0;
  ptrdiff_t tile_height_ = 0, tile_width_ = 0;
  size_t rows_ = 0, columns_ = 0;
};

// Where each value of the graph lies in one arena, for one padded size. Values share memory when
// their lives do not overlap; a residual or skip that dies is overwritten in place.
struct Plan {
  static constexpr size_t kNone = static_cast<size_t>(-1);

  // `recomputed`: a value that the last node computes again as its residual, or -1.
  Plan(const Graph& graph, size_t height, size_t width, size_t panel, int recomputed);

  Map MapOf(const Graph& graph, int value, float* arena) const;

  size_t height = 0, width = 0, panel = 0;
  std::vector<size_t> offsets;  // of values; kNone for the graph's input and output
  size_t arena_floats = 0;
};

}  // namespace mstpp::cpu
