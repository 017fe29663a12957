# SPDX-License-Identifier: Apache-2.0
"""`mstpp compare`: its statistics against NumPy, and the block that it names."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

SMALL = {"stages": 2, "blocks": [1, 1]}


@pytest.fixture
def desk(tmp_path, mstpp):
    """A folder with a small network's weights, a picture and a tensor."""
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    mstpp("export", "--config", "small.json", "--seed", "3", "-o", "small.safetensors")
    generator = np.random.default_rng(1)
    rgb = generator.integers(0, 256, (21, 26, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    np.save(tmp_path / "batch.npy", generator.random((3, 3, 13, 18), dtype=np.float32))
    return tmp_path


@pytest.fixture
def compare(mstpp):
    """`mstpp compare` with the small network's weights; what it says in JSON."""

    def run(a, b, *arguments, status=0):
        common = ["--weights", "small.safetensors", "--json"]
        return json.loads(mstpp("compare", a, b, *arguments, *common, status=status).stdout)

    return run


def change(desk, name, factor, out="changed.safetensors"):
    """A copy of the weights with one tensor scaled."""
    with safe_open(desk / "small.safetensors", "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        metadata = file.metadata()
    tensors[name] = tensors[name] * np.float32(factor)
    save_file(tensors, desk / out, metadata)


def test_cpu_agrees_with_the_reference(desk, compare):
    report = compare("cpu", "reference", "photo.png")
    assert report["first_departure"] is None
    names = [block["name"] for block in report["blocks"]]
    assert names[0] == "conv_in" and names[-1] == "conv_out" and len(names) == 22
    for block in [*report["blocks"], report["output"]]:
        assert 0 < block["max"] <= 1e-6 + 1e-5 * block["largest"]
        assert 0 < block["mean"] < block["max"]
        assert block["cosine"] > 1 - 1e-9 and block["not_finite"] == 0
    assert report["a"]["device"] == "cpu" and report["b"]["device"] == "reference"
    sizes = {name: (b["channels"], b["height"], b["width"]) for name, b in zip(names, report["blocks"])}
    assert sizes["conv_in"] == (31, 24, 32)
    assert sizes["body.1.bottleneck.blocks.0.1"] == (62, 12, 16)
    assert (report["output"]["height"], report["output"]["width"]) == (21, 26)


@pytest.mark.parametrize(
    "block",
    [
        "body.0.encoder_layers.0.0.blocks.0.1",
        "body.0.decoder_layers.0.2.blocks.0.1",
        "body.1.bottleneck.blocks.0.1",
    ],
)
def test_names_the_block_whose_layer_norm_was_changed(desk, compare, block):
    change(desk, f"{block}.norm.weight", 1.001)
    report = compare("cpu", "cpu,,changed.safetensors", "photo.png", status=1)
    assert report["first_departure"] == block
    departs = [b["departs"] for b in report["blocks"]]
    names = [b["name"] for b in report["blocks"]]
    assert not any(departs[: names.index(block)]) and report["output"]["departs"]
    assert all(b["max"] == 0 for b in report["blocks"][: names.index(block)])
    report = compare("cpu,fp32,changed.safetensors", "reference", "photo.png", status=1)
    assert report["first_departure"] == block


def test_onnx_runtime_names_the_same_block(desk, compare):
    onnxruntime = pytest.importorskip("onnxruntime")
    (library,) = pathlib.Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*")
    block = "body.1.encoder_layers.0.0.blocks.0.1"
    change(desk, f"{block}.norm.weight", 1.001)
    there = ["photo.png", "--onnxruntime", library]
    report = compare("onnxruntime", "reference", *there)
    assert report["first_departure"] is None and len(report["blocks"]) == 22
    assert all(b["max"] > 0 for b in report["blocks"])
    report = compare("onnxruntime", "cpu,,changed.safetensors", *there, status=1)
    assert report["first_departure"] == block


def test_an_onnx_runtime_that_is_not_there(desk, mstpp):
    command = ["compare", "onnxruntime", "cpu", "photo.png", "--onnxruntime", "/nowhere/lib.so"]
    done = mstpp(*command, "--weights", "small.safetensors", status=1)
    assert "/nowhere/lib.so" in done.stderr and "pip install onnxruntime" in done.stderr


def test_tolerances_decide(desk, compare):
    block = "body.1.bottleneck.blocks.0.1"
    change(desk, f"{block}.norm.weight", 1.001)
    sides = ["cpu", "cpu,,changed.safetensors", "photo.png"]
    report = compare(*sides, "--rtol", "0.1", status=0)
    assert report["first_departure"] is None and report["rtol"] == 0.1
    (changed,) = (b for b in report["blocks"] if b["name"] == block)
    atol = repr(0.99 * changed["max"])
    report = compare(*sides, "--rtol", "0", "--atol", atol, status=1)
    assert report["first_departure"] == block
    atol = repr(1.01 * max(b["max"] for b in report["blocks"]))
    report = compare(*sides, "--rtol", "0", "--atol", atol, status=0)
    assert report["first_departure"] is None


def test_statistics_are_those_of_numpy(desk, compare, mstpp):
    change(desk, "body.0.embedding.weight", 1.5)
    for name in ("small", "changed"):
        mstpp("run", "batch.npy", "-o", f"{name}.npy", "--weights", f"{name}.safetensors")
    a, b = (np.load(desk / f"{name}.npy").astype(np.float64) for name in ("changed", "small"))
    report = compare("auto,,changed.safetensors", "auto", "batch.npy", status=1)
    output = report["output"]
    assert output["max"] == np.abs(a - b).max()
    assert output["mean"] == pytest.approx(np.abs(a - b).mean(), rel=1e-12)
    norm = np.linalg.norm
    assert output["relative"] == pytest.approx(norm(a - b) / norm(b), rel=1e-12)
    assert output["cosine"] == pytest.approx((a * b).sum() / norm(a) / norm(b), rel=1e-12)
    assert output["largest"] == np.abs(b).max()


def test_the_table(desk, mstpp):
    done = mstpp("compare", "cpu", "cpu", "photo.png", "--weights", "small.safetensors")
    lines = done.stdout.splitlines()
    assert lines[0].split()[0] == "block" and lines[-2].startswith("output")
    assert lines[-1] == "No block departs."
    change(desk, "conv_in.weight", 2)
    sides = ["cpu,,changed.safetensors", "cpu", "photo.png"]
    done = mstpp("compare", *sides, "--weights", "small.safetensors", status=1)
    assert done.stdout.splitlines()[-1] == "The first to depart: conv_in"
    assert "conv_in 31 x 24 x 32" in " ".join(done.stdout.split())


def test_heat_map(desk, compare, mstpp):
    change(desk, "body.0.embedding.weight", 1.5)
    compare("cpu,,changed.safetensors", "cpu", "photo.png", "--heatmap", "e.png", status=1)
    with Image.open(desk / "e.png") as picture:
        colors = np.asarray(picture)
    assert colors.shape == (21, 26, 3)
    for name in ("small", "changed"):
        mstpp("run", "photo.png", "-o", f"{name}.npy", "--no-clip", "--weights", f"{name}.safetensors")
    error = np.abs(np.load(desk / "small.npy") - np.load(desk / "changed.npy")).max(0)
    worst = np.unravel_index(error.argmax(), error.shape)
    assert (colors[worst] == 255).all()
    # Lightness rises with the error.
    order = np.argsort(error.ravel())
    light = colors.reshape(-1, 3).astype(int).sum(1)[order]
    assert (np.diff(light) >= -2).all()

    compare("cpu", "cpu", "photo.png", "--heatmap", "zero.png")
    with Image.open(desk / "zero.png") as picture:
        assert not np.asarray(picture).any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["cpu", "cpu"], "INPUT"),
        (["gpu", "cpu", "photo.png"], "'gpu' is not one of auto"),
        (["cpu,fp8", "cpu", "photo.png"], "fp32, tf32, fp16, bf16, int8"),
        (["cpu", "cpu", "."], "is a folder"),
        (["cpu", "cpu", "photo.png", "--rtol", "-1"], "--rtol"),
        (["cpu", "cpu", "photo.png", "--heatmap", "e.jpg"], ".png"),
        (["cpu", "cpu", "photo.png", "--heatmap", "photo.png"], "overwrite"),
        (["cpu", "cpu", "batch.npy", "--heatmap", "e.png"], "one image"),
        (["cpu", "cpu,,other.safetensors", "photo.png"], "another network"),
        (["cpu", "cpu,,minmax.safetensors", "photo.png"], "--scaling"),
    ],
)
def test_wrong_use(desk, mstpp, arguments, message):
    mstpp("export", "--seed", "1", "-o", "other.safetensors")
    with safe_open(desk / "small.safetensors", "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    save_file(tensors, desk / "minmax.safetensors", {"scaling": "minmax"})
    photo = (desk / "photo.png").read_bytes()
    done = mstpp("compare", *arguments, "--weights", "small.safetensors", status=2)
    assert done.stdout == ""
    assert done.stderr.startswith("mstpp: error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert (desk / "photo.png").read_bytes() == photo


def test_a_chosen_scaling_serves_both(desk, compare):
    with safe_open(desk / "small.safetensors", "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    save_file(tensors, desk / "minmax.safetensors", {"scaling": "minmax"})
    report = compare("cpu", "cpu,,minmax.safetensors", "photo.png", "--scaling", "unit")
    assert report["output"]["max"] == 0


def test_a_missing_input(desk, mstpp):
    done = mstpp("compare", "cpu", "cpu", "gone.png", "--weights", "small.safetensors", status=1)
    assert "gone.png" in done.stderr
