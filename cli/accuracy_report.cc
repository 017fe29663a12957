// SPDX-License-Identifier: Apache-2.0
#include "accuracy_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/atomic_file.h"
#include "mstpp/mstpp.h"
#include "report/distribution.h"
#include "report/html.h"
#include "report/plot.h"
#include "report/table.h"
#include "side.h"
#include "signals.h"

namespace mstpp::cli {
namespace {

constexpr size_t kExamples = 10;  // images that the HTML page names for a figure

std::string Short(double number) { return fmt::format("{:.4g}", number); }

Distribution DistributionOf(const AccuracyResult& result, size_t figure) {
  std::vector<double> values;
  for (const ImageFigures& image : result.images) values.push_back(image.figures[figure]);
  return Distribute(std::move(values), result.trim);
}

Table Summary(const AccuracyResult& result) {
  Table table{{"over the images", "mean", "median", "deviation", "least", "greatest", "images"},
              {}};
  for (size_t i = 0; i < result.specs.size(); ++i) {
    const Distribution d = DistributionOf(result, i);
    const std::string count = fmt::format("{}", d.values.size());
    if (d.values.empty()) {
      table.rows.push_back({result.specs[i].title, "-", "-", "-", "-", "-", count});
    } else {
      table.rows.push_back({result.specs[i].title, Short(d.mean()), Short(d.median()),
                            Short(d.deviation()), Short(d.min()), Short(d.max()), count});
    }
  }
  return table;
}

Table PerImage(const AccuracyResult& result) {
  Table table{{"input", "width", "height"}, {}};
  for (const FigureSpec& spec : result.specs) table.header.push_back(spec.key);
  for (const ImageFigures& image : result.images) {
    std::vector<std::string> row{image.path, fmt::format("{}", image.width),
                                 fmt::format("{}", image.height)};
    for (const double figure : image.figures) {
      row.push_back(std::isnan(figure) ? "" : fmt::format("{}", figure));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

// The images with the greatest value of the first figure.
Table Greatest(const AccuracyResult& result) {
  std::vector<size_t> order(result.images.size());
  std::iota(order.begin(), order.end(), 0);
  const auto figure = [&](size_t i) {
    const double value = result.images[i].figures.front();
    return std::isnan(value) ? -1 : value;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return figure(a) > figure(b); });
  order.resize(std::min(order.size(), kExamples));
  Table table{{"image"}, {}};
  for (const FigureSpec& spec : result.specs) table.header.push_back(spec.title);
  for (const size_t i : order) {
    std::vector<std::string> row{result.images[i].path};
    for (const double value : result.images[i].figures) row.push_back(Short(value));
    table.rows.push_back(std::move(row));
  }
  return table;
}

void WriteText(const std::string& path, const std::string& text) {
  const WritingFile writing;
  AtomicFile file(path);
  file.Write(text.data(), text.size());
  file.Commit();
}

}  // namespace

void TellAccuracy(Console& console, const AccuracyResult& result) {
  size_t width = 0;
  for (const auto& [name, value] : result.protocol) width = std::max(width, name.size());
  for (const auto& [name, value] : result.protocol) {
    console.Result(fmt::format("{:<{}}  {}", name, width, value));
  }
  console.Result("");
  for (const std::string& line : AlignedLines(Summary(result))) console.Result(line);
}

Json AccuracyToJson(const AccuracyResult& result) {
  Json json = result.setting;
  json["trim"] = result.trim;
  json["summary"] = Json::object();
  for (size_t i = 0; i < result.specs.size(); ++i) {
    const Distribution d = DistributionOf(result, i);
    Json& figure = json["summary"][result.specs[i].key];
    figure = {{"images", d.values.size()}, {"dropped", d.dropped}, {"undefined", d.undefined}};
    if (d.values.empty()) continue;
    figure["mean"] = NumberToJson(d.mean());
    figure["median"] = NumberToJson(d.median());
    figure["deviation"] = NumberToJson(d.deviation());
    figure["min"] = NumberToJson(d.min());
    figure["p05"] = NumberToJson(d.Quantile(0.05));
    figure["p25"] = NumberToJson(d.Quantile(0.25));
    figure["p75"] = NumberToJson(d.Quantile(0.75));
    figure["p95"] = NumberToJson(d.Quantile(0.95));
    figure["max"] = NumberToJson(d.max());
  }
  json["files"] = Json::array();
  for (const ImageFigures& image : result.images) {
    Json file{{"input", image.path}, {"width", image.width}, {"height", image.height}};
    for (size_t i = 0; i < result.specs.size(); ++i) {
      file[result.specs[i].key] = NumberToJson(image.figures[i]);
    }
    json["files"].push_back(std::move(file));
  }
  json["failed"] = Json::array();
  for (const ImageFailure& failure : result.failed) {
    json["failed"].push_back(
        {{"input", failure.path}, {"code", failure.code}, {"message", failure.message}});
  }
  return json;
}

void WriteAccuracyCsv(const std::string& path, const AccuracyResult& result) {
  WriteText(path, ToCsv(PerImage(result)));
}

void WriteAccuracyHtml(const std::string& path, const AccuracyResult& result) {
  HtmlPage page(fmt::format("mstpp {}: accuracy over {} images", Version(), result.images.size()));
  Table protocol{{"protocol", ""}, {}};
  for (const auto& [name, value] : result.protocol) protocol.rows.push_back({name, value});
  page.AddTable(protocol);
  page.Heading("Over the images");
  page.AddTable(Summary(result));
  page.Heading("Distributions");
  page.Paragraph(
      "Bars: how many images. Box above them: quartiles, median (red), mean (dot), and the 5th and "
      "95th percentile.");
  for (size_t i = 0; i < result.specs.size(); ++i) {
    page.AddSvg(PlotDistribution(DistributionOf(result, i), result.specs[i].title));
  }
  if (!result.images.empty()) {
    page.Heading("The images where the first figure is greatest");
    page.AddTable(Greatest(result));
  }
  if (!result.failed.empty()) {
    page.Heading("Failed");
    Table failed{{"image", "why"}, {}};
    for (const ImageFailure& failure : result.failed) {
      failed.rows.push_back({failure.path, failure.message});
    }
    page.AddTable(failed);
  }
  WriteText(path, page.Finish());
}

}  // namespace mstpp::cli
