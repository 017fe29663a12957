# SPDX-License-Identifier: Apache-2.0
"""Cube files against the readers and writers of others: h5py, spectral, tifffile, NumPy."""

import json
import re
import subprocess

import h5py
import numpy as np
import pytest
import scipy.io
import spectral.io.envi
import tifffile

SHAPES = [(31, 5, 7), (31, 1, 1), (1, 5, 7), (2, 300, 211)]
BIG = (31, 482, 512)
PROVENANCE = {
    "version": "0.1.0",
    "source": 'a {photo}, "quoted"; café =\n.jpg',
    "weights": "mst_plus_plus",
    "weights_sha256": "a" * 64,
    "backend": "cpu",
    "device": "AMD EPYC, AVX2, 2 threads",
    "precision": "fp32",
    "scaling": "minmax",
    "scale_min": 3.0,
    "scale_max": 254.1,
    "padding": "reflect",
    "ensemble": "mean",
    "clipped": False,
}


def expected(shape):
    """The cube of tests/cube_testing.h."""
    band, y, x = np.indices(shape)
    return (band * 1000 + y + x / 1024).astype(np.float32)


def wavelengths(bands):
    return [400 + 10.25 * band for band in range(bands)]


@pytest.fixture
def write(build, tmp_path):
    """Writes the cube of a shape with the library; the path."""

    def run(name, shape):
        path = tmp_path / name
        subprocess.run([build / "tests/cube_tool", "write", path, *map(str, shape)], check=True)
        return path

    return run


@pytest.fixture
def read(build, tmp_path):
    """Reads a cube with the library: its numbers and its metadata; or the error, if it fails."""

    def run(path, fails=False):
        raw = tmp_path / "raw"
        done = subprocess.run(
            [build / "tests/cube_tool", "read", path, raw], capture_output=True, text=True
        )
        assert (done.returncode == 1) == fails, done.stderr
        if fails:
            return done.stderr
        assert done.stderr == ""
        metadata = json.loads(done.stdout)
        return np.fromfile(raw, np.float32).reshape(metadata.pop("shape")), metadata

    return run


# What the library writes, read by others.


def char_array(dataset):
    """A MATLAB char row vector."""
    assert dataset.attrs["MATLAB_class"] == b"char"
    assert dataset.attrs["MATLAB_int_decode"] == 2
    assert dataset.dtype == np.uint16 and dataset.shape[1] == 1
    return dataset[:].astype("<u2").tobytes().decode("utf-16-le")


@pytest.mark.parametrize("shape", [*SHAPES, BIG])
def test_mat_is_read_by_h5py(write, shape):
    path = write("cube.mat", shape)
    with open(path, "rb") as file:
        block = file.read(520)
    assert block[:19] == b"MATLAB 7.3 MAT-file"
    assert block[:116].isascii() and b"\0" not in block[:116]
    assert block[116:128] == bytes(8) + b"\x00\x02IM"
    assert block[512:] == b"\x89HDF\r\n\x1a\n"
    with h5py.File(path) as file:
        assert file.userblock_size == 512
        assert sorted(file) == ["bands", "cube", "metadata"]
        bands, height, width = shape
        cube = file["cube"]
        # HDF5's dimensions are MATLAB's in reverse: MATLAB sees height x width x bands.
        assert cube.shape == (bands, width, height)
        assert cube.dtype == np.dtype("<f4")
        assert cube.attrs["MATLAB_class"] == b"single"
        assert np.array_equal(cube[:].transpose(0, 2, 1), expected(shape))
        assert file["bands"].attrs["MATLAB_class"] == b"double"
        assert file["bands"].shape == (bands, 1)  # a row of MATLAB's
        assert file["bands"][:, 0].tolist() == wavelengths(bands)
        metadata = json.loads(char_array(file["metadata"]))
        assert metadata == {"wavelengths_nm": wavelengths(bands), "mstpp": PROVENANCE}


def test_mat_is_read_as_the_published_code_reads_it(write):
    path = write("cube.mat", (31, 5, 7))
    with h5py.File(path, "r") as mat:
        hyper = np.float32(np.array(mat["cube"]))
    hyper = np.transpose(hyper, [0, 2, 1])
    assert np.array_equal(hyper, expected((31, 5, 7)))


@pytest.mark.parametrize("shape", [*SHAPES, BIG])
def test_envi_is_read_by_spectral(write, shape):
    path = write("cube.hdr", shape)
    image = spectral.io.envi.open(path)
    assert (image.nbands, image.nrows, image.ncols) == shape
    assert image.dtype == np.dtype("<f4")
    assert np.array_equal(np.asarray(image.load()).transpose(2, 0, 1), expected(shape))
    assert image.bands.centers == wavelengths(shape[0])
    assert image.bands.band_unit == "Nanometers"
    assert image.bands.bandwidths is None  # no invented fwhm
    header = spectral.io.envi.read_envi_header(path)
    assert header["band names"][0] == "400 nm"
    assert len(header["band names"]) == shape[0]
    if shape[0] == 31:
        assert header["default bands"] == ["21", "16", "7"]  # near 610, 550 and 465 nm
    lines = header["description"].splitlines()[1:]
    assert {k: json.loads(v) for k, v in (line.split(": ", 1) for line in lines)} == PROVENANCE


@pytest.mark.parametrize("shape", [*SHAPES, BIG])
def test_npy_is_read_by_numpy(write, shape):
    path = write("cube.npy", shape)
    cube = np.load(path)
    assert cube.dtype == np.float32 and cube.flags["C_CONTIGUOUS"]
    assert np.array_equal(cube, expected(shape))
    metadata = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert metadata == {"wavelengths_nm": wavelengths(shape[0]), "mstpp": PROVENANCE}


@pytest.mark.parametrize("shape", [*SHAPES, BIG])
def test_tiff_is_read_by_tifffile(write, shape):
    with tifffile.TiffFile(write("cube.tif", shape)) as tiff:
        assert len(tiff.pages) == 1
        page = tiff.pages[0]
        assert page.samplesperpixel == shape[0]
        assert page.dtype == np.float32
        assert len(page.extrasamples) == shape[0] - 1
        assert np.array_equal(tiff.asarray().reshape(shape), expected(shape))
        if min(shape) > 1:
            assert tiff.asarray().shape == shape
        metadata = json.loads(page.description)
        assert metadata == {"wavelengths_nm": wavelengths(shape[0]), "mstpp": PROVENANCE}


def test_the_documents_snippets(write, source, tmp_path, monkeypatch):
    for extension in ".mat", ".hdr", ".npy", ".tif":
        write("photo" + extension, (31, 5, 7))
    monkeypatch.chdir(tmp_path)
    text = (source / "docs/formats.md").read_text(encoding="utf-8")
    snippets = re.findall(r"<!-- tested -->\n```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 4
    for snippet in snippets:
        names = {}
        exec(compile(snippet, "docs/formats.md", "exec"), names)
        assert np.array_equal(names["cube"].transpose(2, 0, 1), expected((31, 5, 7))), snippet
        assert list(names["wavelengths"]) == wavelengths(31), snippet
        if "metadata" in names:
            assert names["metadata"]["mstpp"] == PROVENANCE


# What others write, read by the library.


def check(read, path, cube, wavelengths_nm=None):
    numbers, metadata = read(path)
    assert numbers.shape == cube.shape
    assert np.array_equal(numbers, cube.astype(np.float32))
    assert metadata.get("wavelengths_nm") == wavelengths_nm
    assert metadata["mstpp"] == {}


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "<u2", "|u1"])
@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"chunks": True},
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (4, 3, 5)},
        {"chunks": (31, 11, 1)},
        {"chunks": (1, 1, 9), "maxshape": (None, None, None)},
        {"chunks": (32, 16, 16), "maxshape": (None, None, None)},
    ],
)
def test_mat_as_arad_1k(read, tmp_path, dtype, storage):
    cube = (np.arange(31 * 9 * 11).reshape(31, 9, 11) % 251).astype(dtype)
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file.create_dataset("cube", data=cube.transpose(0, 2, 1), **storage)
        file["bands"] = np.arange(400.0, 701, 10)[:, None]
        file["norm_factor"] = np.ones((1, 1))
    check(read, tmp_path / "a.mat", cube, list(range(400, 701, 10)))


def test_mat_in_plain_hdf5(read, tmp_path):
    cube = expected((31, 9, 11))
    for block in 0, 1024, 65536:
        with h5py.File(tmp_path / "a.h5", "w", libver="latest", userblock_size=block) as file:
            file["cube"] = cube.transpose(0, 2, 1)
        check(read, tmp_path / "a.h5", cube)


def test_mat_of_one_band(read, tmp_path):
    cube = expected((1, 5, 7))
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["cube"] = cube[0].T  # MATLAB drops the last dimension
    check(read, tmp_path / "a.mat", cube)


@pytest.mark.parametrize("bands", [np.arange(1.0, 32), [31.0], ["a"] * 31, np.full(31, np.nan)])
def test_mat_with_bands_that_are_no_wavelengths(read, tmp_path, bands):
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["cube"] = np.zeros((31, 2, 2))
        file["bands"] = bands
        file.create_group("metadata")
    check(read, tmp_path / "a.mat", np.zeros((31, 2, 2)))


def test_mat_files_that_hold_no_cube(read, tmp_path):
    path = tmp_path / "a.mat"
    with h5py.File(path, "w") as file:
        file["rad"] = np.zeros((31, 2, 2))
        file["bands"] = np.arange(31)
    assert "no array 'cube' in it, but 'bands', 'rad'" in read(path, fails=True)
    for value, reason in [
        (np.zeros(31), "an array of 1 dimensions"),
        (np.zeros((1, 31, 2, 2)), "an array of 4 dimensions"),
        (np.zeros((31, 2, 2), complex), "no array of real numbers"),
        ("text", "no array of real numbers"),
        (np.zeros((31, 0, 2)), "a shape that cannot be"),
    ]:
        with h5py.File(path, "w") as file:
            file["cube"] = value
        assert reason in read(path, fails=True)
    with h5py.File(path, "w") as file:
        file.create_group("cube")
    assert "no array 'cube'" in read(path, fails=True)
    scipy.io.savemat(path, {"cube": np.zeros((2, 2, 31))})
    assert "save(..., '-v7.3')" in read(path, fails=True)


def test_mat_files_that_promise_more_than_they_hold(read, tmp_path):
    path = tmp_path / "a.mat"
    huge = (31, 1 << 20, 1 << 20)
    for settings, reason in [
        ({"shape": huge, "chunks": (1, 64, 64)}, "takes 136339441844224 bytes"),
        ({"shape": huge, "chunks": (1, 64, 64), "compression": "gzip"}, "takes 136339441844224"),
        ({"shape": (1 << 40, 1 << 40, 4), "chunks": (1, 1, 4)}, "a shape that cannot be"),
        ({"shape": (31, 64, 64)}, "takes 507904 bytes"),  # never written
    ]:
        with h5py.File(path, "w") as file:
            file.create_dataset("cube", dtype="f4", **settings)
        assert reason in read(path, fails=True)
    with h5py.File(path, "w") as file:
        cube = file.create_dataset("cube", (1, 2, 2), "f4", chunks=(1, 1 << 14, 1 << 14),
                                   maxshape=(None, None, None), compression="gzip")
        cube[:] = 0
    assert "the chunks of 'cube' are larger than the whole" in read(path, fails=True)


def test_mat_numbers_in_other_files_are_refused(read, tmp_path):
    (tmp_path / "other.raw").write_bytes(bytes(4 * 31 * 4))
    path = tmp_path / "a.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", (31, 2, 2), "f4", external=[(tmp_path / "other.raw", 0, 496)])
    assert "lie in other files" in read(path, fails=True)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["cube"] = np.zeros((31, 2, 2))
    layout = h5py.VirtualLayout((31, 2, 2), "f8")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "cube", (31, 2, 2))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("cube", layout)
    assert "lie in other files" in read(path, fails=True)
    with h5py.File(path, "w") as file:
        file["cube"] = h5py.ExternalLink(tmp_path / "other.h5", "cube")
    assert "cannot be read" in read(path, fails=True)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8", "u2", "u4"])
@pytest.mark.parametrize("byteorder", [0, 1])
def test_envi_of_spectral(read, tmp_path, interleave, dtype, byteorder):
    cube = (np.arange(31 * 9 * 11).reshape(31, 9, 11) % 251).astype(dtype)
    spectral.io.envi.save_image(
        tmp_path / "a.hdr", cube.transpose(1, 2, 0), dtype=dtype, interleave=interleave,
        byteorder=byteorder,
        metadata={"wavelength": np.linspace(0.4, 0.7, 31).round(2).tolist(),
                  "wavelength units": "Micrometers", "description": "made by spectral"},
    )
    numbers, metadata = read(tmp_path / "a.hdr")
    assert np.array_equal(numbers, cube)
    assert metadata["wavelengths_nm"] == pytest.approx(range(400, 701, 10), rel=1e-15)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_of_numpy(read, tmp_path, dtype, version):
    cube = expected((31, 9, 11)).astype(dtype)
    for array in cube, cube[None]:
        with open(tmp_path / "a.npy", "wb") as file:
            np.lib.format.write_array(file, array, version)
        check(read, tmp_path / "a.npy", cube)


def test_npy_arrays_that_are_no_cubes(read, tmp_path):
    path = tmp_path / "a.npy"
    for array, reason in [
        (np.zeros((5, 7), np.float32), "shape (5, 7); a cube is (bands, height, width)"),
        (np.zeros((2, 31, 5, 7), np.float32), "shape (2, 31, 5, 7)"),
        (np.zeros((31, 0, 7), np.float32), "31 bands, 0 rows and 7 columns cannot be"),
        (np.zeros((31, 5, 7), int), "astype('float32')"),
        (np.zeros((31, 5, 7), np.float32, order="F"), "ascontiguousarray"),
    ]:
        np.save(path, array)
        assert reason in read(path, fails=True)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<u1", "<i1", "<u2", ">i2", "<u4", "<i4"])
@pytest.mark.parametrize(
    "layout",
    [
        {},  # one page a band
        {"bigtiff": True},
        {"planarconfig": "separate"},
        {"planarconfig": "contig"},
        {"planarconfig": "separate", "tile": (16, 32)},
        {"planarconfig": "contig", "tile": (16, 16)},
        {"planarconfig": "contig", "rowsperstrip": 3},
        {"planarconfig": "separate", "rowsperstrip": 2, "compression": "zlib"},
        {"planarconfig": "contig", "compression": "lzw"},
        {"compression": "zlib", "predictor": True, "tile": (16, 16)},
        {"compression": "zstd"},
    ],
)
def test_tiff_of_tifffile(read, tmp_path, dtype, layout):
    cube = (np.arange(31 * 40 * 37).reshape(31, 40, 37) % 127).astype(dtype)
    options = {"byteorder": ">" if dtype[0] == ">" else "<", "photometric": "minisblack", **layout}
    array = cube.transpose(1, 2, 0) if layout.get("planarconfig") == "contig" else cube
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    check(read, tmp_path / "a.tif", cube)


def test_tiff_files_that_are_no_cubes(read, tmp_path):
    path = tmp_path / "a.tif"
    for array, options, reason in [
        (np.zeros((4, 5), np.float16), {}, "numbers of 16 bits, sample format 3"),
        (np.zeros((4, 5), complex), {}, "sample format 6"),
        (np.zeros((2, 4, 5, 3), np.uint8), {"photometric": "rgb"}, "several images of several"),
        (np.zeros((4, 5), np.uint8), {"photometric": "miniswhite"}, "a picture, not a cube"),
    ]:
        tifffile.imwrite(path, array, **options)
        assert reason in read(path, fails=True)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((4, 5), np.float32))
        tiff.write(np.zeros((4, 6), np.float32))
    assert "its images are of different sizes or types" in read(path, fails=True)


def test_tiff_with_a_thumbnail(read, tmp_path):
    cube = expected((31, 9, 11))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(cube, photometric="minisblack", planarconfig="separate")
        tiff.write(np.zeros((3, 3), np.uint8), subfiletype=1)
    check(read, tmp_path / "a.tif", cube)
