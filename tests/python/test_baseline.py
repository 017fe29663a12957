# SPDX-License-Identifier: Apache-2.0
"""The PyTorch network of bench/baselines, on golden inputs: a peer that computes something else
would be no peer. `./dev bench` installs PyTorch and runs this; elsewhere it is skipped."""

import json
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; `./dev bench` installs it")


@pytest.fixture(scope="module")
def network_of(source):
    sys.path.insert(0, str(source / "bench" / "baselines"))
    import mst_plus_plus

    torch.set_num_threads(1)  # small pictures
    return lambda weights: mst_plus_plus.load(
        source / "weights" / "mst_plus_plus_cave.safetensors"
        if weights == "cave"
        else source / "tests" / "data" / "golden" / f"{weights}.pth"
    )


@pytest.mark.parametrize("weights", ["cave", "stress", "stress_one_stage"])
def test_golden(source, network_of, weights):
    network = network_of(weights).double()
    data = source / "tests" / "data" / "golden"
    for case in json.loads((data / "golden.json").read_text())[weights]:
        rgb = np.load(data / f"{weights}.{case}.input.npy")
        golden = np.load(data / f"{weights}.{case}.output.npy")
        with torch.inference_mode():
            cube = network(torch.from_numpy(rgb).double()).numpy()
        # In float64, as the golden outputs: what is left is their rounding to float32.
        assert np.abs(cube - golden).max() <= 1e-7 * np.abs(golden).max(), case
