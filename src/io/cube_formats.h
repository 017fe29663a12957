// SPDX-License-Identifier: Apache-2.0
// One writer and one reader a format; cube.cc chooses among them. Writers take a valid cube
// (CheckCube) and the names from CubePaths; readers return one. All throw Error.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mstpp/cube.h"

namespace mstpp {

void WriteMat(const std::string& path, const Cube& cube);
Cube ReadMat(const std::string& path);

void WriteEnvi(const std::string& data_path, const std::string& header_path, const Cube& cube);
Cube ReadEnvi(const std::string& data_path, const std::string& header_path);
// The other half of an ENVI pair, by the usual names; empty if there is none.
std::string FindEnviData(const std::string& header_path);
std::string FindEnviHeader(const std::string& data_path);

void WriteNpyCube(const std::string& path, const std::string& json_path, const Cube& cube);
Cube ReadNpyCube(const std::string& path);

void WriteTiffCube(const std::string& path, const Cube& cube);
Cube ReadTiffCube(const std::string& path);

// `path` with what follows the last dot of its file name replaced: ("a/b.npy", ".json") gives
// "a/b.json".
std::string ReplaceExtension(const std::string& path, const std::string& extension);

// How many numbers a cube of this shape holds, all at least 1. Throws Error (kCorrupt) if a side
// is not positive or they would not fit in memory's address space.
uint64_t CubeElements(const std::string& path, int64_t bands, int64_t height, int64_t width);

// Sets the shape and allocates the numbers. Call it when the file is known to hold them.
void Allocate(const std::string& path, int64_t bands, int64_t height, int64_t width, Cube* cube);

}  // namespace mstpp
