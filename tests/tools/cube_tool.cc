// SPDX-License-Identifier: Apache-2.0
// For tests/python/test_cube_files.py, which compares the library with other readers and writers.
//
//   cube_tool write FILE BANDS HEIGHT WIDTH   writes the cube of cube_testing.h
//   cube_tool read FILE RAW                   its numbers to RAW, float32, bands x height x width;
//                                             prints its shape and metadata as JSON
#include <exception>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "cube_testing.h"
#include "io/metadata.h"

namespace {

int Run(const std::vector<std::string>& words) {
  using namespace mstpp;  // NOLINT(google-build-using-namespace)
  if (words.size() == 5 && words[0] == "write") {
    Cube cube = MakeCube(std::stoll(words[2]), std::stoll(words[3]), std::stoll(words[4]));
    cube.provenance = MakeProvenance();
    WriteCube(words[1], cube);
    return 0;
  }
  if (words.size() == 3 && words[0] == "read") {
    const Cube cube = ReadCube(words[1]);
    std::ofstream raw(words[2], std::ios::binary);
    raw.write(reinterpret_cast<const char*>(cube.data.data()),
              static_cast<std::streamsize>(cube.data.size() * sizeof(float)));
    auto json = nlohmann::ordered_json::parse(MetadataToText(cube, -1));
    json["shape"] = {cube.bands, cube.height, cube.width};
    std::cout << json << "\n";
    return raw.flush() ? 0 : 1;
  }
  std::cerr << "usage: cube_tool write FILE BANDS HEIGHT WIDTH | read FILE RAW\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
