#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cuts hyperspectral scenes into small cubes for `mstpp accuracy`.

    python bench/cut_scenes.py SCENE.npz... -o FOLDER [--size 32] [--count 1000]      needs numpy

A scene holds `hsi` (height, width, bands; uint16 over 65535, or floats as they are) and
`wavelengths` (nm). The places are drawn from a fixed seed, so the same call gives the same cubes:
NAME_0000.npy, float32 (bands, size, size), with the wavelengths in NAME_0000.json.
"""

import argparse
import json
import pathlib

import numpy as np


def read_scene(path):
    """Bands x height x width, full scale 1, and the wavelengths in nm."""
    with np.load(path) as file:
        cube, wavelengths = file["hsi"], file["wavelengths"]
    if cube.dtype == np.uint16:
        cube = cube / np.float32(65535)
    return cube.astype(np.float32).transpose(2, 0, 1), [float(nm) for nm in wavelengths]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenes", nargs="+", type=pathlib.Path)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--count", type=int, default=1000, help="in all")
    options = parser.parse_args()

    options.output.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    shares = np.array_split(range(options.count), len(options.scenes))
    for path, share in zip(options.scenes, shares):
        cube, wavelengths = read_scene(path)
        for i in range(len(share)):
            y, x = (generator.integers(0, side - options.size + 1) for side in cube.shape[1:])
            place = options.output / f"{path.stem}_{i:04}.npy"
            np.save(place, cube[:, y : y + options.size, x : x + options.size])
            place.with_suffix(".json").write_text(json.dumps({"wavelengths_nm": wavelengths}))


if __name__ == "__main__":
    main()
