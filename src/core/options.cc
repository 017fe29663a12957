// SPDX-License-Identifier: Apache-2.0
#include "mstpp/options.h"

#include <array>
#include <utility>

#include "mstpp/error.h"

namespace mstpp {
namespace {

template <typename E, size_t N>
using Names = std::array<std::pair<E, const char*>, N>;

constexpr Names<Precision, 5> kPrecisions{{{Precision::kFP32, "fp32"},
                                           {Precision::kTF32, "tf32"},
                                           {Precision::kFP16, "fp16"},
                                           {Precision::kBF16, "bf16"},
                                           {Precision::kINT8, "int8"}}};
constexpr Names<Scaling, 4> kScalings{{{Scaling::kFromWeights, "weights"},
                                       {Scaling::kMinMax, "minmax"},
                                       {Scaling::kUnit, "unit"},
                                       {Scaling::kNone, "none"}}};
constexpr Names<Padding, 2> kPaddings{{{Padding::kReflect, "reflect"}, {Padding::kZero, "zero"}}};
constexpr Names<Ensemble, 3> kEnsembles{
    {{Ensemble::kNone, "none"}, {Ensemble::kMean, "mean"}, {Ensemble::kMedian, "median"}}};

template <typename E, size_t N>
const char* Name(const Names<E, N>& names, E value) {
  for (const auto& [v, name] : names) {
    if (v == value) return name;
  }
  return "?";
}

template <typename E, size_t N>
E Parse(const Names<E, N>& names, const char* what, const std::string& text) {
  std::string choices;
  for (const auto& [v, name] : names) {
    if (text == name) return v;
    choices += (choices.empty() ? "" : ", ") + std::string(name);
  }
  throw Error(ErrorCode::kInvalidArgument, what, "'" + text + "' is not one of " + choices);
}

}  // namespace

const char* ToString(Precision v) { return Name(kPrecisions, v); }
const char* ToString(Scaling v) { return Name(kScalings, v); }
const char* ToString(Padding v) { return Name(kPaddings, v); }
const char* ToString(Ensemble v) { return Name(kEnsembles, v); }
Precision ParsePrecision(const std::string& s) { return Parse(kPrecisions, "precision", s); }
Scaling ParseScaling(const std::string& s) { return Parse(kScalings, "scaling", s); }
Padding ParsePadding(const std::string& s) { return Parse(kPaddings, "padding", s); }
Ensemble ParseEnsemble(const std::string& s) { return Parse(kEnsembles, "ensemble", s); }

}  // namespace mstpp
