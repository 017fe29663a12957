# SPDX-License-Identifier: Apache-2.0
"""`mstpp export --format onnx`: onnx's own checker, and what ONNX Runtime makes of the graphs."""

import collections
import itertools
import json
import os
import re
import subprocess

import numpy as np
import pytest
from safetensors.numpy import load_file

onnx = pytest.importorskip("onnx", reason="onnx is not installed; `./dev test` installs it")
ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

FORMS = ["published", "restructured"]
FORMS_AND_OPSETS = list(itertools.product(FORMS, [13, 17]))
BLOCKS = 5  # attention blocks of stress_one_stage
PICTURE_SIDES = (13, 18)
PADDED_SIDES = (16, 24)


def weights_of(source, name):
    if name == "cave":
        return source / "weights" / "mst_plus_plus_cave.safetensors"
    return source / "tests" / "data" / "golden" / f"{name}.pth"


@pytest.fixture
def export(mstpp, source, tmp_path):
    """Exports weights by name; the file."""

    def run(weights, *flags, name="network.onnx"):
        mstpp("export", "--weights", weights_of(source, weights), "-o", name, *flags)
        return tmp_path / name

    return run


@pytest.fixture
def reference(mstpp, source, tmp_path):
    """What the float64 engine makes of a batch."""

    def run(weights, batch, *flags):
        np.save(tmp_path / "batch.npy", batch)
        common = ["--device", "reference", "--weights", weights_of(source, weights)]
        mstpp("run", "batch.npy", "-o", "cube.npy", *common, *flags)
        return np.load(tmp_path / "cube.npy")

    return run


def session_of(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def random_batch(images, height, width, seed=0):
    generator = np.random.default_rng(seed)
    return generator.random((images, 3, height, width), dtype=np.float32)


def run(session, batch):
    (cube,) = session.run(["output"], {"input": batch})
    return cube


def assert_close(cube, expected):
    """To the bound of docs/accuracy.md for the weights `stress` and FP32."""
    assert cube.shape == expected.shape and cube.dtype == np.float32
    assert np.abs(cube - expected).max() <= 1e-5 * np.abs(expected).max()


# Exact


@pytest.mark.parametrize("form, opset", FORMS_AND_OPSETS)
@pytest.mark.parametrize("weights", ["cave", "stress", "stress_one_stage"])
def test_goldens(source, export, weights, form, opset):
    session = session_of(export(weights, "--form", form, "--opset", opset))
    data = source / "tests" / "data" / "golden"
    for case in json.loads((data / "golden.json").read_text())[weights]:
        cube = run(session, np.load(data / f"{weights}.{case}.input.npy"))
        golden = np.load(data / f"{weights}.{case}.output.npy")
        bound = 5e-6 if weights == "cave" else 1e-5 * np.abs(golden).max()
        assert cube.shape == golden.shape and np.abs(cube - golden).max() <= bound, case


@pytest.mark.parametrize("form, opset", FORMS_AND_OPSETS)
def test_one_session_takes_any_size_and_batch(export, reference, form, opset):
    session = session_of(export("stress_one_stage", "--form", form, "--opset", opset))
    shapes = [
        (1, 8, 8), (2, 8, 16), (3, 5, 7), (1, 13, 18), (4, 21, 9),
        (2, 40, 24), (1, 64, 33), (5, 16, 16), (1, 7, 50), (2, 31, 31),
    ]  # fmt: skip
    for i, shape in enumerate(shapes + shapes[:3]):  # and back to earlier ones
        batch = random_batch(*shape, seed=i)
        assert_close(run(session, batch), reference("stress_one_stage", batch))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pad", ["reflect", "zero"])
@pytest.mark.parametrize("size", [None, "13x18"])
@pytest.mark.parametrize("batch", [None, 2])
def test_padding_and_crop(export, reference, form, pad, size, batch):
    flags = ["--form", form, "--pad", pad]
    flags += ["--size", size] if size else []
    flags += ["--batch", batch] if batch else []
    picture = random_batch(2, *PICTURE_SIDES)
    missing = [(0, 0), (0, 0), *((0, p - s) for p, s in zip(PADDED_SIDES, PICTURE_SIDES))]
    padded = np.pad(picture, missing, mode="reflect" if pad == "reflect" else "constant")
    whole = reference("stress_one_stage", padded)
    cropped = run(session_of(export("stress_one_stage", *flags)), picture)
    assert_close(cropped, whole[:, :, : PICTURE_SIDES[0], : PICTURE_SIDES[1]])
    assert_close(cropped, reference("stress_one_stage", picture, "--pad", pad))
    assert_close(run(session_of(export("stress_one_stage", *flags, "--no-crop")), picture), whole)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [[], ["--size", "16x24"]])
def test_padding_left_out(export, reference, form, size):
    session = session_of(export("stress_one_stage", "--form", form, "--pad", "none", *size))
    padded = random_batch(2, *PADDED_SIDES)
    assert_close(run(session, padded), reference("stress_one_stage", padded))
    if not size:
        with pytest.raises(Exception, match="(?i)shape|dimension|broadcast"):
            run(session, random_batch(1, *PICTURE_SIDES))


@pytest.mark.parametrize("form, opset", FORMS_AND_OPSETS)
@pytest.mark.parametrize("weights", ["cave", "stress", "stress_one_stage"])
def test_half_precision(export, reference, mstpp, tmp_path, form, opset, weights):
    flags = ["--form", form, "--opset", opset]
    half = export(weights, *flags, "--precision", "fp16", name="half.onnx")
    # The same rounded weights in float32: what is left is the rounding of the arithmetic.
    mstpp("export", "--weights", "half.onnx", "-o", "rounded.onnx", *flags)
    picture = random_batch(2, *PICTURE_SIDES)
    cube, rounded = (run(session_of(tmp_path / f), picture) for f in ("half.onnx", "rounded.onnx"))
    assert cube.dtype == np.float32
    for expected, bound in ((rounded, 2**-9), (reference(weights, picture), 2**-8)):
        assert 0 < np.abs(cube - expected).max() <= bound * np.abs(expected).max()
    assert half.stat().st_size < 0.62 * (tmp_path / "rounded.onnx").stat().st_size


# Valid


def all_flags():
    """Every option with every other."""
    sizes = [[], ["--size", "13x18", "--batch", "2"], ["--size", "16x24"]]
    pads = [[], ["--no-crop"], ["--pad", "zero"], ["--pad", "none"]]
    for size, pad, precision in itertools.product(sizes, pads, ["fp32", "fp16"]):
        if not ("13x18" in size and "none" in pad):
            yield [*size, *pad, "--precision", precision]


@pytest.mark.parametrize("form, opset", FORMS_AND_OPSETS)
def test_onnx_checker(export, form, opset):
    for flags in all_flags():
        path = export("stress_one_stage", "--form", form, "--opset", opset, *flags)
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
        assert not model.functions and not model.graph.sparse_initializer


def dims_of(value):
    return [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("form, opset", FORMS_AND_OPSETS)
def test_every_shape_of_a_fixed_graph_is_known(export, form, opset):
    flags = ["--form", form, "--opset", opset, "--size", "13x18", "--batch", "2"]
    model = onnx.shape_inference.infer_shapes(
        onnx.load(export("stress_one_stage", *flags)), strict_mode=True
    )
    made = {value.name: dims_of(value) for value in model.graph.value_info}
    for node in model.graph.node[:-1]:
        dims = made[node.output[0]]
        assert all(isinstance(dim, int) and dim > 0 for dim in dims), (node.name, dims)
    assert dims_of(model.graph.output[0]) == [2, 31, *PICTURE_SIDES]


# Clean


def ops_of(model):
    return collections.Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("form, opset", FORMS_AND_OPSETS)
def test_a_fixed_graph_computes_no_shapes(export, form, opset):
    flags = ["--form", form, "--opset", opset, "--size", "13x18"]
    graph = onnx.load(export("stress_one_stage", *flags)).graph
    constants = {tensor.name for tensor in graph.initializer}
    maker = {node.output[0]: node for node in graph.node}
    floats = {"FLOAT", "FLOAT16"}
    for tensor in graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        assert kind in floats or kind == "INT64" and tensor.name.startswith("constant/")
    for node in graph.node:
        assert not set(node.input) <= constants, f"{node.name} could be computed beforehand"
        # Shapes, pads and bounds are written down, not computed.
        if node.op_type in ("Reshape", "Pad", "Slice"):
            assert set(node.input[1:]) <= constants
        if node.op_type == "Transpose":
            before = maker[node.input[0]]
            assert before.op_type != "Transpose", f"{before.name}, {node.name}"
    allowed = {
        "Add", "Concat", "Conv", "ConvTranspose", "Div", "Erf", "LayerNormalization", "MatMul",
        "Max", "Mul", "Pad", "ReduceL2", "ReduceMean", "ReduceSum", "Reshape", "Slice", "Softmax",
        "Sqrt", "Sub", "Transpose",
    }  # fmt: skip
    ops = ops_of(onnx.load(export("stress_one_stage", *flags)))
    assert set(ops) <= allowed
    assert ops["Pad"] == ops["Slice"] == ops["Concat"] - 1 == 1  # one concatenation a decoder level


@pytest.mark.parametrize("form", FORMS)
def test_transposes_are_those_that_ops_need(export, form):
    # LayerNormalization works along the last axis only: in and out. MatMul transposes nothing
    # itself: one for KQ' or S = XX'.
    for opset, count in ((17, 3), (13, 1)):
        model = onnx.load(export("stress_one_stage", "--form", form, "--opset", opset))
        assert ops_of(model)["Transpose"] == count * BLOCKS


@pytest.mark.parametrize("form", FORMS)
def test_names_are_those_of_the_checkpoint(export, mstpp, tmp_path, form):
    path = export("stress_one_stage", "--form", form)
    mstpp("export", "--weights", "network.onnx", "-o", "network.safetensors")
    weights = load_file(tmp_path / "network.safetensors")
    graph = onnx.load(path).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    named = {name for name in held if "/" not in name}
    assert named == set(weights)
    for name in named:
        assert np.array_equal(held[name].ravel(), weights[name].ravel()), name
    nodes = {node.name: node for node in graph.node}
    assert len(nodes) == len(graph.node)
    assert all(node.output[0] == node.name for node in graph.node)
    read = set()
    for node in graph.node:
        for weight in set(node.input) & named:
            read.add(weight)
            module = weight.rsplit(".", 1)[0]
            if form == "restructured":  # products of several modules' weights
                module = module.removesuffix(".to_q").removesuffix(".to_k").removesuffix(".proj")
            assert node.name == module or node.name.startswith((module + "/", module + ".")), weight
    assert read == named
    if form == "published":
        assert {weight.rsplit(".", 1)[0] for weight in named} <= set(nodes)


# Read back


@pytest.mark.parametrize("form, opset", FORMS_AND_OPSETS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_weights_come_back(source, export, mstpp, tmp_path, form, opset, precision):
    flags = ["--form", form, "--opset", opset, "--precision", precision]
    path = export("stress_one_stage", *flags)
    onnx.save(onnx.load(path), tmp_path / "saved.onnx")  # by another program
    golden = weights_of(source, "stress_one_stage")
    mstpp("export", "--weights", golden, "-o", "golden.safetensors")
    golden = load_file(tmp_path / "golden.safetensors")
    for name in ("network.onnx", "saved.onnx"):
        mstpp("export", "--weights", name, "-o", "back.safetensors")
        back = load_file(tmp_path / "back.safetensors")
        assert set(back) == set(golden)
        for key, tensor in golden.items():
            assert tensor.shape == back[key].shape
            kept = [tensor] if precision == "fp32" else [tensor, tensor.astype(np.float16)]
            assert any(np.array_equal(back[key], k.astype(np.float32)) for k in kept), key


def test_external_data_are_refused(export, mstpp, tmp_path):
    model = onnx.load(export("stress_one_stage"))
    onnx.save(
        model, tmp_path / "outside.onnx", save_as_external_data=True, location="weights.bin",
        size_threshold=0,
    )  # fmt: skip
    assert (tmp_path / "weights.bin").exists()
    done = mstpp("info", "outside.onnx", status=1)
    assert "outside.onnx" in done.stderr and "external data are not read" in done.stderr


# Documented


def test_the_documents_snippets(source, binary, tmp_path, monkeypatch):
    text = (source / "docs" / "formats.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"<!-- tested: onnx -->\n```sh\n(.*?)```", text, re.DOTALL)
    (program,) = re.findall(r"<!-- tested: onnx -->\n```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mstpp").symlink_to(binary)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=True)
    names = {}
    exec(compile(program, "docs/formats.md", "exec"), names)
    assert names["cube"].shape == (2, 31, 61, 90)
    fixed = onnx.load("fixed.onnx")
    assert dims_of(fixed.graph.output[0]) == [1, 31, 482, 512]
