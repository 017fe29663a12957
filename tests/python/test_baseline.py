# SPDX-License-Identifier: Apache-2.0
"""The PyTorch network of bench/baselines, on golden inputs: a peer that computes something else
would be no peer. And what the installed PyTorch exports of it: mstpp reads the weights in there.
`./dev bench` installs PyTorch and runs this; elsewhere it is skipped."""

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


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("weights", ["stress", "stress_one_stage"])
def test_weights_in_an_export(network_of, mstpp, tmp_path, weights, opset):
    pytest.importorskip("onnx")
    safetensors = pytest.importorskip("safetensors.torch")
    network = network_of(weights)
    picture = torch.zeros(1, 3, 13, 18)
    path = str(tmp_path / "raw.onnx")
    torch.onnx.export(network, (picture,), path, opset_version=opset, dynamo=False)
    mstpp("export", "--weights", "raw.onnx", "-o", "read.safetensors")
    read = safetensors.load_file(tmp_path / "read.safetensors")
    state = network.state_dict()
    assert set(read) == set(state)
    assert all(torch.equal(read[name], state[name]) for name in state)
