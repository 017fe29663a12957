// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mstpp {

// How a cube was made. Written into every file; empty fields are left out.
struct Provenance {
  std::string version;                         // of mstpp
  std::string source;                          // the picture
  std::string weights;                         // name of the weights
  std::string weights_sha256;                  // of the weights' file
  std::string backend;                         // the backend that really ran
  std::string device;                          // e.g. "AMD EPYC, AVX2, 2 threads"
  std::string precision;                       // the precision that really ran
  std::string scaling;                         // minmax, unit, none
  std::optional<double> scale_min, scale_max;  // counts mapped to 0 and 1
  std::string padding;                         // reflect, zero
  std::string ensemble;                        // none, mean, median
  std::optional<bool> clipped;                 // to [0, 1]
};

// A hyperspectral cube.
struct Cube {
  int64_t width = 0;
  int64_t height = 0;
  int64_t bands = 0;
  std::vector<float> data;             // planar, bands x height x width
  std::vector<double> wavelengths_nm;  // one a band; empty if the weights do not say
  Provenance provenance;

  int64_t pixels() const { return width * height; }
};

// Writes by extension: .mat (v7.3), .hdr or .img (ENVI), .npy (with a .json beside it), .tif/.tiff.
// Goes through a temporary file in the same folder, synced and renamed: an old file stays whole
// until the new one is complete. Throws Error (kInvalidArgument, kIo).
void WriteCube(const std::string& path, const Cube& cube);

// The files that WriteCube(path) makes, in the order in which they appear: the last one is new only
// when all are. Throws Error (kInvalidArgument) for an extension of no cube format.
std::vector<std::string> CubePaths(const std::string& path);

// Reads what WriteCube writes, and cubes of other origin in the same formats where their layout
// is unambiguous. Throws Error (kNotFound, kIo, kCorrupt, kUnsupported).
Cube ReadCube(const std::string& path);

}  // namespace mstpp
