// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mstpp/cube.h"
#include "mstpp/image.h"

namespace mstpp {

// The cube as the CIE 1931 observer would see it: an 8-bit sRGB picture. Linear sRGB is scaled, a
// channel at a time, so that a flat spectrum of `white` gives white; colours outside sRGB and
// values above are clipped. (The bundled weights were trained on pictures made by this very rule.)
// Spectra are interpolated linearly at 400, 410 ... 700 nm, and beyond the first and last band
// held.
//
// Throws Error (kInvalidArgument: wavelengths missing, repeated or not covering 430 to 670 nm; data
// not of the cube's size; white not positive).
Image RenderSrgb(const Cube& cube, double white = 1.0);

// An 8-bit picture of the bands nearest to three wavelengths as its red, green and blue: 0 gives
// black, `white` full scale, and between them runs sRGB's curve. Throws Error (kInvalidArgument: as
// above, or a wavelength outside the cube's range).
Image FalseColor(const Cube& cube, double red_nm, double green_nm, double blue_nm,
                 double white = 1.0);

}  // namespace mstpp
