#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Paints a ColorChecker whose spectra are known: colorchecker.png and colorchecker_truth.csv.

The patches' measured reflectances become sRGB by the rule that the bundled weights were trained
with: CIE 1931 observer, linear sRGB scaled so that a flat spectrum of 1 gives white, sRGB's curve,
8 bits. A cube that mstpp makes of the picture can so be held against the truth.

    python examples/make_chart.py [FOLDER]      needs numpy and Pillow
"""

import csv
import pathlib
import sys

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS, ROWS = 6, 4
PITCH, GAP = 80, 8  # pixels from patch to patch, and of frame around each
MARGIN = 8  # at a patch's edge, left out of its interior
FRAME = 0.01  # reflectance of the frame at every wavelength

XYZ_TO_SRGB = np.array(
    [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
)


def read_table(path):
    """The first column of a CSV file as strings, the others as numbers."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [row[0] for row in rows], np.array([[float(v) for v in row[1:]] for row in rows])


def to_srgb(spectra):
    """(..., 31) reflectances at 400, 410 ... 700 nm to 8-bit sRGB."""
    _, observer = read_table(HERE / "data" / "cie1931.csv")
    weights = observer @ XYZ_TO_SRGB.T
    linear = np.clip(spectra @ (weights / weights.sum(0)), 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * curved).astype(np.uint8)


def main(folder):
    names, reflectances = read_table(HERE / "data" / "colorchecker24.csv")
    chart = np.empty((ROWS * PITCH, COLUMNS * PITCH, 3), np.uint8)
    chart[:] = to_srgb(np.full(reflectances.shape[1], FRAME))
    truth = []
    for i, (name, reflectance) in enumerate(zip(names, reflectances)):
        x, y = i % COLUMNS * PITCH, i // COLUMNS * PITCH
        chart[y + GAP : y + PITCH - GAP, x + GAP : x + PITCH - GAP] = to_srgb(reflectance)
        inset = GAP + MARGIN
        box = (x + inset, y + inset, x + PITCH - inset, y + PITCH - inset)
        truth.append([name, *box, *(f"{v:g}" for v in reflectance)])
    Image.fromarray(chart).save(folder / "colorchecker.png", optimize=True)
    with open(folder / "colorchecker_truth.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        # Pixels x0 <= x < x1, y0 <= y < y1; then the reflectance at each wavelength in nm.
        writer.writerow(["patch", "x0", "y0", "x1", "y1", *range(400, 701, 10)])
        writer.writerows(truth)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
