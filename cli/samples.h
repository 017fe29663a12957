// SPDX-License-Identifier: Apache-2.0
// What `mstpp accuracy` measures on: pictures, and the cubes that are their truth.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "mstpp/cube.h"
#include "mstpp/image.h"
#include "mstpp/model.h"

namespace mstpp::cli {

struct SampleRequest {
  std::vector<std::string> inputs;  // files and folders
  std::string list;                 // a file that names more, a line each
  std::string truth;                // folder of the pictures' cubes
  bool cubes = false;               // TIFF inputs are cubes
  double white = 1;                 // value of the cubes that is full scale
};

struct Sample {
  std::string path;
  bool is_cube = false;  // its own truth; the picture is rendered from it
};

struct Samples {
  std::vector<Sample> items;
  std::vector<std::string> skipped;  // files of folders that are neither picture nor cube
};

// Folders give their pictures and cubes, sorted by name, without those in folders below and hidden
// ones; with `request.truth` only pictures. Throws Error: a folder or list that cannot be read or
// gives nothing; UsageError: a folder of both kinds.
Samples FindSamples(const SampleRequest& request);

struct LoadedSample {
  Image image;
  std::optional<Cube> truth;  // at the model's wavelengths, full scale 1
};

// Throws Error.
LoadedSample LoadSample(const Sample& sample, const SampleRequest& request, const Model& model);

// A hash of all that LoadSample reads. Throws Error.
std::string HashSample(const Sample& sample, const SampleRequest& request);

}  // namespace mstpp::cli
