# SPDX-License-Identifier: Apache-2.0
"""What ctest tells the tests of this folder: where the command, the sources and the build lie."""

import os
import pathlib
import subprocess

import pytest


def _path(variable: str) -> pathlib.Path:
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"{variable} is not set: run these tests through ctest or ./dev test")
    return pathlib.Path(value)


@pytest.fixture(scope="session")
def source() -> pathlib.Path:
    """The root of the source tree."""
    return pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def build() -> pathlib.Path:
    """The build folder."""
    return _path("MSTPP_BUILD_DIR")


@pytest.fixture(scope="session")
def binary() -> pathlib.Path:
    """The command `mstpp`."""
    return _path("MSTPP_BINARY")


@pytest.fixture
def mstpp(binary, tmp_path):
    """Runs `mstpp ARGUMENTS` in an empty folder; fails the test if the exit status is another."""

    def run(*arguments, status=0):
        done = subprocess.run(
            [binary, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == status, f"{done.args}\n{done.stdout}{done.stderr}"
        return done

    return run
