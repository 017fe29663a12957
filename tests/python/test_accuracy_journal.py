# SPDX-License-Identifier: Apache-2.0
"""`mstpp accuracy` interrupted and gone on with, and the scenes that bench/cut_scenes.py cuts."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from accuracy_desk import WAVELENGTHS, accuracy, desk, save_npy, scene  # noqa: F401 (fixtures)


def comparable(report):
    return {key: report[key] for key in ("summary", "files", "failed", "crop")}


def test_killed_and_resumed_gives_the_same_figures(desk, binary, accuracy):
    (desk / "many").mkdir()
    for i in range(16):
        save_npy(desk / "many" / f"{i:02}.npy", scene(i, 60, 64))
    arguments = ["many", "--crop", "0", "--device", "reference", "--against", "cpu"]
    expected = comparable(accuracy(*arguments))
    resumed = [*arguments, "--journal", "study.jsonl"]
    process = subprocess.Popen(
        [binary, "accuracy", *resumed, "--weights", "small.safetensors"],
        cwd=desk, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    journal = desk / "study.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = journal.read_bytes().count(b"\n") - 1
    assert 4 <= done < 16
    with journal.open("ab") as file:
        file.write(b'{"key":"torn')  # as if killed in the middle of a line
    assert comparable(accuracy(*resumed)) == expected
    assert journal.read_bytes().count(b"\n") == 1 + 16
    before = journal.read_bytes()
    assert comparable(accuracy(*resumed)) == expected
    assert journal.read_bytes() == before


def test_a_journal_knows_its_work(desk, mstpp, accuracy):
    arguments = ["pictures", "--truth", "cubes", "--crop", "0", "--journal", "j"]
    first = comparable(accuracy(*arguments))
    other_crop = ["pictures", "--truth", "cubes", "--crop", "1", "--journal", "j"]
    done = mstpp("accuracy", *other_crop, "--weights", "small.safetensors", status=2)
    assert "crop is 0, not 1" in done.stderr
    done = mstpp("accuracy", *arguments, "--config", "small.json", status=2)
    assert "engine is" in done.stderr
    # A changed truth is measured anew; an unchanged picture of another name is not.
    save_npy(desk / "cubes" / "scene1.npy", scene(9))
    os.rename(desk / "pictures" / "scene0.png", desk / "pictures" / "renamed.png")
    os.rename(desk / "cubes" / "scene0.npy", desk / "cubes" / "renamed.npy")
    os.rename(desk / "cubes" / "scene0.json", desk / "cubes" / "renamed.json")
    common = ["--weights", "small.safetensors", "--json"]
    done = mstpp("accuracy", *arguments, *common)
    assert "2 images were in j" in done.stderr
    files = {file["input"]: file for file in json.loads(done.stdout)["files"]}
    old = {file["input"]: file for file in first["files"]}
    assert files["pictures/scene2.png"] == old["pictures/scene2.png"]
    renamed = files["pictures/renamed.png"] | {"input": ""}
    assert renamed == old["pictures/scene0.png"] | {"input": ""}
    assert files["pictures/scene1.png"] != old["pictures/scene1.png"]


def test_crops_of_scenes(desk, source, accuracy):
    whole = scene(5, 50, 60)
    counts = np.round(whole.transpose(1, 2, 0) * 65535).astype(np.uint16)
    np.savez(desk / "first.npz", hsi=counts, wavelengths=WAVELENGTHS)
    np.savez(desk / "second.npz", hsi=whole.transpose(1, 2, 0), wavelengths=WAVELENGTHS)
    script = [sys.executable, source / "bench" / "cut_scenes.py", "first.npz", "second.npz"]
    for folder in ("crops", "again"):
        command = [*script, "-o", folder, "--size", "16", "--count", "9"]
        subprocess.run(command, cwd=desk, check=True)
    crops = sorted((desk / "crops").glob("*.npy"))
    assert [path.name[:-9] for path in crops] == ["first"] * 5 + ["second"] * 4
    windows = np.lib.stride_tricks.sliding_window_view(whole, (16, 16), axis=(1, 2))
    for path in crops:
        assert path.read_bytes() == (desk / "again" / path.name).read_bytes()
        crop = np.load(path)
        assert crop.dtype == np.float32
        apart = np.abs(windows - crop[:, None, None]).max(axis=(0, 3, 4))
        assert apart.min() <= 0.5 / 65535 + 1e-6  # a piece of the scene
    report = accuracy("crops", "--against", "reference", "--crop", "0")
    assert len(report["files"]) == 9 and report["failed"] == []
    assert 0 < report["summary"]["against_abs_max"]["max"] < 1e-4
