// SPDX-License-Identifier: Apache-2.0
// The text header of an ENVI raster.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mstpp/cube.h"

namespace mstpp {

enum class Interleave { kBsq, kBil, kBip };  // band, line or pixel after one another

// What a header says, as far as a cube needs it.
struct EnviHeader {
  int64_t samples = 0, lines = 0, bands = 0;  // width, height, bands
  uint64_t header_offset = 0;                 // bytes in the data file before the numbers
  int data_type = 0;                          // ENVI's number for it: 4 is float32
  Interleave interleave = Interleave::kBsq;
  bool big_endian = false;
  std::vector<double> wavelengths_nm;  // empty if not given in a unit of length
  Provenance provenance;               // from a description that FormatEnviHeader wrote
};

// Bytes of one number of an ENVI data type; 0 if it is not read.
int EnviTypeBytes(int data_type);

// Throws Error (kCorrupt, kUnsupported) naming `path` and the field.
EnviHeader ParseEnviHeader(const std::string& path, std::string_view text);

// The header of the cube as BSQ float32, little-endian.
std::string FormatEnviHeader(const Cube& cube);

}  // namespace mstpp
