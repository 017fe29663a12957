// SPDX-License-Identifier: Apache-2.0
#include "report/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "report/html.h"

namespace mstpp {
namespace {

constexpr double kWidth = 720, kHeight = 220;                        // of the picture
constexpr double kLeft = 50, kRight = 700, kTop = 62, kFloor = 182;  // of the bars
constexpr double kBoxTop = 26, kBoxBottom = 46;
constexpr size_t kMostBars = 60;
constexpr double kLogarithmicFrom = 30;  // greatest value over the least

// The horizontal axis: values to 0..1.
class Axis {
 public:
  Axis(double first, double last)
      : logarithmic_(first > 0 && last > kLogarithmicFrom * first),
        begin_(Forward(first)),
        end_(Forward(last)) {
    if (begin_ == end_) {  // one value: a bar in the middle
      const double around = begin_ == 0 ? 1 : std::abs(begin_) / 10;
      begin_ -= around;
      end_ += around;
    }
  }

  double Share(double value) const { return (Forward(value) - begin_) / (end_ - begin_); }
  double X(double value) const { return kLeft + Share(value) * (kRight - kLeft); }

  std::vector<double> Ticks() const { return logarithmic_ ? LogarithmicTicks() : LinearTicks(); }

 private:
  double Forward(double value) const { return logarithmic_ ? std::log10(value) : value; }

  std::vector<double> LinearTicks() const {
    const double step = RoundStep((end_ - begin_) / 6);
    std::vector<double> ticks;
    for (double i = std::ceil(begin_ / step); i * step <= end_; ++i) ticks.push_back(i * step);
    return ticks;
  }

  // 1, 2, 5 of each decade, or powers of ten alone if there are many decades.
  std::vector<double> LogarithmicTicks() const {
    const double stride = std::max(1., std::ceil((end_ - begin_) / 8));
    std::vector<double> ticks;
    for (double e = std::floor(begin_); e <= end_; e += stride) {
      for (const double digit : {1., 2., 5.}) {
        const double value = digit * std::pow(10, e);
        const bool inside = Forward(value) >= begin_ && Forward(value) <= end_;
        if (inside && (digit == 1 || end_ - begin_ < 3)) ticks.push_back(value);
      }
    }
    return ticks;
  }

  // The next of 1, 2, 5 times a power of ten.
  static double RoundStep(double step) {
    const double power = std::pow(10, std::floor(std::log10(step)));
    for (const double digit : {1., 2., 5.}) {
      if (step <= digit * power) return digit * power;
    }
    return 10 * power;
  }

  bool logarithmic_;
  double begin_, end_;
};

std::string Line(double x1, double y1, double x2, double y2, const char* color) {
  return fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", x1, y1, x2,
      y2, color);
}

std::string Rectangle(double x1, double y1, double x2, double y2, const char* style) {
  return fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" {}/>\n",
                     x1, y1, x2 - x1, y2 - y1, style);
}

std::string Text(double x, double y, const char* anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     EscapeHtml(text));
}

std::string Bars(const Axis& axis, const std::vector<double>& values) {
  const auto bars = std::clamp<size_t>(
      static_cast<size_t>(2 * std::cbrt(static_cast<double>(values.size()))) + 1, 3, kMostBars);
  std::vector<size_t> counts(bars);
  for (const double value : values) {
    const double at = axis.Share(value) * static_cast<double>(bars);
    ++counts[std::min(static_cast<size_t>(std::max(at, 0.)), bars - 1)];
  }
  const size_t most = *std::max_element(counts.begin(), counts.end());
  std::string svg;
  const double width = (kRight - kLeft) / static_cast<double>(bars);
  for (size_t i = 0; i < bars; ++i) {
    if (counts[i] == 0) continue;
    const double x = kLeft + static_cast<double>(i) * width;
    const double height =
        (kFloor - kTop) * static_cast<double>(counts[i]) / static_cast<double>(most);
    svg += Rectangle(x, kFloor - height, x + width - 1, kFloor, "fill=\"#5b8db8\"");
  }
  return svg + Line(kLeft, kTop, kLeft, kFloor, "#999") +
         Text(kLeft - 6, kTop + 9, "end", fmt::format("{}", most)) +
         Text(kLeft - 6, kFloor, "end", "0");
}

std::string Box(const Axis& axis, const Distribution& d) {
  constexpr double kMiddle = (kBoxTop + kBoxBottom) / 2;
  const auto x = [&](double share) { return axis.X(d.Quantile(share)); };
  return Line(x(0.05), kMiddle, x(0.95), kMiddle, "#333") +
         Line(x(0.05), kBoxTop + 4, x(0.05), kBoxBottom - 4, "#333") +
         Line(x(0.95), kBoxTop + 4, x(0.95), kBoxBottom - 4, "#333") +
         Rectangle(x(0.25), kBoxTop, x(0.75), kBoxBottom, "fill=\"#e8eef4\" stroke=\"#333\"") +
         Line(x(0.5), kBoxTop, x(0.5), kBoxBottom, "#b03030") +
         fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"#333\"/>\n",
                     axis.X(d.mean()), kMiddle);
}

std::string AxisLine(const Axis& axis) {
  std::string svg = Line(kLeft, kFloor, kRight, kFloor, "#999");
  for (const double tick : axis.Ticks()) {
    const double x = axis.X(tick);
    svg += Line(x, kFloor, x, kFloor + 5, "#999");
    svg += Text(x, kFloor + 20, "middle", fmt::format("{:.4g}", tick));
  }
  return svg;
}

}  // namespace

std::string PlotDistribution(const Distribution& distribution, const std::string& label) {
  Distribution finite = distribution;
  const size_t infinite =
      std::erase_if(finite.values, [](double value) { return std::isinf(value); });
  if (finite.values.empty()) return {};
  const Axis axis(finite.min(), finite.max());
  std::string title = label;
  if (infinite > 0) title += fmt::format(" (and {} infinite)", infinite);
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
             "height=\"{1}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\" "
             "role=\"img\" aria-label=\"{2}\">\n",
             kWidth, kHeight, EscapeHtml(title)) +
         fmt::format("<text x=\"{}\" y=\"14\" font-weight=\"bold\">{}</text>\n", kLeft,
                     EscapeHtml(title)) +
         Bars(axis, finite.values) + Box(axis, finite) + AxisLine(axis) + "</svg>";
}

}  // namespace mstpp
