# SPDX-License-Identifier: Apache-2.0
"""Weights between `mstpp export` and the libraries of others: zipfile and pickle for PyTorch's
files (without PyTorch), NumPy for .npz, the reference implementation for safetensors."""

import pickle
import zipfile

import numpy as np
import pytest

safetensors = pytest.importorskip("safetensors")
safetensors_numpy = pytest.importorskip("safetensors.numpy")


class _Unpickler(pickle.Unpickler):
    """A state dict as NumPy arrays."""

    def __init__(self, archive, folder):
        super().__init__(archive.open(f"{folder}/data.pkl"))
        self._archive, self._folder = archive, folder

    def find_class(self, module, name):
        if (module, name) == ("torch", "FloatStorage"):
            return "<f4"
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, identifier):
        _, dtype, key, _, count = identifier
        data = np.frombuffer(self._archive.read(f"{self._folder}/data/{key}"), dtype)
        assert len(data) == count
        return data

    @staticmethod
    def _rebuild(storage, offset, shape, strides, *_):
        strides = [stride * storage.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides)


def read_pth(path):
    with zipfile.ZipFile(path) as archive:
        folder = archive.namelist()[0].split("/")[0]
        state = _Unpickler(archive, folder).load()["state_dict"]
    return {name.removeprefix("module."): np.array(value) for name, value in state.items()}


def read_npz(path):
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files if not name.startswith("__metadata__")}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype == np.float32
        assert a[name].shape == b[name].shape, name
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.fixture(scope="module")
def checkpoint(source):
    return source / "tests/data/golden/stress_one_stage.pth"


@pytest.fixture(scope="module")
def tensors(checkpoint):
    return read_pth(checkpoint)


@pytest.mark.parametrize("name", ["stress", "stress_one_stage", "mstpp_seed0"])
def test_checkpoints_reach_both_formats_unchanged(mstpp, source, tmp_path, name):
    checkpoint = source / f"tests/data/golden/{name}.pth"
    expected = read_pth(checkpoint)
    mstpp("export", "--weights", checkpoint, "-o", "w.safetensors")
    same(safetensors_numpy.load_file(tmp_path / "w.safetensors"), expected)
    mstpp("export", "--weights", checkpoint, "-o", "w.npz")
    same(read_npz(tmp_path / "w.npz"), expected)
    assert zipfile.ZipFile(tmp_path / "w.npz").testzip() is None
    mstpp("export", "--weights", tmp_path / "w.npz", "-o", "again.safetensors")
    same(safetensors_numpy.load_file(tmp_path / "again.safetensors"), expected)


def test_metadata_of_the_bundled_weights(mstpp, source, tmp_path):
    bundled = source / "weights/mst_plus_plus_cave.safetensors"
    with safetensors.safe_open(bundled, "numpy") as file:
        metadata = file.metadata()
    assert metadata["name"] == "mst_plus_plus_cave"
    assert [float(x) for x in metadata["wavelengths_nm"].split(",")] == list(range(400, 701, 10))
    assert metadata["scaling"] == "unit"
    mstpp("export", "--weights", bundled, "-o", "w.safetensors")
    with safetensors.safe_open(tmp_path / "w.safetensors", "numpy") as file:
        assert file.metadata().items() >= metadata.items()


WRITERS = {
    "savez": lambda path, tensors: np.savez(path, **tensors),
    "savez_compressed": lambda path, tensors: np.savez_compressed(path, **tensors),
    "fortran": lambda path, tensors: np.savez(
        path, **{name: np.asfortranarray(value) for name, value in tensors.items()}
    ),
    "safetensors": lambda path, tensors: safetensors_numpy.save_file(tensors, path),
}


CASES = [
    (writer, dtype)
    for writer in WRITERS
    for dtype in ["<f4", "<f2", "<f8", ">f4"]
    if (writer, dtype) != ("safetensors", ">f4")  # which are little-endian
]


@pytest.mark.parametrize(("writer", "dtype"), CASES)
def test_files_written_by_others(mstpp, tensors, tmp_path, writer, dtype):
    converted = {name: value.astype(dtype) for name, value in tensors.items()}
    path = tmp_path / ("in.safetensors" if writer == "safetensors" else "in.npz")
    WRITERS[writer](path, converted)
    mstpp("export", "--weights", path, "-o", "out.npz")
    expected = {name: value.astype(np.float32) for name, value in converted.items()}
    same(read_npz(tmp_path / "out.npz"), expected)


def test_archives_rewritten_by_zip_tools(mstpp, checkpoint, tensors, tmp_path):
    """The records of a PyTorch file, deflated and in another order by Python's zipfile."""
    with zipfile.ZipFile(checkpoint) as old:
        with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as new:
            for name in sorted(old.namelist(), reverse=True):
                new.writestr(name, old.read(name))
    mstpp("export", "--weights", tmp_path / "w.pth", "-o", "w.safetensors")
    same(safetensors_numpy.load_file(tmp_path / "w.safetensors"), tensors)


def test_archives_that_would_fill_the_memory(mstpp, tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", **{"conv_in.weight": np.zeros(1 << 27, np.int8)})
    done = mstpp("export", "--weights", tmp_path / "bomb.npz", "-o", "w.npz", status=1)
    assert "decode to more than" in done.stderr
    assert not (tmp_path / "w.npz").exists()


def test_objects_are_refused(mstpp, tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{"any": "thing"}], dtype=object))
    done = mstpp("export", "--weights", tmp_path / "w.npz", "-o", "out.npz", status=1)
    assert "'a.npy'" in done.stderr and "|O" in done.stderr
