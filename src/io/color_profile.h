// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lcms2.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "mstpp/image.h"

namespace mstpp {

// xy chromaticities of white, red, green and blue; sRGB's are the default.
struct Chromaticities {
  double white_x = 0.3127, white_y = 0.3290;
  double red_x = 0.64, red_y = 0.33;
  double green_x = 0.30, green_y = 0.60;
  double blue_x = 0.15, blue_y = 0.06;
};

// The colour space of a picture's counts.
class ColorProfile {
 public:
  ColorProfile() = default;  // sRGB: nothing to convert

  // An embedded ICC profile. One that differs from sRGB by less than half a count of 8 bits counts
  // as sRGB. Throws Error (kCorrupt; kUnsupported: not for RGB pictures).
  static ColorProfile FromIcc(const std::string& name, std::span<const uint8_t> icc);

  // Counts are proportional to light to the power of 1 / gamma; without a gamma, to sRGB's curve.
  // Throws Error (kCorrupt: no such primaries).
  static ColorProfile FromPrimaries(const std::string& name, const Chromaticities& chromaticities,
                                    std::optional<double> gamma);

  static ColorProfile AdobeRgb();

  bool is_srgb() const { return profile_ == nullptr; }

  // Converts counts to sRGB by relative colorimetric intent, without black point compensation:
  // every colour that sRGB has stays what it was. Integer counts are rounded and colours outside
  // sRGB clipped; float counts may leave 0..1. Throws Error (kUnsupported).
  void ConvertToSrgb(Image* image) const;

 private:
  struct ContextDeleter {
    void operator()(cmsContext context) const { cmsDeleteContext(context); }
  };
  struct ProfileDeleter {
    void operator()(cmsHPROFILE profile) const { cmsCloseProfile(profile); }
  };
  using Context = std::unique_ptr<std::remove_pointer_t<cmsContext>, ContextDeleter>;
  using Profile = std::unique_ptr<void, ProfileDeleter>;

  ColorProfile(Context context, Profile profile)
      : context_(std::move(context)), profile_(std::move(profile)) {}
  bool LooksLikeSrgb(const std::string& name) const;

  Context context_;  // outlives the profile
  Profile profile_;
};

}  // namespace mstpp
