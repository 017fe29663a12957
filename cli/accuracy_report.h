// SPDX-License-Identifier: Apache-2.0
// What `mstpp accuracy` found, for people and for programs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "console.h"
#include "figures.h"

namespace mstpp::cli {

struct ImageFigures {
  std::string path;
  int64_t width = 0, height = 0;
  std::vector<double> figures;  // in the order of AccuracyResult::specs
};

struct ImageFailure {
  std::string path, code, message;
};

// The move of Json asserts, and clang-tidy takes that for a throw.
struct AccuracyResult {                                       // NOLINT(bugprone-exception-escape)
  std::vector<std::pair<std::string, std::string>> protocol;  // what was done, by name
  Json setting;                                               // the same for programs
  size_t trim = 0;
  std::vector<FigureSpec> specs;
  std::vector<ImageFigures> images;
  std::vector<ImageFailure> failed;
};

void TellAccuracy(Console& console, const AccuracyResult& result);
Json AccuracyToJson(const AccuracyResult& result);

// Appear whole or not at all. Throw Error.
void WriteAccuracyCsv(const std::string& path, const AccuracyResult& result);
void WriteAccuracyHtml(const std::string& path, const AccuracyResult& result);

}  // namespace mstpp::cli
