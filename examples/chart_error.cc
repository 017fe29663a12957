// SPDX-License-Identifier: Apache-2.0
// chart_error CUBE TRUTH.csv: how far a cube is from known spectra, patch by patch. The table has a
// line for each patch: its name, its pixels x0 <= x < x1 and y0 <= y < y1, and its spectrum at the
// wavelengths that the heading gives.
//   MRAE  mean of |p - g| / g         RMSE  square root of the mean of (p - g)^2
//   SAM   angle between the spectra as vectors, in degrees, mean over the pixels
#include <mstpp/mstpp.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <numbers>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Patch {
  std::string name;
  int64_t x0 = 0, y0 = 0, x1 = 0, y1 = 0;
  std::vector<double> spectrum;
};

struct Truth {
  std::vector<double> wavelengths_nm;
  std::vector<Patch> patches;
};

struct PatchError {
  double mrae = 0, rmse = 0, sam = 0;
};

constexpr int kColumnsBeforeSpectrum = 5;

std::vector<std::string> Split(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) cells.push_back(cell);
  return cells;
}

Truth ReadTruth(const char* path) {
  Truth truth;
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const std::vector<std::string> heading = Split(line);
  for (size_t i = kColumnsBeforeSpectrum; i < heading.size(); ++i) {
    truth.wavelengths_nm.push_back(std::stod(heading[i]));
  }
  while (std::getline(file, line)) {
    const std::vector<std::string> cells = Split(line);
    if (cells.size() != heading.size()) throw std::runtime_error("a line of another length");
    Patch patch{cells[0],
                std::stol(cells[1]),
                std::stol(cells[2]),
                std::stol(cells[3]),
                std::stol(cells[4]),
                {}};
    for (size_t i = kColumnsBeforeSpectrum; i < cells.size(); ++i) {
      patch.spectrum.push_back(std::stod(cells[i]));
    }
    truth.patches.push_back(patch);
  }
  if (truth.patches.empty()) throw std::runtime_error("no patches");
  return truth;
}

PatchError Compare(const mstpp::Cube& cube, const Patch& patch) {
  if (patch.x0 < 0 || patch.y0 < 0 || patch.x0 >= patch.x1 || patch.y0 >= patch.y1 ||
      patch.x1 > cube.width || patch.y1 > cube.height) {
    throw std::runtime_error(patch.name + " lies outside the cube");
  }
  PatchError sum;
  for (int64_t y = patch.y0; y < patch.y1; ++y) {
    for (int64_t x = patch.x0; x < patch.x1; ++x) {
      double pp = 0, gg = 0, pg = 0;
      for (int64_t band = 0; band < cube.bands; ++band) {
        const double p = cube.data[band * cube.pixels() + y * cube.width + x];
        const double g = patch.spectrum[band];
        sum.mrae += std::abs(p - g) / g;
        sum.rmse += (p - g) * (p - g);
        pp += p * p;
        gg += g * g;
        pg += p * g;
      }
      const double cosine = pg / std::sqrt(pp * gg);
      sum.sam += std::acos(std::min(cosine, 1.0)) * 180 / std::numbers::pi;
    }
  }
  const auto pixels = static_cast<double>((patch.x1 - patch.x0) * (patch.y1 - patch.y0));
  const double values = pixels * static_cast<double>(cube.bands);
  return {sum.mrae / values, std::sqrt(sum.rmse / values), sum.sam / pixels};
}

void Report(const mstpp::Cube& cube, const Truth& truth) {
  std::printf("%-16s %8s %8s %8s\n", "patch", "MRAE", "RMSE", "SAM");
  PatchError mean;
  const auto count = static_cast<double>(truth.patches.size());
  for (const Patch& patch : truth.patches) {
    const PatchError error = Compare(cube, patch);
    std::printf("%-16s %8.3f %8.4f %7.1f\u00b0\n", patch.name.c_str(), error.mrae, error.rmse,
                error.sam);
    mean.mrae += error.mrae / count;
    mean.rmse += error.rmse / count;
    mean.sam += error.sam / count;
  }
  std::printf("%-16s %8.3f %8.4f %7.1f\u00b0\n", "mean", mean.mrae, mean.rmse, mean.sam);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "chart_error CUBE TRUTH.csv\n");
    return 2;
  }
  try {
    const Truth truth = ReadTruth(argv[2]);
    const mstpp::Cube cube = mstpp::ReadCube(argv[1]);
    if (cube.wavelengths_nm != truth.wavelengths_nm) {
      throw std::runtime_error("the cube and the table have different wavelengths");
    }
    Report(cube, truth);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "chart_error: %s\n", error.what());
    return 1;
  }
}
