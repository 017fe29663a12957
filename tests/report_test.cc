// SPDX-License-Identifier: Apache-2.0
// Figures against closed forms, and what holds them: tables, plots, journals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <numbers>
#include <sstream>
#include <string>
#include <vector>

#include "mstpp/error.h"
#include "report/distribution.h"
#include "report/error_statistics.h"
#include "report/heat_map.h"
#include "report/html.h"
#include "report/journal.h"
#include "report/metrics.h"
#include "report/plot.h"
#include "report/spectra.h"
#include "report/table.h"

namespace mstpp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Bands x H x W.
struct Array {
  int64_t c, h, w;
  std::vector<float> data;

  Array(int64_t c_, int64_t h_, int64_t w_, std::vector<float> values = {})
      : c(c_), h(h_), w(w_), data(std::move(values)) {
    data.resize(static_cast<size_t>(c * h * w));
  }
  TensorView view() const { return TensorView::Nchw(data.data(), 1, c, h, w); }
};

std::string MessageOf(ErrorCode code, const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST(ErrorStatistics, OfKnownVectors) {
  ErrorStatistics statistics;
  statistics.Add(Array(1, 1, 3, {3, 0, 5}).view(), Array(1, 1, 3, {4, 0, 3}).view());
  EXPECT_EQ(statistics.count(), 3);
  EXPECT_DOUBLE_EQ(statistics.max(), 2);
  EXPECT_DOUBLE_EQ(statistics.mean(), 1);
  EXPECT_DOUBLE_EQ(statistics.largest(), 4);
  EXPECT_DOUBLE_EQ(statistics.relative(), std::sqrt(5.) / 5);
  EXPECT_DOUBLE_EQ(statistics.cosine(), 27 / (std::sqrt(34.) * 5));
  EXPECT_TRUE(statistics.Within(2, 0));
  EXPECT_TRUE(statistics.Within(0, 0.5));
  EXPECT_FALSE(statistics.Within(0.5, 0.37));
}

TEST(ErrorStatistics, StridesAreFollowed) {
  const std::vector<float> planar{1, 2, 3, 4, 5, 6}, interleaved{1, 4, 2, 5, 3, 6};
  ErrorStatistics statistics;
  statistics.Add(TensorView::Nchw(planar.data(), 1, 2, 1, 3),
                 TensorView::Nhwc(interleaved.data(), 1, 2, 1, 3));
  EXPECT_EQ(statistics.count(), 6);
  EXPECT_EQ(statistics.max(), 0);
  EXPECT_DOUBLE_EQ(statistics.cosine(), 1);
}

TEST(ErrorStatistics, ZerosAndNaN) {
  ErrorStatistics zeros;
  EXPECT_EQ(zeros.mean(), 0);
  zeros.Add(0, 0);
  EXPECT_EQ(zeros.relative(), 0);
  EXPECT_EQ(zeros.cosine(), 1);
  EXPECT_TRUE(zeros.Within(0, 0));
  zeros.Add(1, 0);
  EXPECT_EQ(zeros.relative(), kInfinity);
  EXPECT_EQ(zeros.cosine(), 0);

  ErrorStatistics bad;
  bad.Add(NAN, 1);
  bad.Add(1, INFINITY);
  bad.Add(3, 1);
  EXPECT_EQ(bad.not_finite(), 2);
  EXPECT_EQ(bad.mean(), 2);
  EXPECT_EQ(bad.max(), kInfinity);
  EXPECT_FALSE(bad.Within(100, 100));
}

TEST(Metrics, OfKnownCubes) {
  const Array cube(2, 1, 2, {0.5F, 0.25F, 1, 0.5F}), truth(2, 1, 2, {0.25F, 0.25F, 0.5F, 1});
  const Difference difference = MeasureDifference(cube.view(), truth.view());
  EXPECT_DOUBLE_EQ(difference.absolute.mean, 0.3125);   // 0.25 0 0.5 0.5
  EXPECT_DOUBLE_EQ(difference.absolute.median, 0.375);  // between 0.25 and 0.5
  EXPECT_DOUBLE_EQ(difference.absolute.max, 0.5);
  EXPECT_DOUBLE_EQ(difference.relative.mean, 0.625);  // 1 0 1 0.5
  EXPECT_DOUBLE_EQ(difference.relative.median, 0.75);
  EXPECT_DOUBLE_EQ(difference.relative.max, 1);
  EXPECT_DOUBLE_EQ(difference.relative_rms, std::sqrt(0.5625 / 1.375));
  EXPECT_EQ(difference.zeros, 0);
  EXPECT_DOUBLE_EQ(Rmse(cube.view(), truth.view()), 0.375);
  EXPECT_DOUBLE_EQ(Psnr(cube.view(), truth.view()), 20 * std::log10(1 / 0.375));
  // (0.5, 1) is parallel to (0.25, 0.5); (0.25, 0.5) and (0.25, 1) are not.
  const double angle = std::acos(0.5625 / std::sqrt(0.3125 * 1.0625)) * 180 / std::numbers::pi;
  EXPECT_NEAR(SpectralAngle(cube.view(), truth.view()), angle / 2, 1e-6);
}

TEST(Metrics, ZerosOfTheTruthHaveNoRelativeError) {
  const Array cube(1, 1, 3, {1, 2, 3}), truth(1, 1, 3, {0, 1, -2});
  const Difference difference = MeasureDifference(cube.view(), truth.view());
  EXPECT_EQ(difference.zeros, 1);
  EXPECT_DOUBLE_EQ(difference.relative.mean, 1.75);  // 1/1 and 5/2
  EXPECT_DOUBLE_EQ(difference.absolute.mean, 7. / 3);
  const Array zeros(1, 1, 3);
  EXPECT_TRUE(std::isnan(MeasureDifference(cube.view(), zeros.view()).relative.mean));
  EXPECT_TRUE(std::isnan(SpectralAngle(cube.view(), zeros.view())));
}

TEST(Metrics, PsnrClampsAndIsInfiniteForEqualOnes) {
  const Array cube(1, 1, 2, {1.5F, -3}), truth(1, 1, 2, {1, 0});
  EXPECT_EQ(Psnr(cube.view(), truth.view()), kInfinity);
  EXPECT_GT(Rmse(cube.view(), truth.view()), 2);
}

TEST(Metrics, AnglesOfKnownSpectra) {
  const Array cube(2, 1, 3, {1, 0, 1, 0, 1, 1}), truth(2, 1, 3, {1, 1, 2, 0, 0, 0});
  EXPECT_NEAR(SpectralAngle(cube.view(), truth.view()), (0 + 90 + 45) / 3., 1e-6);
}

TEST(Metrics, SsimOfConstantPictures) {
  Array cube(2, 12, 13), truth(2, 12, 13);
  std::fill(cube.data.begin(), cube.data.end(), 0.5F);
  std::fill(truth.data.begin(), truth.data.end(), 0.25F);
  // Without variance only the means count: (2 x y + c1) / (x^2 + y^2 + c1).
  EXPECT_NEAR(Ssim(cube.view(), truth.view()), (0.25 + 1e-4) / (0.3125 + 1e-4), 1e-12);
  EXPECT_DOUBLE_EQ(Ssim(cube.view(), cube.view()), 1);
  EXPECT_TRUE(std::isnan(Ssim(Array(1, 10, 20).view(), Array(1, 10, 20).view())));
}

TEST(Metrics, Crop) {
  const Array array(1, 4, 5,
                    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
  const TensorView crop = CropBorder(array.view(), 1, "a.png");
  EXPECT_EQ(crop.h, 2);
  EXPECT_EQ(crop.w, 3);
  EXPECT_EQ(*crop.data, 6);
  EXPECT_EQ(crop.data[crop.stride_h + 2 * crop.stride_w], 13);
  const auto crop_all = [&] { CropBorder(array.view(), 2, "a.png"); };
  EXPECT_THAT(MessageOf(ErrorCode::kInvalidArgument, crop_all),
              testing::AllOf(HasSubstr("a.png"), HasSubstr("5 x 4"), HasSubstr("--crop")));
}

TEST(Metrics, RefuseWhatIsNotFinite) {
  const Array array(1, 1, 3, {1, NAN, INFINITY});
  const auto check = [&] { CheckFinite(array.view(), "a.png"); };
  EXPECT_THAT(MessageOf(ErrorCode::kInvalidArgument, check), HasSubstr("2 of 3"));
}

TEST(Distribution, DropsTheExtremes) {
  const Distribution d = Distribute({7, 100, 1, 3, kNaN, -50, 5}, 1);
  EXPECT_THAT(d.values, ElementsAre(1, 3, 5, 7));
  EXPECT_EQ(d.dropped, 2U);
  EXPECT_EQ(d.undefined, 1U);
  EXPECT_DOUBLE_EQ(d.mean(), 4);
  EXPECT_DOUBLE_EQ(d.median(), 4);
  EXPECT_DOUBLE_EQ(d.Quantile(0.25), 2.5);
  EXPECT_DOUBLE_EQ(d.deviation(), std::sqrt(20. / 3));
}

TEST(Distribution, OfFewValues) {
  EXPECT_THAT(Distribute({1, 2}, 1).values, ElementsAre(1, 2));
  EXPECT_THAT(Distribute({3, 1, 2}, 1).values, ElementsAre(2));
  EXPECT_THAT(Distribute({4, 3, 1, 2}, 5).values, ElementsAre(2, 3));
  EXPECT_EQ(Distribute({1}, 1).deviation(), 0);
  EXPECT_TRUE(Distribute({kNaN}, 1).values.empty());
  EXPECT_EQ(Distribute({1, kInfinity, kInfinity}, 0).median(), kInfinity);
}

TEST(Table, Aligned) {
  const Table table{{"name", "x"}, {{"é", "1.5"}, {"longer", "12"}}};
  EXPECT_THAT(AlignedLines(table), ElementsAre("name      x", "é       1.5", "longer   12"));
}

TEST(Table, Csv) {
  const Table table{{"a", "b"}, {{"1,5", "say \"x\""}, {"", "2"}}};
  EXPECT_EQ(ToCsv(table), "a,b\n\"1,5\",\"say \"\"x\"\"\"\n,2\n");
}

TEST(Html, HoldsTextAsItIs) {
  HtmlPage page("a < b & \"c\"");
  page.AddTable({{"<script>"}, {{"\xff"}}});
  const std::string text = page.Finish();
  EXPECT_THAT(text, HasSubstr("<title>a &lt; b &amp; &quot;c&quot;</title>"));
  EXPECT_THAT(text, HasSubstr("<th>&lt;script&gt;</th>"));
  EXPECT_THAT(text, HasSubstr("<td>\xEF\xBF\xBD</td>"));
}

TEST(Plot, ShowsEveryValue) {
  const Distribution d = Distribute({1e-7, 2e-7, 3e-6, kInfinity}, 0);
  const std::string svg = PlotDistribution(d, "error <e>");
  EXPECT_THAT(svg, HasSubstr("error &lt;e&gt; (and 1 infinite)"));
  EXPECT_THAT(svg, HasSubstr(">1e-06</text>"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf,")));
  EXPECT_THAT(PlotDistribution(Distribute({5}, 0), "one"), Not(HasSubstr("nan")));
  EXPECT_THAT(PlotDistribution(Distribute({0, 0}, 0), "zeros"), Not(HasSubstr("nan")));
  EXPECT_EQ(PlotDistribution(Distribute({kInfinity}, 0), "none"), "");
}

TEST(HeatMap, EndsOfTheScale) {
  const Array values(2, 1, 3, {0, 0.5F, 0, 0, 0, NAN}), expected(2, 1, 3);
  const Image image = ErrorHeatMap(values.view(), expected.view(), 0.5);
  EXPECT_THAT(image.data, ElementsAre(0, 255, 255, 0, 255, 255, 0, 255, 255));
}

TEST(Spectra, Interpolated) {
  Cube cube{.width = 2, .height = 1, .bands = 3};
  cube.wavelengths_nm = {700, 400, 500};  // any order
  cube.data = {4, 8, 1, 2, 2, 4};
  const Cube at = AtWavelengths(cube, 3, {400, 450, 600});
  EXPECT_EQ(at.bands, 3);
  EXPECT_THAT(at.data, ElementsAre(1, 2, 1.5, 3, 3, 6));
  EXPECT_THAT(at.wavelengths_nm, ElementsAre(400, 450, 600));
  EXPECT_EQ(AtWavelengths(cube, 3, {700.001, 400, 500}).data, cube.data);
}

TEST(Spectra, UnknownOrTooFew) {
  Cube cube{.width = 1, .height = 1, .bands = 2, .data = {1, 2}};
  cube.provenance.source = "a.mat";
  EXPECT_THAT(AtWavelengths(cube, 2, {400, 700}).wavelengths_nm, ElementsAre(400, 700));
  const auto adapt = [&](int bands, const std::vector<double>& nm) {
    return MessageOf(ErrorCode::kInvalidArgument, [&] { AtWavelengths(cube, bands, nm); });
  };
  EXPECT_THAT(adapt(3, {400, 500, 700}), HasSubstr("a.mat: has 2 bands"));
  cube.wavelengths_nm = {420, 700};
  EXPECT_THAT(adapt(2, {400, 700}), HasSubstr("from 420 to 700 nm"));
}

class JournalTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove(path_); }
  void TearDown() override { std::filesystem::remove(path_); }

  std::string Text() const {
    std::ostringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }
  void Append(const std::string& text) const { std::ofstream(path_, std::ios::app) << text; }

  const std::string path_ = testing::TempDir() + "mstpp_journal_" +
                            testing::UnitTest::GetInstance()->current_test_info()->name();
  const nlohmann::ordered_json setting_{{"weights", "abc"}, {"crop", 128}};
};

TEST_F(JournalTest, FindsWhatWasAdded) {
  const double number = 0.1 + 0.2;
  {
    Journal journal(path_, setting_);
    EXPECT_EQ(journal.Find("a"), nullptr);
    journal.Add("a", {number});
    ASSERT_NE(journal.Find("a"), nullptr);
  }
  const Journal journal(path_, setting_);
  ASSERT_NE(journal.Find("a"), nullptr);
  EXPECT_EQ(journal.Find("a")->at(0).get<double>(), number);
  EXPECT_EQ(journal.size(), 1U);
}

TEST_F(JournalTest, ATornLineIsWrittenAnew) {
  { Journal(path_, setting_).Add("a", 1); }
  const std::string whole = Text();
  Append(R"({"key":"b","finding":12345678)");
  {
    Journal journal(path_, setting_);
    EXPECT_EQ(journal.size(), 1U);
    EXPECT_EQ(Text(), whole);
    journal.Add("c", 2);
  }
  EXPECT_EQ(Journal(path_, setting_).size(), 2U);
}

TEST_F(JournalTest, OfOtherWorkIsRefused) {
  { Journal(path_, setting_).Add("a", 1); }
  auto other = setting_;
  other["crop"] = 0;
  const auto open = [&] { const Journal journal(path_, other); };
  EXPECT_THAT(MessageOf(ErrorCode::kInvalidArgument, open), HasSubstr("crop is 128, not 0"));
  const auto more = [&] {
    other = setting_;
    other["clip"] = true;
    const Journal journal(path_, other);
  };
  EXPECT_THAT(MessageOf(ErrorCode::kInvalidArgument, more), HasSubstr("clip is null, not true"));
}

TEST_F(JournalTest, InUse) {
  const Journal journal(path_, setting_);
  const auto open = [&] { const Journal second(path_, setting_); };
  EXPECT_THAT(MessageOf(ErrorCode::kUnsupported, open), HasSubstr("another process"));
}

TEST_F(JournalTest, OtherFilesStayAsTheyAre) {
  for (const std::string text : {"a photo", "a photo\nof two lines\n", "{}\n", "[1]", "\n"}) {
    std::filesystem::remove(path_);
    Append(text);
    const auto open = [&] { const Journal journal(path_, setting_); };
    EXPECT_THAT(MessageOf(ErrorCode::kCorrupt, open), HasSubstr("line 1"));
    EXPECT_EQ(Text(), text);
  }
  std::filesystem::remove(path_);
  { Journal(path_, setting_).Add("a", 1); }
  Append("{\"key\":3}\n");
  const auto open = [&] { const Journal journal(path_, setting_); };
  EXPECT_THAT(MessageOf(ErrorCode::kCorrupt, open), HasSubstr("line 3"));
}

}  // namespace
}  // namespace mstpp
