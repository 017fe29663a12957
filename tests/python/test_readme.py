# SPDX-License-Identifier: Apache-2.0
"""README.md tells the truth: its commands run, its program is the one that is built."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image


def blocks(source, language):
    """The fenced blocks of a language that stand under the comment <!-- tested -->."""
    text = (source / "README.md").read_text()
    return re.findall(rf"<!-- tested -->\n+```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def desk(source, binary, tmp_path):
    """A folder with what README's commands name, and an environment where `mstpp` is found."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mstpp").symlink_to(binary)
    folder = tmp_path / "desk"
    (folder / "photos").mkdir(parents=True)
    photo = min((source / "examples").glob("*.jpg"), key=lambda path: path.stat().st_size)
    shutil.copy(photo, folder / "photo.jpg")
    shutil.copy(photo, folder / "photos" / "leaf.jpg")
    tensor = np.random.default_rng(0).random((3, 24, 40), dtype=np.float32)
    np.save(folder / "batch.npy", tensor)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    return folder, environment


def test_commands(source, desk):
    scripts = blocks(source, "sh")
    assert len(scripts) >= 2
    folder, environment = desk
    for script in scripts:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"


def test_reading_a_cube_in_python(source, desk):
    folder, environment = desk
    subprocess.run(["mstpp", "run", "photo.jpg"], cwd=folder, env=environment, check=True)
    (script,) = blocks(source, "python")
    scope = {}
    here = os.getcwd()
    os.chdir(folder)
    try:
        exec(script, scope)  # README's own text
    finally:
        os.chdir(here)
    with Image.open(folder / "photo.jpg") as photo:
        assert scope["cube"].shape == (photo.height, photo.width, 31)
    assert len(scope["wavelengths"]) == 31


def test_program(source):
    (program,) = blocks(source, "cpp")
    text = (source / "examples" / "photo_to_cube.cc").read_text()
    assert program.strip() in text
