// SPDX-License-Identifier: Apache-2.0
#include "cpu/plan.h"

#include <algorithm>

#include "model/padding.h"

namespace mstpp::cpu {
namespace {

// Enough tiles for the threads of a large machine, but tall ones: each begins by computing rows
// that the tile above computes too.
constexpr ptrdiff_t kWantedTiles = 32;
constexpr ptrdiff_t kLeastTileHeight = 16;
constexpr ptrdiff_t kMostTileHeight = 64;

constexpr ptrdiff_t DivideUp(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

// The length of equal, even pieces of at most `most` that cover `n`.
ptrdiff_t EvenPiece(ptrdiff_t n, ptrdiff_t most) {
  return RoundUp(DivideUp(n, DivideUp(n, most)), 2);
}

struct Block {
  size_t offset, size;
};

// First fit between the blocks in use.
size_t Allocate(std::vector<Block>& used, size_t size) {
  size_t offset = 0;
  auto it = used.begin();
  for (; it != used.end() && offset + size > it->offset; ++it) offset = it->offset + it->size;
  used.insert(it, {offset, size});
  return offset;
}

void Free(std::vector<Block>& used, size_t offset) {
  used.erase(std::find_if(used.begin(), used.end(),
                          [&](const Block& block) { return block.offset == offset; }));
}

}  // namespace

TileGrid::TileGrid(ptrdiff_t height, ptrdiff_t width) : height_(height), width_(width) {
  tile_width_ = EvenPiece(width, kTileWidth);
  columns_ = static_cast<size_t>(DivideUp(width, tile_width_));
  const ptrdiff_t wanted = height * static_cast<ptrdiff_t>(columns_) / kWantedTiles;
  tile_height_ = EvenPiece(height, std::clamp(wanted, kLeastTileHeight, kMostTileHeight));
  rows_ = static_cast<size_t>(DivideUp(height, tile_height_));
}

Tile TileGrid::tile(size_t i) const {
  const auto row = static_cast<ptrdiff_t>(i / columns_) * tile_height_;
  const auto column = static_cast<ptrdiff_t>(i % columns_) * tile_width_;
  return {row, std::min(row + tile_height_, height_), column,
          std::min(column + tile_width_, width_)};
}

Plan::Plan(const Graph& graph, size_t full_height, size_t full_width, size_t panel_width,
           int recomputed)
    : height(full_height),
      width(full_width),
      panel(panel_width),
      offsets(graph.values.size(), kNone) {
  std::vector<size_t> last_use(graph.values.size(), 0);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    last_use[node.input] = n;
    const bool last = n + 1 == graph.nodes.size();
    if (node.extra >= 0 && !(last && node.extra == recomputed)) last_use[node.extra] = n;
  }
  std::vector<Block> used;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    const bool extra_dies =
        node.extra >= 0 && offsets[node.extra] != kNone && last_use[node.extra] == n;
    if (node.output == graph.output) {
      // Goes to the caller's planes.
    } else if (extra_dies) {
      offsets[node.output] = offsets[node.extra];
    } else {
      const Value& value = graph.values[node.output];
      const size_t floats = MapFloats(height >> value.level, width >> value.level,
                                      RoundUp(static_cast<int64_t>(value.channels), panel));
      constexpr size_t kPageFloats = 1024;
      offsets[node.output] = Allocate(used, RoundUp(static_cast<int64_t>(floats), kPageFloats));
      arena_floats = std::max(arena_floats, used.back().offset + used.back().size);
    }
    if (offsets[node.input] != kNone && last_use[node.input] == n) {
      Free(used, offsets[node.input]);
    }
  }
}

Map Plan::MapOf(const Graph& graph, int value, float* arena) const {
  const Value& v = graph.values[value];
  const auto channels = static_cast<size_t>(v.channels);
  return MakeMap(arena + offsets[value], height >> v.level, width >> v.level, channels,
                 static_cast<size_t>(RoundUp(v.channels, static_cast<int64_t>(panel))));
}

}  // namespace mstpp::cpu
