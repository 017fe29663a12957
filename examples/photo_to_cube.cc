// SPDX-License-Identifier: Apache-2.0
// photo_to_cube PHOTO CUBE: the shortest useful program. It also stands in README.md.
#include <mstpp/mstpp.h>

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    const mstpp::Engine engine(mstpp::Model::Default(), {.device = "auto"});
    const mstpp::Cube cube = engine.Run(mstpp::ReadImage(argv[1]));
    mstpp::WriteCube(argv[2], cube);  // .mat, .hdr (ENVI), .npy or .tif
  } catch (const mstpp::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
