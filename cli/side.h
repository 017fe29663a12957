// SPDX-License-Identifier: Apache-2.0
// Engines that are compared with each other.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "console.h"
#include "flags.h"
#include "mstpp/engine.h"

namespace mstpp::cli {

// What help says of an argument that names an engine.
inline constexpr char kSideSyntax[] =
    "DEVICE[,PRECISION[,WEIGHTS]]; what is left out or empty is auto, fp32 and the weights that "
    "--weights names: cpu, or cuda:1,fp16, or cpu,,other.pth";

// --scaling, --pad.
void AddPictureFlags(CLI::App& app, Options& options);

// The engine that `text` describes. Device, precision and weights aside it has `options`; without
// weights of its own it has `model`. Throws UsageError and what Engine throws.
Engine MakeSide(const std::string& text, Options options, const Model& model,
                const ModelFlags& flags);

// How counts become the input of both. Throws UsageError if the weights of the two were trained
// with different scalings and none is chosen.
Scaling CommonScaling(Scaling chosen, const Model& a, const Model& b);

std::string Describe(const Engine& engine);  // "cpu (AVX2, 2 threads), fp32, weights mst_plus_plus"
Json EngineToJson(const Engine& engine);

// Null if it is not finite, which JSON cannot say.
Json NumberToJson(double number);

}  // namespace mstpp::cli
