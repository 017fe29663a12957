# SPDX-License-Identifier: Apache-2.0
"""`mstpp profile`, on the CPU."""

import json

import numpy as np
import pytest
from PIL import Image

ARGUMENTS = ["--size", "24x40", "--iterations", "3", "--warm-up", "1", "--no-rates", "--json"]
STAGE = (
    ["embedding"]
    + ["encoder_layers.0.0.blocks.0.0", "encoder_layers.0.0.blocks.0.1", "encoder_layers.0.1"]
    + ["encoder_layers.1.0.blocks.0.0", "encoder_layers.1.0.blocks.0.1", "encoder_layers.1.1"]
    + ["bottleneck.blocks.0.0", "bottleneck.blocks.0.1"]
    + ["decoder_layers.0.1", "decoder_layers.0.2.blocks.0.0", "decoder_layers.0.2.blocks.0.1"]
    + ["decoder_layers.1.1", "decoder_layers.1.2.blocks.0.0", "decoder_layers.1.2.blocks.0.1"]
    + ["mapping"]
)
NAMES = ["conv_in", *(f"body.{i}.{name}" for i in range(3) for name in STAGE), "conv_out"]


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_blocks(mstpp, device):
    report = json.loads(mstpp("profile", "--device", device, "--batch", "2", *ARGUMENTS).stdout)
    assert [block["name"] for block in report["blocks"]] == NAMES
    assert (report["device"], report["precision"], report["count"]) == (device, "fp32", 3)
    assert (report["height"], report["width"], report["batch"]) == (24, 40, 2)
    for kind in ("blocks", "kernels"):
        assert sum(record["percentage"] for record in report[kind]) == pytest.approx(100)
        for record in report[kind]:
            assert 0 < record["medianMs"] <= record["timeMs"]
            assert record["timeMs"] == pytest.approx(3 * record["averageMs"])
    for key in ("timeMs", "averageMs", "medianMs"):
        assert report["total"][key] == pytest.approx(sum(b[key] for b in report["blocks"]))
    kernels = {kernel["name"].split(".")[-1]: kernel["kernel"] for kernel in report["kernels"]}
    assert kernels["mapping"] == "conv3x3"
    # 961 channels in and out of a 3x3 window for each of 2 x 24 x 40 pixels.
    mapping = report["blocks"][NAMES.index("body.0.mapping")]
    operations = 2 * 9 * 31 * 31 * 2 * 24 * 40
    assert mapping["gflops"] * 1e6 * mapping["medianMs"] == pytest.approx(operations)
    # It reads two maps, its input and the residual, and writes one.
    moved = 3 * 31 * 4 * 2 * 24 * 40
    assert mapping["gigabytesPerSecond"] * 1e6 * mapping["medianMs"] == pytest.approx(moved)


def test_bound_and_table(mstpp):
    arguments = ["--device", "cpu", "--size", "24x40", "--iterations", "1", "--threads", "1"]
    report = json.loads(mstpp("profile", *arguments, "--json").stdout)
    assert report["rates"]["gemmGflops"] > 0
    assert all(block["shareOfBound"] > 0 for block in report["blocks"])
    lines = mstpp("profile", *arguments, "--no-rates").stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [*NAMES, "all"]


def test_agrees_with_bench_about_the_blocks(mstpp):
    arguments = ["--device", "cpu", "--size", "24x40", "--iterations", "3", "--no-rates", "--json"]
    report = json.loads(mstpp("bench", "--blocks", *arguments).stdout)
    assert [block["name"] for block in report["results"][0]["blocks"]] == NAMES


def test_a_picture_sets_the_size(mstpp, tmp_path):
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "black.png")
    arguments = ["--device", "cpu", "--input", "black.png", *ARGUMENTS[2:]]
    report = json.loads(mstpp("profile", *arguments).stdout)
    assert (report["height"], report["width"]) == (16, 24)


def test_backend_without_a_profile(mstpp):
    doctor = json.loads(mstpp("doctor", "--json").stdout)
    if not next(b["usable"] for b in doctor["backends"] if b["name"] == "onnxruntime"):
        pytest.skip("onnxruntime is not usable here")
    done = mstpp("profile", "--device", "onnxruntime", *ARGUMENTS, status=1)
    assert json.loads(done.stdout)["error"]["code"] == "unsupported"
