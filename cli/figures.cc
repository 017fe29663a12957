// SPDX-License-Identifier: Apache-2.0
#include "figures.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "report/metrics.h"

namespace mstpp::cli {

std::vector<FigureSpec> FigureSpecs(bool against, bool truth) {
  std::vector<FigureSpec> specs;
  if (against) {
    specs.insert(specs.end(), {{"against_abs_mean", "absolute error, mean"},
                               {"against_abs_median", "absolute error, median"},
                               {"against_abs_max", "absolute error, maximum"},
                               {"against_rel_mean", "relative error, mean"},
                               {"against_rel_median", "relative error, median"},
                               {"against_rel_max", "relative error, maximum"},
                               {"against_rel_rms", "relative error, of root mean squares"},
                               {"against_zeros", "values left out of relative errors"}});
  }
  if (truth) {
    specs.insert(specs.end(), {{"truth_mrae", "truth: MRAE"},
                               {"truth_rmse", "truth: RMSE"},
                               {"truth_psnr_db", "truth: PSNR, dB"},
                               {"truth_sam_deg", "truth: SAM, degrees"},
                               {"truth_ssim", "truth: SSIM"},
                               {"truth_abs_mean", "truth: absolute error, mean"},
                               {"truth_abs_median", "truth: absolute error, median"},
                               {"truth_abs_max", "truth: absolute error, maximum"},
                               {"truth_rel_median", "truth: relative error, median"},
                               {"truth_rel_max", "truth: relative error, maximum"},
                               {"truth_zeros", "truth: values left out of MRAE"}});
  }
  return specs;
}

std::vector<double> MeasureFigures(const TensorView& result, const TensorView& against,
                                   const TensorView& truth) {
  std::vector<double> figures;
  if (against.data != nullptr) {
    const Difference d = MeasureDifference(result, against);
    figures.insert(figures.end(), {d.absolute.mean, d.absolute.median, d.absolute.max,
                                   d.relative.mean, d.relative.median, d.relative.max,
                                   d.relative_rms, static_cast<double>(d.zeros)});
  }
  if (truth.data != nullptr) {
    const Difference d = MeasureDifference(result, truth);
    figures.insert(
        figures.end(),
        {d.relative.mean, Rmse(result, truth), Psnr(result, truth), SpectralAngle(result, truth),
         Ssim(result, truth), d.absolute.mean, d.absolute.median, d.absolute.max, d.relative.median,
         d.relative.max, static_cast<double>(d.zeros)});
  }
  return figures;
}

Json FiguresToJson(const std::vector<double>& figures) {
  Json json = Json::array();
  for (const double figure : figures) {
    json.push_back(std::isfinite(figure) ? Json(figure) : Json(fmt::format("{}", figure)));
  }
  return json;
}

std::vector<double> FiguresFromJson(const Json& json) {
  std::vector<double> figures;
  for (const Json& figure : json) {
    figures.push_back(figure.is_string() ? std::strtod(figure.get<std::string>().c_str(), nullptr)
                                         : figure.get<double>());
  }
  return figures;
}

}  // namespace mstpp::cli
