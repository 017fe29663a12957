// SPDX-License-Identifier: Apache-2.0
// What the tests of cube files share: an empty folder, and cubes whose every number is different.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "mstpp/cube.h"
#include "mstpp/error.h"

namespace mstpp {

class FolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "mstpp_test_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  std::filesystem::path folder_;
};

inline std::string ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// The number at (band, y, x) is band * 1000 + y + x / 1024.
inline Cube MakeCube(int64_t bands, int64_t height, int64_t width) {
  Cube cube{.width = width, .height = height, .bands = bands};
  for (int64_t band = 0; band < bands; ++band) {
    cube.wavelengths_nm.push_back(400 + 10.25 * static_cast<double>(band));
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        cube.data.push_back(static_cast<float>(band * 1000 + y) + static_cast<float>(x) / 1024);
      }
    }
  }
  return cube;
}

inline Provenance MakeProvenance() {
  return {.version = "0.1.0",
          .source = "a {photo}, \"quoted\"; caf\xC3\xA9 =\n.jpg",
          .weights = "mst_plus_plus",
          .weights_sha256 = std::string(64, 'a'),
          .backend = "cpu",
          .device = "AMD EPYC, AVX2, 2 threads",
          .precision = "fp32",
          .scaling = "minmax",
          .scale_min = 3.0,
          .scale_max = 254.1,
          .padding = "reflect",
          .ensemble = "mean",
          .clipped = false};
}

inline void ExpectEqual(const Provenance& a, const Provenance& b) {
  EXPECT_EQ(a.version, b.version);
  EXPECT_EQ(a.source, b.source);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.weights_sha256, b.weights_sha256);
  EXPECT_EQ(a.backend, b.backend);
  EXPECT_EQ(a.device, b.device);
  EXPECT_EQ(a.precision, b.precision);
  EXPECT_EQ(a.scaling, b.scaling);
  EXPECT_EQ(a.scale_min, b.scale_min);
  EXPECT_EQ(a.scale_max, b.scale_max);
  EXPECT_EQ(a.padding, b.padding);
  EXPECT_EQ(a.ensemble, b.ensemble);
  EXPECT_EQ(a.clipped, b.clipped);
}

inline void ExpectEqual(const Cube& a, const Cube& b) {
  EXPECT_EQ(a.bands, b.bands);
  EXPECT_EQ(a.height, b.height);
  EXPECT_EQ(a.width, b.width);
  EXPECT_TRUE(a.data == b.data);  // not EXPECT_EQ: it would print them all
  EXPECT_EQ(a.wavelengths_nm, b.wavelengths_nm);
  ExpectEqual(a.provenance, b.provenance);
}

// The Error that `work` throws; code kInternal and no text if it throws none.
template <typename Work>
Error ErrorOf(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return {ErrorCode::kInternal, "", ""};
}

}  // namespace mstpp
