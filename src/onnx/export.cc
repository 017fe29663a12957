// SPDX-License-Identifier: Apache-2.0
#include "onnx/export.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/atomic_file.h"
#include "model/network.h"
#include "model/padding.h"
#include "mstpp/error.h"
#include "mstpp/mstpp.h"
#include "onnx/builder.h"
#include "weights/onnx_metadata.h"

namespace mstpp {
namespace {

constexpr int kOldestOpset = 13, kNewestOpset = 17;
constexpr int64_t kLongestSide = int64_t{1} << 30;

using Id = OnnxBuilder::Id;

[[noreturn]] void Refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "ONNX export", what);
}

void CheckSize(const OnnxOptions& options, int multiple) {
  const int64_t height = options.height, width = options.width;
  if (height == 0 && width == 0) return;
  if (height < 1 || width < 1 || height > kLongestSide || width > kLongestSide) {
    Refuse(fmt::format("{} x {} pixels is no size of a picture", width, height));
  }
  if (!options.padding && (height % multiple != 0 || width % multiple != 0)) {
    Refuse(fmt::format("{} x {} pixels without padding: both sides must be multiples of {}", width,
                       height, multiple));
  }
  if (options.padding == Padding::kReflect &&
      !(CanReflect(height, multiple) && CanReflect(width, multiple))) {
    Refuse(
        fmt::format("{} x {} pixels: a side is too short to be padded by reflection to a "
                    "multiple of {}; pad with zeros (--pad zero)",
                    width, height, multiple));
  }
}

void CheckOptions(const OnnxOptions& options, int multiple) {
  if (options.opset < kOldestOpset || options.opset > kNewestOpset) {
    Refuse(fmt::format("opset {} is not written; choose one from {} to {}", options.opset,
                       kOldestOpset, kNewestOpset));
  }
  if (options.precision != Precision::kFP32 && options.precision != Precision::kFP16) {
    Refuse(fmt::format("{} is not written; choose fp32 or fp16", ToString(options.precision)));
  }
  if (options.batch < 0) Refuse(fmt::format("a batch of {}", options.batch));
  CheckSize(options, multiple);
}

class Exporter {
 public:
  Exporter(const Model& model, const OnnxOptions& options)
      : network_(model.network()),
        options_(options),
        multiple_(network_.config.padding_multiple()),
        builder_(
            {.opset = options.opset,
             .half = options.precision == Precision::kFP16,
             .taps = options.taps,
             .size = {RoundUp(options.height, multiple_), RoundUp(options.width, multiple_)}}) {}

  std::string Run() {
    const Id picture = builder_.Input("input", Extents(network_.config.in_channels, false));
    const Id padded = builder_.Narrow("input/half", Pad(picture));
    const Id cube = Lower(network_, options_.form, builder_, padded);
    const bool crop = options_.crop && padded_;
    builder_.Output("output", crop ? Crop(cube, picture) : cube,
                    Extents(network_.config.bands, padded_ && !crop));
    AddProperties();
    return builder_.Finish(network_.name, Version());
  }

 private:
  bool fixed() const { return options_.height > 0; }

  OnnxBuilder::Extents Extents(int channels, bool padded) const {
    const auto extent = [&](int64_t number, const char* name) {
      return number > 0 ? fmt::to_string(number) : std::string(name);
    };
    const std::string batch = extent(options_.batch, "batch"), c = fmt::to_string(channels);
    if (!padded)
      return {batch, c, extent(options_.height, "height"), extent(options_.width, "width")};
    return {batch, c, extent(RoundUp(options_.height, multiple_), "padded_height"),
            extent(RoundUp(options_.width, multiple_), "padded_width")};
  }

  Id Pad(Id picture) {
    if (!options_.padding) return picture;
    const auto mode = *options_.padding == Padding::kReflect ? OnnxBuilder::PadMode::kReflect
                                                             : OnnxBuilder::PadMode::kZero;
    padded_ = true;
    if (!fixed()) return builder_.PadToMultiple("pad", picture, mode, multiple_);
    const int64_t bottom = RoundUp(options_.height, multiple_) - options_.height;
    const int64_t right = RoundUp(options_.width, multiple_) - options_.width;
    padded_ = bottom > 0 || right > 0;
    return padded_ ? builder_.Pad("pad", picture, mode, bottom, right) : picture;
  }

  Id Crop(Id cube, Id picture) {
    return fixed() ? builder_.Crop("crop", cube, options_.height, options_.width)
                   : builder_.CropLike("crop", cube, picture);
  }

  void AddProperties() {
    std::map<std::string, std::string> properties = network_.metadata;
    properties["name"] = network_.name;
    properties["scaling"] = network_.scaling;
    if (!network_.wavelengths_nm.empty()) {
      properties["wavelengths_nm"] = fmt::format("{}", fmt::join(network_.wavelengths_nm, ","));
    }
    properties["weights_sha256"] = network_.sha256;
    properties["mstpp_version"] = Version();
    properties[kOnnxPadding] = options_.padding ? ToString(*options_.padding) : "none";
    properties[kOnnxAttention] =
        options_.form == AttentionForm::kPublished ? "published" : "restructured";
    for (const auto& [key, value] : properties) builder_.AddProperty(key, value);
    builder_.AddChecksum();
  }

  const Network& network_;
  const OnnxOptions& options_;
  int multiple_;
  OnnxBuilder builder_;
  bool padded_ = false;
};

}  // namespace

std::string BuildOnnx(const Model& model, const OnnxOptions& options) {
  CheckOptions(options, model.config().padding_multiple());
  return Exporter(model, options).Run();
}

void ExportOnnx(const Model& model, const std::string& path, const OnnxOptions& options) {
  const std::string bytes = BuildOnnx(model, options);
  AtomicFile file(path);
  file.Write(bytes.data(), bytes.size());
  file.Commit();
}

}  // namespace mstpp
