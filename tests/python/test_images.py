# SPDX-License-Identifier: Apache-2.0
"""The picture corpus means the same to Pillow as to us; the chart can be made again by its program."""

import json
import runpy
import sys

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")

# Pillow leaves colours to its caller, shows 16 bits as 8, and turns no extra samples away.
UNLIKE = ("icc_p3", "icc_adobe", "icc_in_parts", "exif_adobe", "gamma_", "primaries_", "rgb16",
          "rgba16", "rgba_planar", "float", "palette_8bit", "1x1")  # fmt: skip


def test_pillow_reads_the_same(source):
    folder = source / "tests" / "data" / "images"
    compared = 0
    for entry in json.loads((folder / "images.json").read_text()):
        if "error" in entry or entry["white"] != 255 or entry["file"].startswith(UNLIKE):
            continue
        with Image.open(folder / entry["file"]) as picture:
            pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        raw = np.frombuffer((folder / entry["expected"]).read_bytes(), np.uint8)
        expected = raw.reshape(3, entry["height"], entry["width"])
        np.testing.assert_array_equal(pixels.transpose(2, 0, 1), expected, entry["file"])
        compared += 1
    assert compared > 60


def test_chart_is_made_again(source, tmp_path, monkeypatch):
    examples = source / "examples"
    monkeypatch.setattr(sys, "argv", ["make_chart.py", str(tmp_path)])
    runpy.run_path(str(examples / "make_chart.py"), run_name="__main__")
    name = "colorchecker_truth.csv"
    assert (tmp_path / name).read_text() == (examples / name).read_text()
    made, kept = (Image.open(folder / "colorchecker.png") for folder in (tmp_path, examples))
    np.testing.assert_array_equal(np.asarray(made), np.asarray(kept))
