// SPDX-License-Identifier: Apache-2.0
#include "io/color_profile.h"

#include <array>
#include <cmath>
#include <limits>
#include <new>
#include <utility>
#include <vector>

#include "mstpp/error.h"

namespace mstpp {
namespace {

constexpr cmsUInt32Number kIntent = INTENT_RELATIVE_COLORIMETRIC;

struct CurveDeleter {
  void operator()(cmsToneCurve* curve) const { cmsFreeToneCurve(curve); }
};
using Curve = std::unique_ptr<cmsToneCurve, CurveDeleter>;

// sRGB's curve, IEC 61966-2-1, in the form of lcms's parametric type 4.
constexpr std::array<double, 5> kSrgbCurve = {2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045};

class Transform {
 public:
  Transform(const std::string& name, cmsContext context, cmsHPROFILE profile,
            cmsUInt32Number format) {
    cmsHPROFILE srgb = cmsCreate_sRGBProfileTHR(context);
    if (srgb == nullptr) throw std::bad_alloc();
    // lcms's precalculated tables are good for matrix profiles and 8 bits (at most 0.7 counts off,
    // 20 times as fast), but wrong by up to 8 % of full scale in the darks of 16-bit counts.
    const bool exact_tables = format == TYPE_RGB_8 && cmsIsMatrixShaper(profile) != 0 &&
                              cmsIsCLUT(profile, kIntent, LCMS_USED_AS_INPUT) == 0;
    handle_ = cmsCreateTransformTHR(context, profile, format, srgb, format, kIntent,
                                    exact_tables ? 0 : cmsFLAGS_NOOPTIMIZE);
    cmsCloseProfile(srgb);
    if (handle_ == nullptr) {
      throw Error(ErrorCode::kUnsupported, name,
                  "its ICC colour profile cannot be converted to sRGB; convert the picture to sRGB "
                  "in an image editor");
    }
  }
  ~Transform() { cmsDeleteTransform(handle_); }
  Transform(const Transform&) = delete;
  Transform& operator=(const Transform&) = delete;

  void Run(const void* in, void* out, int64_t pixels) const {
    cmsDoTransform(handle_, in, out, static_cast<cmsUInt32Number>(pixels));
  }

 private:
  cmsHTRANSFORM handle_ = nullptr;
};

// T is the type that the counts came in, so casting them back is exact.
template <typename T>
void ConvertRows(const Transform& transform, Image* image) {
  std::vector<T> row(static_cast<size_t>(3 * image->width));
  for (int64_t y = 0; y < image->height; ++y) {
    float* planes = image->data.data() + y * image->width;
    for (int64_t x = 0; x < image->width; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        row[3 * x + c] = static_cast<T>(planes[c * image->pixels() + x]);
      }
    }
    transform.Run(row.data(), row.data(), image->width);
    for (int64_t x = 0; x < image->width; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        planes[c * image->pixels() + x] = static_cast<float>(row[3 * x + c]);
      }
    }
  }
}

}  // namespace

ColorProfile ColorProfile::FromIcc(const std::string& name, std::span<const uint8_t> icc) {
  Context context(cmsCreateContext(nullptr, nullptr));
  if (context == nullptr) throw std::bad_alloc();
  Profile handle;
  if (icc.size() <= std::numeric_limits<cmsUInt32Number>::max()) {
    handle.reset(cmsOpenProfileFromMemTHR(context.get(), icc.data(),
                                          static_cast<cmsUInt32Number>(icc.size())));
  }
  if (handle == nullptr) {
    throw Error(ErrorCode::kCorrupt, name,
                "its ICC colour profile is broken; save the picture again as sRGB");
  }
  const cmsProfileClassSignature kind = cmsGetDeviceClass(handle.get());
  if (cmsGetColorSpace(handle.get()) != cmsSigRgbData || kind == cmsSigLinkClass ||
      kind == cmsSigAbstractClass || kind == cmsSigNamedColorClass) {
    throw Error(ErrorCode::kUnsupported, name,
                "its ICC colour profile does not describe RGB; convert the picture to sRGB in an "
                "image editor");
  }
  ColorProfile profile(std::move(context), std::move(handle));
  if (profile.LooksLikeSrgb(name)) return {};
  return profile;
}

ColorProfile ColorProfile::FromPrimaries(const std::string& name,
                                         const Chromaticities& chromaticities,
                                         std::optional<double> gamma) {
  Context context(cmsCreateContext(nullptr, nullptr));
  if (context == nullptr) throw std::bad_alloc();
  const Curve curve(gamma ? cmsBuildGamma(context.get(), *gamma)
                          : cmsBuildParametricToneCurve(context.get(), 4, kSrgbCurve.data()));
  const Chromaticities& xy = chromaticities;
  const cmsCIExyY white = {xy.white_x, xy.white_y, 1};
  const cmsCIExyYTRIPLE primaries = {
      {xy.red_x, xy.red_y, 1}, {xy.green_x, xy.green_y, 1}, {xy.blue_x, xy.blue_y, 1}};
  cmsToneCurve* const curves[3] = {curve.get(), curve.get(), curve.get()};
  Profile handle;
  if (curve != nullptr) {
    handle.reset(cmsCreateRGBProfileTHR(context.get(), &white, &primaries, curves));
  }
  if (handle == nullptr) {
    throw Error(ErrorCode::kCorrupt, name,
                "its primary colours or gamma make no colour space; save the picture again as "
                "sRGB");
  }
  return {std::move(context), std::move(handle)};
}

ColorProfile ColorProfile::AdobeRgb() {
  Chromaticities xy;
  xy.green_x = 0.21;
  xy.green_y = 0.71;
  return FromPrimaries("Adobe RGB", xy, 563.0 / 256);
}

// sRGB profiles come in many versions that differ in name and in the last digits, so the question
// is put to the colours.
bool ColorProfile::LooksLikeSrgb(const std::string& name) const {
  const Transform transform(name, context_.get(), profile_.get(), TYPE_RGB_FLT);
  constexpr std::array<float, 9> kLevels = {0,      0.125f, 0.25f,  0.375f, 0.5f,
                                            0.625f, 0.75f,  0.875f, 1};
  for (const float red : kLevels) {
    for (const float green : kLevels) {
      for (const float blue : kLevels) {
        const std::array<float, 3> in = {red, green, blue};
        std::array<float, 3> out;
        transform.Run(in.data(), out.data(), 1);
        for (int c = 0; c < 3; ++c) {
          if (!(std::abs(out[c] - in[c]) < 0.5f / 255)) return false;
        }
      }
    }
  }
  return true;
}

void ColorProfile::ConvertToSrgb(Image* image) const {
  if (is_srgb()) return;
  const auto convert = [&](cmsUInt32Number format, auto zero) {
    const Transform transform(image->source, context_.get(), profile_.get(), format);
    ConvertRows<decltype(zero)>(transform, image);
  };
  if (image->white == 255) {
    convert(TYPE_RGB_8, uint8_t{});
  } else if (image->white == 65535) {
    convert(TYPE_RGB_16, uint16_t{});
  } else {
    convert(TYPE_RGB_FLT, float{});
  }
}

}  // namespace mstpp
