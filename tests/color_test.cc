// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <numeric>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "color/render.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<double> Wavelengths(double first, double step, int count) {
  std::vector<double> nm(count);
  for (int i = 0; i < count; ++i) nm[i] = first + step * i;
  return nm;
}

// A cube of one row whose pixels have the given spectra, as functions of the wavelength.
Cube CubeOf(const std::vector<double>& nm,
            const std::vector<std::function<double(double)>>& spectra) {
  Cube cube;
  cube.width = static_cast<int64_t>(spectra.size());
  cube.height = 1;
  cube.bands = static_cast<int64_t>(nm.size());
  cube.wavelengths_nm = nm;
  cube.provenance.source = "made.mat";
  for (const double at : nm) {
    for (const auto& spectrum : spectra) cube.data.push_back(static_cast<float>(spectrum(at)));
  }
  return cube;
}

const std::vector<double> kUsual = Wavelengths(400, 10, 31);
const auto kFlat = [](double) { return 1.0; };

std::string MessageOf(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(error.where(), "made.mat");
    return error.what();
  }
  return "";
}

struct Patch {
  std::string name;
  std::vector<double> values;
};

std::vector<Patch> ReadTable(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::vector<Patch> patches;
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::istringstream cells(line);
    Patch patch;
    std::getline(cells, patch.name, ',');
    for (std::string cell; std::getline(cells, cell, ',');) {
      patch.values.push_back(std::stod(cell));
    }
    patches.push_back(patch);
  }
  return patches;
}

TEST(RenderSrgb, FlatSpectraAreGrey) {
  const auto level = [](double v) { return [v](double) { return v; }; };
  const Cube cube =
      CubeOf(kUsual, {kFlat, level(0), level(0.5), level(0.001), level(7), level(-1)});
  const Image image = RenderSrgb(cube);
  EXPECT_EQ(image.width, 6);
  EXPECT_EQ(image.height, 1);
  EXPECT_EQ(image.channels, 3);
  EXPECT_EQ(image.white, 255);
  EXPECT_EQ(image.source, "made.mat");
  // 0.5 is 187.5 on sRGB's curve (1.055 * 0.5^(1/2.4) - 0.055 = 0.73536), 0.001 is 3.29 on its
  // line.
  const std::vector<float> row = {255, 0, 188, 3, 255, 0};
  ASSERT_EQ(image.data.size(), 18U);
  for (size_t i = 0; i < 18; ++i) EXPECT_EQ(image.data[i], row[i % 6]) << i;
}

TEST(RenderSrgb, WhiteScales) {
  const Cube cube = CubeOf(kUsual, {[](double) { return 4095.0; }});
  EXPECT_THAT(RenderSrgb(cube, 4095).data, Each(255));
  EXPECT_THAT(RenderSrgb(cube, 2 * 4095).data, Each(188));
}

TEST(RenderSrgb, NotANumberIsBlack) {
  EXPECT_THAT(RenderSrgb(CubeOf(kUsual, {[](double) { return NAN; }})).data, Each(0));
}

// Expected: what examples/make_chart.py makes of the same spectra.
TEST(RenderSrgb, ColorCheckerAsNumpyRendersIt) {
  const auto patches = ReadTable(MSTPP_SOURCE_DIR "/examples/data/colorchecker24.csv");
  const auto expected = ReadTable(MSTPP_TEST_DATA "/colorchecker24_srgb.csv");
  ASSERT_EQ(patches.size(), 24U);
  ASSERT_EQ(expected.size(), 24U);
  std::vector<std::function<double(double)>> spectra;
  for (const Patch& patch : patches) {
    spectra.emplace_back([&patch](double nm) { return patch.values[std::lround(nm - 400) / 10]; });
  }
  const Image image = RenderSrgb(CubeOf(kUsual, spectra));
  for (size_t i = 0; i < patches.size(); ++i) {
    EXPECT_EQ(patches[i].name, expected[i].name);
    EXPECT_THAT(expected[i].values,
                ElementsAre(image.data[i], image.data[24 + i], image.data[48 + i]))
        << patches[i].name;
  }
}

// Interpolation is linear, so for spectra that are linear between coarse bands nothing changes.
TEST(RenderSrgb, OtherWavelengths) {
  const auto tent = [](double nm) { return 1 - std::abs(nm - 550) / 200; };
  const auto ramp = [](double nm) { return (nm - 380) / 400; };
  const Image usual = RenderSrgb(CubeOf(kUsual, {tent, ramp}));
  EXPECT_EQ(RenderSrgb(CubeOf(Wavelengths(380, 5, 73), {tent, ramp})).data, usual.data);
  EXPECT_EQ(RenderSrgb(CubeOf({400, 550, 700}, {tent, ramp})).data, usual.data);
  EXPECT_EQ(RenderSrgb(CubeOf({350, 550, 733.3}, {tent, ramp})).data, usual.data);
  EXPECT_EQ(RenderSrgb(CubeOf({700, 400, 550}, {tent, ramp})).data, usual.data);
}

TEST(RenderSrgb, EndsAreHeld) {
  EXPECT_THAT(RenderSrgb(CubeOf({430, 550, 670}, {kFlat})).data, Each(255));
  const auto held = [](double nm) { return std::min(std::max(nm, 430.0), 670.0) / 700; };
  EXPECT_EQ(RenderSrgb(CubeOf({430, 670}, {held})).data, RenderSrgb(CubeOf(kUsual, {held})).data);
}

TEST(RenderSrgb, RefusesUnknownColours) {
  const auto message = [](const Cube& cube) { return MessageOf([&] { RenderSrgb(cube); }); };
  Cube cube = CubeOf(kUsual, {kFlat});
  cube.wavelengths_nm.clear();
  EXPECT_THAT(message(cube), HasSubstr("0 wavelengths for 31 bands"));
  EXPECT_THAT(message(CubeOf({900, 1000, 1700}, {kFlat})), HasSubstr("900 to 1700 nm"));
  EXPECT_THAT(message(CubeOf({431, 700}, {kFlat})), HasSubstr("false-colour"));
  EXPECT_THAT(message(CubeOf({400, 669}, {kFlat})), HasSubstr("false-colour"));
  EXPECT_THAT(message(CubeOf({400, 550, 550, 700}, {kFlat})), HasSubstr("550 nm"));
  EXPECT_THAT(message(CubeOf({400, NAN, 700}, {kFlat})), HasSubstr("not a number"));
  cube = CubeOf(kUsual, {kFlat});
  cube.data.pop_back();
  EXPECT_THAT(message(cube), HasSubstr("30 values"));
  EXPECT_NE(message(Cube{.provenance = {.source = "made.mat"}}), "");
  EXPECT_THAT(MessageOf([] { RenderSrgb(CubeOf(kUsual, {kFlat}), 0); }), HasSubstr("positive"));
}

TEST(FalseColor, TakesTheNearestBands) {
  const auto level = [](double nm) { return nm == 850 ? 1.0 : nm == 660 ? 0.5 : 0.0; };
  const Cube cube = CubeOf({550, 660, 850}, {level});
  EXPECT_THAT(FalseColor(cube, 800, 670, 551).data, ElementsAre(255, 188, 0));
  EXPECT_THAT(FalseColor(cube, 550, 850, 850).data, ElementsAre(0, 255, 255));
  EXPECT_THAT(FalseColor(cube, 850, 660, 550, 2).data, ElementsAre(188, 137, 0));
  EXPECT_THAT(MessageOf([&] { FalseColor(cube, 900, 660, 550); }), HasSubstr("900 nm is outside"));
  EXPECT_NE(MessageOf([&] { FalseColor(cube, 850, NAN, 550); }), "");
}

}  // namespace
}  // namespace mstpp
