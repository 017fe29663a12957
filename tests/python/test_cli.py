# SPDX-License-Identifier: Apache-2.0
"""The command `mstpp` from outside: every option, exit status and promise about files."""

import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import time

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

SMALL = {"stages": 1, "blocks": [1, 1]}


@pytest.fixture
def desk(tmp_path):
    """A folder with a small network's description, two pictures and a file that is none."""
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    (tmp_path / "photos").mkdir()
    draw(tmp_path / "photos" / "leaf.png", 24, 16, 1)
    draw(tmp_path / "photos" / "moss.png", 17, 9, 2)
    return tmp_path


@pytest.fixture
def run(desk, mstpp):
    """`mstpp run` with the small network."""

    def run_small(*arguments, status=0):
        return mstpp("run", "--config", "small.json", *arguments, status=status)

    return run_small


def draw(path, width, height, seed):
    """A picture of smooth random colours; returns its counts, height x width x 3."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(10, 250, (4, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    picture.save(path)
    return np.asarray(picture)


def counts(path):
    return np.asarray(Image.open(path)).astype(np.float32)


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def read_mat(path):
    with h5py.File(path) as file:
        return file["cube"][:].transpose(0, 2, 1)  # bands, height, width


# Wrong use and help


@pytest.mark.parametrize("command", ["run", "info", "doctor", "export"])
def test_help_of_each_command(mstpp, command):
    text = mstpp(command, "--help").stdout
    assert "--json" in text and "--quiet" in text
    assert command in mstpp("--help").stdout


def test_help_names_every_option(mstpp):
    text = mstpp("run", "--help").stdout
    options = "output format scaling pad ensemble clip preview weights config seed device"
    for option in (options + " precision threads json quiet allow-nonfinite").split():
        assert f"--{option}" in text
    assert "--no-clip" in text
    assert "current folder" in text


def test_version(mstpp):
    assert re.fullmatch(r"mstpp \d+\.\d+\.\d+\n", mstpp("--version").stdout)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "subcommand"),
        (["paint"], "paint"),
        (["run"], "INPUT"),
        (["run", "photos", "--colour"], "--colour"),
        (["run", "photos", "--precision", "fp8"], "fp32, tf32, fp16, bf16, int8"),
        (["run", "photos", "--scaling", "log"], "minmax, unit, none"),
        (["run", "photos", "--pad", "mirror"], "reflect, zero"),
        (["run", "photos", "--ensemble", "mode"], "none, mean, median"),
        (["run", "photos", "--format", "mat,bmp"], "mat, npy, envi, tif"),
        (["run", "photos", "--format", ""], "mat, npy, envi, tif"),
        (["run", "photos", "--clip", "--no-clip"], "clip"),
        (["run", "photos", "--threads", "-1"], "--threads"),
        (["run", "photos", "--threads", "two"], "--threads"),
        (["run", "photos", "--device", "gpu"], "auto, cuda[:N], cpu"),
        (["run", "photos", "--device", "cpu:1"], "cpu:1"),
        (["run", "photos", "--weights", "w.pth", "--seed", "1"], "--seed"),
        (["run", "photos", "--weights", "w.pth", "--config", "small.json"], "--config"),
        (["run", "photos", "-o", "cube.mat"], "folder"),
        (["run", "photos/leaf.png", "-o", "cube.bmp"], ".bmp"),
        (["run", "photos/leaf.png", "-o", "cube.mat", "--format", "npy"], "--format"),
        (["info", "--size", "482"], "482x512"),
        (["info", "--size", "0x8"], "482x512"),
        (["info", "--size", "8x8x8"], "482x512"),
        (["export", "-o", "weights.pth"], ".npz"),
        (["export", "-o", "weights.npz", "--format", "safetensors"], "--format"),
        (["export", "--format", "pth"], "pth"),
        (["export", "--opset", "17"], "--format onnx"),
        (["export", "--format", "onnx", "--opset", "3"], "13 to 17"),
        (["export", "--format", "onnx", "--size", "big"], "482x512"),
        (["export", "--format", "onnx", "--size", "13x16", "--pad", "none"], "multiples of 8"),
        (["export", "--format", "onnx", "--pad", "edge"], "reflect, zero, none"),
        (["export", "--format", "onnx", "--form", "fused"], "published, restructured"),
        (["export", "--format", "npz", "--no-crop"], "--format onnx"),
        (["doctor", "now"], "now"),
    ],
)
def test_wrong_use(desk, mstpp, arguments, message):
    before = listing(desk)
    done = mstpp(*arguments, status=2)
    assert done.stdout == ""
    assert done.stderr.startswith("mstpp: error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert listing(desk) == before
    error = json.loads(mstpp(*arguments, "--json", status=2).stdout)["error"]
    assert message in error["message"]


# Pictures to cubes


def test_the_bundled_weights_are_the_default(desk, mstpp):
    done = mstpp("run", "photos/leaf.png")
    assert "photos/leaf.png -> leaf.mat" in done.stdout
    cube = read_mat(desk / "leaf.mat")
    assert cube.shape == (31, 16, 24) and cube.dtype == np.float32
    assert cube.min() >= 0 and cube.max() <= 1
    assert listing(desk) == ["leaf.mat", "photos", "photos/leaf.png", "photos/moss.png", "small.json"]


def test_formats_hold_the_same_cube(desk, run):
    run("photos/leaf.png", "-o", "cubes/", "--format", "mat,npy,envi,tif,mat")
    names = ["leaf.hdr", "leaf.img", "leaf.json", "leaf.mat", "leaf.npy", "leaf.tif"]
    assert listing(desk / "cubes") == names
    cube = np.load(desk / "cubes/leaf.npy")
    assert cube.shape == (31, 16, 24)
    assert np.array_equal(cube, read_mat(desk / "cubes/leaf.mat"))
    assert np.array_equal(cube.ravel(), np.fromfile(desk / "cubes/leaf.img", "<f4"))
    tiff = tifffile.imread(desk / "cubes/leaf.tif")
    assert np.array_equal(cube, tiff if tiff.shape == cube.shape else tiff.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "out, extra, files",
    [
        ("x/cube.mat", [], ["cube.mat"]),
        ("x/cube.npy", [], ["cube.json", "cube.npy"]),
        ("x/cube.img", [], ["cube.hdr", "cube.img"]),
        ("x/cube.hdr", [], ["cube.hdr", "cube.img"]),
        ("x/cube.tiff", [], ["cube.tiff"]),
        ("x/cube.tiff", ["--format", "tif,mat"], ["cube.mat", "cube.tiff"]),
        ("x/cube.mat", ["--preview"], ["cube.mat", "cube.preview.png"]),
        ("x", [], ["leaf.mat"]),
        ("x/", ["--format", "envi"], ["leaf.hdr", "leaf.img"]),
    ],
)
def test_where_the_cube_goes(desk, run, out, extra, files):
    run("photos/leaf.png", "-o", out, *extra)
    assert listing(desk / "x") == files


def test_a_folder_and_a_file_that_exist_decide(desk, run):
    (desk / "cubes.mat").mkdir()
    run("photos", "-o", "cubes.mat")
    assert listing(desk / "cubes.mat") == ["leaf.mat", "moss.mat"]


def test_preview(desk, run):
    run("photos/leaf.png", "--preview")
    picture = Image.open(desk / "leaf.preview.png")
    assert picture.size == (24, 16) and picture.mode == "RGB"


def test_preview_needs_wavelengths(desk, mstpp):
    (desk / "four.json").write_text(json.dumps({**SMALL, "bands": 4}))
    done = mstpp("run", "--config", "four.json", "photos/leaf.png", "--preview", status=2)
    assert "wavelength" in done.stderr
    assert not (desk / "leaf.mat").exists()


def test_scaling(desk, run):
    rgb = counts(desk / "photos/leaf.png")
    scaled = {
        "unit": rgb / np.float32(255),
        "none": rgb,
        "minmax": (rgb - rgb.min()) / (rgb.max() - rgb.min()),
    }
    for scaling, array in scaled.items():
        np.save(desk / "tensor.npy", array.transpose(2, 0, 1))
        run("tensor.npy", "-o", "expected.npy")
        run("photos/leaf.png", "-o", "cube.npy", "--scaling", scaling, "--no-clip")
        assert np.array_equal(np.load(desk / "cube.npy"), np.load(desk / "expected.npy"))
        assert json.loads((desk / "cube.json").read_text())["mstpp"]["scaling"] == scaling


def test_clip(desk, run):
    run("photos/leaf.png", "-o", "raw.npy", "--no-clip")
    run("photos/leaf.png", "-o", "default.npy")
    run("photos/leaf.png", "-o", "clipped.npy", "--clip")
    raw = np.load(desk / "raw.npy")
    assert raw.min() < 0
    assert np.array_equal(np.load(desk / "default.npy"), np.clip(raw, 0, 1))
    assert np.array_equal(np.load(desk / "clipped.npy"), np.clip(raw, 0, 1))


def turned(array, flip_x, flip_y, transpose, back=False):
    """The official code's transform of (..., H, W) and its inverse."""
    steps = [(flip_x, lambda a: a[..., ::-1]), (flip_y, lambda a: a[..., ::-1, :])]
    steps.append((transpose, lambda a: a.swapaxes(-1, -2)))
    for wanted, step in reversed(steps) if back else steps:
        array = step(array) if wanted else array
    return array


def test_ensemble(desk, run):
    rgb = counts(desk / "photos/leaf.png").transpose(2, 0, 1)
    scaled = (rgb - rgb.min()) / (rgb.max() - rgb.min())
    results = []
    for bits in np.ndindex(2, 2, 2):
        np.save(desk / "variant.npy", np.ascontiguousarray(turned(scaled, *bits)))
        run("variant.npy", "-o", "result.npy")
        results.append(turned(np.load(desk / "result.npy"), *bits, back=True))
    expected = {
        "mean": np.mean(np.stack(results).astype(np.float64), axis=0),
        "median": np.sort(np.stack(results), axis=0)[3],  # torch.median: the lower middle one
    }
    for ensemble, cube in expected.items():
        run("photos/leaf.png", "-o", "e.npy", "--ensemble", ensemble, "--scaling", "minmax")
        np.testing.assert_allclose(np.load(desk / "e.npy"), np.clip(cube, 0, 1), rtol=0, atol=5e-7)
        assert json.loads((desk / "e.json").read_text())["mstpp"]["ensemble"] == ensemble


def test_short_sides_need_zero_padding(desk, run):
    draw(desk / "tiny.png", 3, 9, 3)
    done = run("tiny.png", status=1)
    assert "tiny.png" in done.stderr and "--pad zero" in done.stderr
    run("tiny.png", "--pad", "zero")
    assert read_mat(desk / "tiny.mat").shape == (31, 9, 3)


def test_seeds_and_threads(desk, run):
    run("photos/leaf.png", "-o", "a.npy", "--seed", "5", "--threads", "1", "--device", "cpu")
    run("photos/leaf.png", "-o", "b.npy", "--seed", "5", "--threads", "2", "--device", "cpu")
    run("photos/leaf.png", "-o", "c.npy", "--seed", "6", "--device", "cpu")
    a, b, c = (np.load(desk / f"{name}.npy") for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_devices_agree_and_are_recorded(desk, run, mstpp):
    for device in ("cpu", "reference"):
        run("photos/leaf.png", "-o", f"{device}.npy", "--device", device, "--no-clip")
        provenance = json.loads(mstpp("info", f"{device}.npy", "--json").stdout)["provenance"]
        assert provenance["backend"] == device and provenance["precision"] == "fp32"
    cpu, reference = np.load(desk / "cpu.npy"), np.load(desk / "reference.npy")
    np.testing.assert_allclose(cpu, reference, rtol=0, atol=2e-5 * np.abs(reference).max())


def test_a_device_that_cannot_run_is_an_error(run):
    done = run("photos/leaf.png", "--device", "tensorrt", status=1)
    assert "tensorrt: not compiled in" in done.stderr
    done = run("photos/leaf.png", "--device", "reference", "--precision", "int8", status=1)
    assert "int8" in done.stderr and "fp32" in done.stderr


def test_weights_that_are_not_there(desk, mstpp):
    done = mstpp("run", "photos/leaf.png", "--weights", "none.pth", status=1)
    assert "none.pth" in done.stderr
    assert not (desk / "leaf.mat").exists()


def test_weights_with_nan_are_refused_unless_asked(desk, mstpp):
    mstpp("export", "--config", "small.json", "-o", "w.npz")
    arrays = dict(np.load(desk / "w.npz"))
    name = next(name for name in arrays if name.endswith("conv_in.weight"))
    arrays[name][0, 0, 0, 0] = np.nan
    np.savez(desk / "nan.npz", **arrays)
    assert "not a number" in mstpp("run", "photos/leaf.png", "--weights", "nan.npz", status=1).stderr
    mstpp("run", "photos/leaf.png", "--weights", "nan.npz", "--allow-nonfinite")


# Tensors


def test_tensors(desk, run):
    batch = np.random.default_rng(0).random((5, 3, 9, 12), dtype=np.float32)
    np.save(desk / "batch.npy", batch)
    run("batch.npy", "-o", "cubes.npy")
    cubes = np.load(desk / "cubes.npy")
    assert cubes.shape == (5, 31, 9, 12) and cubes.dtype == np.float32
    for i, image in enumerate(batch):
        np.save(desk / "one.npy", image)
        run("one.npy", "-o", "cube.npy")
        assert np.array_equal(np.load(desk / "cube.npy"), cubes[i])
    metadata = json.loads((desk / "cubes.json").read_text())
    assert len(metadata["wavelengths_nm"]) == 31
    assert metadata["mstpp"]["scaling"] == "none" and metadata["mstpp"]["clipped"] is False


def test_a_batch_in_several_parts(desk, run):
    """Larger than what goes through the network at once."""
    batch = np.random.default_rng(0).random((3, 3, 320, 480), dtype=np.float32)
    np.save(desk / "batch.npy", batch)
    run("batch.npy", "-o", "cubes.npy", "--device", "cpu")
    np.save(desk / "last.npy", batch[2])
    run("last.npy", "-o", "cube.npy", "--device", "cpu")
    assert np.array_equal(np.load(desk / "cube.npy"), np.load(desk / "cubes.npy")[2])


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((4, 8, 8), np.float32), "(4, 8, 8)"),
        (np.zeros((8, 8), np.float32), "(8, 8)"),
        (np.zeros((0, 3, 8, 8), np.float32), "(0, 3, 8, 8)"),
        (np.zeros((3, 8, 8), np.uint8), "array.npy"),
        (np.zeros((3, 4, 8), np.float32), "--pad zero"),
    ],
)
def test_arrays_that_are_not_inputs(desk, run, array, message):
    np.save(desk / "array.npy", array)
    before = listing(desk)
    done = run("array.npy", "-o", "cube.npy", status=1)
    assert "array.npy" in done.stderr and message in done.stderr
    assert listing(desk) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--scaling", "unit"],
        ["--ensemble", "mean"],
        ["--clip"],
        ["--preview"],
        ["--format", "mat"],
        ["-o", "cube.mat"],
    ],
)
def test_options_that_mean_nothing_for_a_tensor(desk, run, arguments):
    np.save(desk / "array.npy", np.zeros((3, 8, 8), np.float32))
    out = [] if "-o" in arguments else ["-o", "cubes/"]
    done = run("array.npy", *arguments, *out, status=2)
    assert "array.npy" in done.stderr


def test_options_that_say_what_is_done_to_tensors_anyway(desk, run):
    np.save(desk / "array.npy", np.zeros((3, 8, 8), np.float32))
    run("array.npy", "-o", "cube.npy", "--scaling", "none", "--no-clip", "--format", "npy")


# Several inputs


def test_a_folder_goes_on_past_bad_files(desk, run):
    (desk / "photos/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (desk / "photos/notes.txt").write_text("no picture")
    (desk / "photos/old.preview.png").write_bytes((desk / "photos/leaf.png").read_bytes())
    (desk / "photos/.hidden.png").write_bytes(b"")
    (desk / "photos/below").mkdir()
    draw(desk / "photos/below/deep.png", 8, 8, 1)
    os.rename(desk / "photos/moss.png", desk / "photos/moss")  # known by its content
    done = run("photos", "-o", "cubes", status=1)
    assert listing(desk / "cubes") == ["leaf.mat", "moss.mat"]
    assert "broken.jpg" in done.stderr and "1 of 3 inputs failed" in done.stderr
    assert "skipped, not a picture: photos/notes.txt" in done.stderr
    assert "old.preview.png" in done.stderr and "hidden" not in done.stderr

    report = json.loads(run("photos", "-o", "cubes", "--json", status=1).stdout)
    assert [file["input"] for file in report["files"]] == ["photos/leaf.png", "photos/moss"]
    assert [file["input"] for file in report["failed"]] == ["photos/broken.jpg"]
    assert report["failed"][0]["code"] in ("corrupt", "unsupported")
    assert report["skipped"] == ["photos/notes.txt", "photos/old.preview.png"]


def test_several_inputs_of_all_kinds(desk, run):
    np.save(desk / "array.npy", np.zeros((3, 8, 8), np.float32))
    draw(desk / "sky.png", 9, 9, 4)
    run("sky.png", "photos", "array.npy", "-o", "cubes")
    names = ["array.json", "array.npy", "leaf.mat", "moss.mat", "sky.mat"]
    assert listing(desk / "cubes") == names


def test_a_missing_input_fails_alone(desk, run):
    done = run("photos/leaf.png", "gone.png", status=1)
    assert "gone.png" in done.stderr and (desk / "leaf.mat").exists()


def test_folders_without_pictures(desk, run):
    (desk / "empty").mkdir()
    assert "empty: the folder holds no" in run("empty", status=1).stderr


def test_two_inputs_to_one_output(desk, run):
    draw(desk / "leaf.png", 8, 8, 9)
    before = listing(desk)
    done = run("photos/leaf.png", "leaf.png", status=2)
    assert "photos/leaf.png" in done.stderr and "leaf.mat" in done.stderr
    run("photos/leaf.png", "photos/leaf.png", "-o", "cubes", status=2)
    assert listing(desk) == before


def test_inputs_are_never_overwritten(desk, run):
    np.save(desk / "array.npy", np.zeros((3, 8, 8), np.float32))
    os.symlink("array.npy", desk / "link.npy")
    tifffile.imwrite(desk / "scan.tif", np.full((8, 8, 3), 9, np.uint8), photometric="rgb")
    before = {path: path.read_bytes() for path in desk.iterdir() if path.is_file()}
    for arguments in (
        ["array.npy"],
        ["array.npy", "-o", "link.npy"],
        ["array.npy", "-o", "photos/../array.npy"],
        ["scan.tif", "--format", "tif"],
        ["photos/leaf.png", "scan.tif", "-o", ".", "--format", "mat,tif"],
    ):
        assert "overwrite" in run(*arguments, status=2).stderr
    assert {path: path.read_bytes() for path in desk.iterdir() if path.is_file()} == before


# What becomes of files when things go wrong


def test_output_that_cannot_be_written(desk, run):
    (desk / "file").write_text("not a folder")
    for out in ("file/cube.mat", "file/below/"):
        done = run("photos/leaf.png", "-o", out, status=1)
        assert "file" in done.stderr
    assert listing(desk)[0] == "file" and (desk / "file").read_text() == "not a folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(desk, run):
    (desk / "locked").mkdir(mode=0o500)
    assert "locked" in run("photos", "-o", "locked", status=1).stderr


@pytest.mark.parametrize("ending", ["mat", "npy", "hdr", "tif"])
def test_a_full_disk_leaves_the_old_file(desk, binary, ending):
    old = desk / f"leaf.{ending}"
    old.write_text("old")
    before = listing(desk)
    limit = 4096
    done = subprocess.run(
        [binary, "run", "--config", "small.json", "photos/leaf.png", "-o", old.name],
        cwd=desk,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stderr
    assert old.name.split(".")[0] in done.stderr
    assert old.read_text() == "old"
    assert listing(desk) == before


def test_a_failed_input_leaves_the_old_cube(desk, run):
    (desk / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (desk / "broken.mat").write_text("old")
    run("broken.png", status=1)
    assert (desk / "broken.mat").read_text() == "old"


def start(binary, desk, *arguments):
    """Starts a run and waits until it has chosen the device."""
    process = subprocess.Popen(
        [binary, "run", *arguments], cwd=desk, stderr=subprocess.PIPE, text=True
    )
    assert "fp32" in process.stderr.readline()
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_work_without_litter(desk, binary, number):
    draw(desk / "large.png", 600, 600, 1)  # far more than a second for the reference
    before = listing(desk)
    process = start(binary, desk, "large.png", "photos/leaf.png", "--device", "reference")
    time.sleep(0.3)
    process.send_signal(number)
    assert process.wait(timeout=20) == -number
    process.stderr.close()
    assert listing(desk) == before


def test_a_signal_in_a_batch_removes_what_was_begun(desk, binary):
    shape = (1000, 3, 512, 512)  # each a part of its own; on disk a hole
    np.lib.format.open_memmap(desk / "batch.npy", "w+", np.float32, shape).flush()
    before = listing(desk)
    flags = ["--config", "small.json", "--device", "cpu"]
    process = start(binary, desk, "batch.npy", "-o", "cubes.npy", *flags)
    deadline = time.monotonic() + 120
    while listing(desk) == before and time.monotonic() < deadline:
        time.sleep(0.1)  # until the first part is written
    assert listing(desk) != before
    process.terminate()
    assert process.wait(timeout=120) == -signal.SIGTERM
    process.stderr.close()
    assert listing(desk) == before


def test_signals_that_were_ignored_stay_ignored(desk, binary):
    process = subprocess.Popen(
        [binary, "run", "--config", "small.json", "photos", "-o", "cubes", "--ensemble", "mean"],
        cwd=desk,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    process.stderr.readline()
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 0
    process.stderr.close()
    assert listing(desk / "cubes") == ["leaf.mat", "moss.mat"]


def test_a_reader_that_goes_away(desk, binary):
    """The work is done; that its report could not be printed is an error all the same."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [binary, "run", "--config", "small.json", "photos", "-o", "cubes"],
        cwd=desk,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert done.returncode == 1 and "standard output" in done.stderr
    assert listing(desk / "cubes") == ["leaf.mat", "moss.mat"]


# What is printed


def test_json_of_a_run(desk, run):
    done = run("photos", "-o", "cubes", "--format", "npy", "--preview", "--json")
    report = json.loads(done.stdout)
    assert report["backend"] == "cpu" and report["precision"] == "fp32" and report["device"]
    assert report["weights"]["name"] == "random_seed0" and len(report["weights"]["sha256"]) == 64
    assert report["failed"] == [] and report["skipped"] == []
    leaf = report["files"][0]
    assert leaf["input"] == "photos/leaf.png" and (leaf["width"], leaf["height"]) == (24, 16)
    assert leaf["outputs"] == [f"cubes/leaf{end}" for end in (".npy", ".json", ".preview.png")]
    assert all((desk / output).exists() for output in leaf["outputs"])
    assert set(leaf["seconds"]) == {"read", "run", "write"}
    assert min(leaf["seconds"].values()) >= 0
    assert "leaf.png" in done.stderr


def test_names_that_are_not_utf8(desk, binary):
    name = os.fsdecode(b"caf\xe9.png")
    draw(desk / "cafe.png", 8, 8, 1)
    os.rename(desk / "cafe.png", desk / name)
    command = [binary, "run", "--config", "small.json", name, "--json"]
    done = subprocess.run(command, cwd=desk, capture_output=True, check=True)
    report = json.loads(done.stdout.decode("utf-8"))
    assert report["files"][0]["input"] == "caf\ufffd.png"
    assert (desk / os.fsdecode(b"caf\xe9.mat")).exists()


def test_quiet(desk, run):
    done = run("photos", "-o", "cubes", "--quiet")
    assert done.stdout == "" and done.stderr == ""
    done = run("gone.png", "--quiet", status=1)
    assert done.stdout == "" and done.stderr.startswith("mstpp: error: gone.png")
    done = run("photos", "-o", "cubes", "--quiet", "--json")
    assert done.stderr == "" and json.loads(done.stdout)


def test_progress_bar_on_a_terminal_only(desk, binary):
    draw(desk / "large.png", 160, 160, 1)
    master, slave = os.openpty()
    flags = ["--config", "small.json", "--device", "reference", "-o", "cubes"]
    process = subprocess.Popen(
        [binary, "run", "large.png", *flags], cwd=desk, stdout=subprocess.PIPE, stderr=slave
    )
    os.close(slave)
    shown = os.read(master, 4096)
    process.send_signal(signal.SIGSTOP)  # so that the work takes its second on any machine
    time.sleep(1.2)
    process.send_signal(signal.SIGCONT)
    while True:
        try:
            shown += os.read(master, 4096)
        except OSError:  # the terminal is closed
            break
    os.close(master)
    report = process.communicate()[0]
    assert process.returncode == 0
    assert b"0/1" in shown and b"large.png" in shown
    assert shown.endswith(b"\r\x1b[K")  # and wiped away
    assert report.count(b"\n") == 1 and b"\r" not in report


# info


def test_info_of_the_bundled_weights(mstpp):
    text = mstpp("info").stdout
    assert "1619625" in text and "84.6 G" in text
    report = json.loads(mstpp("info", "--json").stdout)
    assert report["parameters"] == 1619625
    assert report["config"] == {"in_channels": 3, "bands": 31, "stages": 3, "blocks": [1, 1, 1]}
    assert report["macs"]["published"] == pytest.approx(84.6e9, rel=1e-3)
    assert report["macs"]["restructured"] < report["macs"]["published"]
    assert report["wavelengths_nm"] == [400.0 + 10 * i for i in range(31)]
    padded = json.loads(mstpp("info", "--json", "--size", "488x512").stdout)
    assert padded["macs"]["published"] == report["macs"]["published"]


def test_info_of_weights_and_networks(desk, mstpp):
    small = json.loads(mstpp("info", "--config", "small.json", "--json").stdout)
    assert small["config"]["stages"] == 1 and small["config"]["blocks"] == [1, 1]
    mstpp("export", "--config", "small.json", "-o", "w.safetensors")
    report = json.loads(mstpp("info", "w.safetensors", "--json").stdout)
    assert report["kind"] == "weights" and report["parameters"] == small["parameters"]
    flag = json.loads(mstpp("info", "--weights", "w.safetensors", "--json").stdout)
    assert flag["sha256"] == report["sha256"]
    mstpp("info", "w.safetensors", "--seed", "1", status=2)


def test_info_of_a_cube(desk, run, mstpp):
    for name in ("c.mat", "c.npy", "c.hdr", "c.img", "c.tif"):
        run("photos/leaf.png", "-o", name, "--no-clip")
        report = json.loads(mstpp("info", name, "--json").stdout)
        assert report["kind"] == "cube"
        assert (report["width"], report["height"], report["bands"]) == (24, 16, 31)
        assert report["wavelengths_nm"][30] == 700
        assert report["values"]["min"] < report["values"]["mean"] < report["values"]["max"]
        assert report["provenance"]["source"] == "photos/leaf.png"
        text = mstpp("info", name).stdout
        assert "24 x 16 pixels, 31 bands" in text and "photos/leaf.png" in text
    mstpp("info", "c.mat", "--size", "8x8", status=2)


def test_info_of_nothing(desk, mstpp):
    assert "gone.pth" in mstpp("info", "gone.pth", status=1).stderr
    assert "small.json" in mstpp("info", "small.json", status=1).stderr


# doctor, export


def test_doctor(mstpp):
    report = json.loads(mstpp("doctor", "--json").stdout)
    assert re.fullmatch(r"\d+\.\d+\.\d+", report["version"])
    backends = {backend["name"]: backend for backend in report["backends"]}
    assert list(backends) == [
        "cuda",
        "cpu",
        "tensorrt",
        "onnxruntime",
        "onnxruntime-cuda",
        "reference",
    ]
    assert backends["cpu"]["usable"] and backends["cpu"]["precisions"] == ["fp32"]
    assert not backends["tensorrt"]["usable"] and backends["tensorrt"]["remedy"]
    assert report["auto"] in ("cuda", "cpu")
    assert report["machine"]["allowed_cores"] == len(os.sched_getaffinity(0))
    assert report["machine"]["memory"] > 0
    assert report["weights"]["problem"] == "" and pathlib.Path(report["weights"]["path"]).exists()
    text = mstpp("doctor").stdout
    for word in ("processor", "cores", "memory", "weights", "not compiled in", "usable"):
        assert word in text


def test_export_to_onnx(desk, run, mstpp):
    flags = ["--opset", "15", "--batch", "2", "--size", "16x24", "--pad", "zero"]
    mstpp("export", "--config", "small.json", "-o", "small.onnx", *flags)
    run("photos/leaf.png", "-o", "drawn.npy")
    mstpp("run", "photos/leaf.png", "-o", "loaded.npy", "--weights", "small.onnx")
    assert np.array_equal(np.load(desk / "drawn.npy"), np.load(desk / "loaded.npy"))
    mstpp("export", "--config", "small.json", "--format", "onnx", "--precision", "fp16")
    assert (desk / "random_seed0.onnx").exists()


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_export(desk, run, mstpp, ending):
    done = mstpp("export", "--config", "small.json", "--seed", "3", "--format", ending)
    assert f"random_seed3.{ending}" in done.stdout
    run("photos/leaf.png", "-o", "drawn.npy", "--seed", "3")
    name = f"random_seed3.{ending}"
    mstpp("run", "photos/leaf.png", "-o", "loaded.npy", "--weights", name)
    assert np.array_equal(np.load(desk / "drawn.npy"), np.load(desk / "loaded.npy"))
    assert "is the input" in mstpp("export", "--weights", name, "-o", name, status=2).stderr
    report = json.loads(mstpp("export", "--weights", name, "-o", f"b.{ending}", "--json").stdout)
    assert report["output"] == f"b.{ending}" and (desk / f"b.{ending}").exists()
