// SPDX-License-Identifier: Apache-2.0
#include "mstpp/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "model/network.h"
#include "model/tensors.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

using ::testing::HasSubstr;

std::string Golden(const std::string& name) {
  return std::string(MSTPP_TEST_DATA) + "/golden/" + name;
}

std::string WriteConfig(const std::string& text) {
  const std::string path = ::testing::TempDir() + "/mstpp_config.json";
  std::ofstream(path) << text;
  return path;
}

template <class F>
std::string MessageOf(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ModelTest, PublishedNetworkHasThePublishedCounts) {
  const Model model = Model::Load(Golden("mstpp_seed0.pth"));
  EXPECT_EQ(model.config(), Config());
  EXPECT_EQ(model.parameters(), 1619625);
  const Macs macs = model.CountMacs(482, 512);
  EXPECT_EQ(macs.published, int64_t{338613} * 488 * 512);
  // 28,830 fewer for q and k, 4,325 for the attention products, 5,765.5 for the folded fusion.
  EXPECT_EQ(macs.restructured, int64_t{599385} * 488 * 512 / 2);
  EXPECT_EQ(model.scaling(), "minmax");
  EXPECT_EQ(model.wavelengths_nm().size(), 31U);
  EXPECT_EQ(model.wavelengths_nm().front(), 400.0);
  EXPECT_EQ(model.wavelengths_nm().back(), 700.0);
}

TEST(ModelTest, ModulePrefixIsStripped) {
  const Model model = Model::Load(Golden("stress_one_stage.pth"));
  EXPECT_EQ(model.config().stages, 1);
  EXPECT_TRUE(model.network().tensors.contains("conv_in.weight"));
}

TEST(ModelTest, DefaultWeightsCarryTheirMetadata) {
  const Model model = Model::Default();
  EXPECT_EQ(model.name(), "mst_plus_plus_cave");
  EXPECT_EQ(model.scaling(), "unit");
  EXPECT_EQ(model.weights_sha256().size(), 64U);
  EXPECT_EQ(model.wavelengths_nm().size(), 31U);
}

TEST(ModelTest, ConfigurationIsDerivedFromTheWeights) {
  for (const Config& config :
       {Config{1, 5, 1, {1, 1}}, Config{4, 31, 2, {2, 1, 3}}, Config{3, 16, 1, {1, 2, 1, 1, 1}}}) {
    const Model model = Model::Random(config, 1);
    EXPECT_EQ(DeriveConfig(model.network().tensors, "test"), config);
  }
}

TEST(ModelTest, DrawnWeightsDependOnTheSeedAlone) {
  const Config config{.stages = 1};
  const Model a = Model::Random(config, 7);
  EXPECT_EQ(a.weights_sha256(), Model::Random(config, 7).weights_sha256());
  EXPECT_NE(a.weights_sha256(), Model::Random(config, 8).weights_sha256());
}

TEST(ModelTest, SavedWeightsLoadAgain) {
  const Model model = Model::Default();
  for (const char* extension : {".safetensors", ".npz"}) {
    const std::string path = ::testing::TempDir() + "/mstpp_saved" + extension;
    model.Save(path);
    const Model again = Model::Load(path);
    EXPECT_EQ(again.name(), model.name());
    EXPECT_EQ(again.scaling(), model.scaling());
    EXPECT_EQ(again.wavelengths_nm(), model.wavelengths_nm());
    for (const auto& [name, tensor] : model.network().tensors) {
      EXPECT_EQ(again.network().tensor(name).data, tensor.data) << name;
      EXPECT_EQ(again.network().tensor(name).shape, tensor.shape) << name;
    }
    std::filesystem::remove(path);
  }
  EXPECT_THAT(MessageOf([&] { model.Save("weights.bin"); }), HasSubstr(".safetensors or .npz"));
}

TEST(ModelTest, TensorsThatDoNotFitAreNamed) {
  StateDict tensors = Model::Random({.stages = 1}, 1).network().tensors;
  const Config config = DeriveConfig(tensors, "w.pth");

  StateDict missing = tensors;
  missing.erase("body.0.mapping.weight");
  EXPECT_THAT(MessageOf([&] { CheckTensors(missing, config, "w.pth"); }),
              HasSubstr("w.pth: tensor body.0.mapping.weight is missing"));

  StateDict misshapen = tensors;
  misshapen["conv_out.weight"].shape = {31, 31, 1, 1};
  EXPECT_THAT(MessageOf([&] { CheckTensors(misshapen, config, "w.pth"); }),
              HasSubstr("tensor conv_out.weight has the shape (31, 31, 1, 1)"));

  StateDict extra = tensors;
  extra["head.weight"] = Tensor{{1}, {0.0f}};
  EXPECT_THAT(MessageOf([&] { CheckTensors(extra, config, "w.pth"); }),
              HasSubstr("tensor head.weight does not belong"));

  EXPECT_THAT(MessageOf([] { DeriveConfig({}, "w.pth"); }), HasSubstr("conv_in.weight"));
}

TEST(ConfigTest, ReadsAFileAndRefusesWhatItDoesNotKnow) {
  const Config config = ReadConfig(WriteConfig(R"({"bands": 16, "blocks": [2, 1]})"));
  EXPECT_EQ(config, (Config{3, 16, 3, {2, 1}}));
  EXPECT_THAT(MessageOf([] { ReadConfig(WriteConfig(R"({"band": 16})")); }),
              HasSubstr("unknown field \"band\""));
  EXPECT_THAT(MessageOf([] { ReadConfig(WriteConfig(R"({"stages": 0})")); }),
              HasSubstr("field \"stages\" must be a whole number from 1"));
  EXPECT_THAT(MessageOf([] { ReadConfig(WriteConfig(R"({"blocks": [1]})")); }),
              HasSubstr("the number of levels is 0"));
  EXPECT_THAT(MessageOf([] { ReadConfig(WriteConfig("[1, 2")); }), HasSubstr("not a JSON object"));
  EXPECT_THAT(MessageOf([] { ReadConfig("/nowhere/config.json"); }), HasSubstr("cannot be opened"));
}

}  // namespace
}  // namespace mstpp
