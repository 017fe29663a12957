# SPDX-License-Identifier: Apache-2.0
"""Scenes, and a folder of them, for the tests of `mstpp accuracy`."""

import importlib.util
import json

import h5py
import numpy as np
import pytest
import spectral
from PIL import Image

SMALL = {"stages": 1, "blocks": [1, 1]}
WAVELENGTHS = np.arange(400, 701, 10)
HEIGHT, WIDTH = 22, 27


def scene(seed, height=HEIGHT, width=WIDTH):
    """A cube of smooth spectra, 31 x height x width, with a corner that is 0."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 8
    cube = np.full((31, height, width), 0.3)
    for _ in range(4):
        a, b, c, d = generator.uniform(-1, 1, 4)
        band = np.sin(WAVELENGTHS / 60 * a + 6 * b)
        cube += 0.12 * band[:, None, None] * np.sin(3 * c * x + 3 * d * y + a)
    cube = np.clip(cube, 0.02, 1)
    cube[:, :2, :3] = 0
    return cube.astype(np.float32)


def save_npy(path, cube, wavelengths=WAVELENGTHS):
    np.save(path, cube.astype(np.float32))
    text = json.dumps({"wavelengths_nm": [float(nm) for nm in wavelengths]})
    path.with_suffix(".json").write_text(text)


def save_mat(path, cube):
    with h5py.File(path, "w") as file:
        file["cube"] = cube.transpose(0, 2, 1)
        file["bands"] = WAVELENGTHS[:, None].astype(np.float64)


def save_envi(path, cube):
    metadata = {"wavelength": list(WAVELENGTHS), "wavelength units": "Nanometers"}
    spectral.envi.save_image(str(path), cube.transpose(1, 2, 0), ext=".img", metadata=metadata)


@pytest.fixture
def desk(tmp_path, mstpp, source):
    """A folder with three scenes, as cubes and as pictures made of them by NumPy."""
    script = importlib.util.spec_from_file_location("make_chart", source / "examples/make_chart.py")
    make_chart = importlib.util.module_from_spec(script)
    script.loader.exec_module(make_chart)
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    mstpp("export", "--config", "small.json", "--seed", "3", "-o", "small.safetensors")
    for folder in ("cubes", "pictures"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        cube = scene(i)
        save_npy(tmp_path / "cubes" / f"scene{i}.npy", cube)
        picture = make_chart.to_srgb(cube.transpose(1, 2, 0).astype(np.float64))
        Image.fromarray(picture).save(tmp_path / "pictures" / f"scene{i}.png")
    return tmp_path


@pytest.fixture
def accuracy(mstpp):
    """`mstpp accuracy` with the small network's weights; what it says in JSON."""

    def run(*arguments, status=0):
        common = ["--weights", "small.safetensors", "--json"]
        return json.loads(mstpp("accuracy", *arguments, *common, status=status).stdout)

    return run
