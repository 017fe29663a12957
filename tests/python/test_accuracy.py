# SPDX-License-Identifier: Apache-2.0
"""`mstpp accuracy`: figures against scikit-image, spectral and NumPy; reports."""

import csv
import html.parser
import json
import os
import subprocess
import xml.etree.ElementTree as xml

import numpy as np
import pytest
import spectral
from accuracy_desk import (  # noqa: F401 (fixtures)
    HEIGHT,
    WIDTH,
    accuracy,
    desk,
    save_envi,
    save_mat,
    save_npy,
    scene,
)
from PIL import Image
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

def cut(cube, crop):
    return cube[:, crop : cube.shape[1] - crop, crop : cube.shape[2] - crop].astype(np.float64)


def truth_figures(result, truth):
    """The figures against a truth, by other people's code where there is some."""
    error, known = np.abs(result - truth), truth != 0
    relative = error[known] / np.abs(truth[known])
    a, b = np.clip(result, 0, 1), np.clip(truth, 0, 1)
    lit = (truth != 0).any(0)
    lengths = np.linalg.norm(result[:, lit], axis=0) * np.linalg.norm(truth[:, lit], axis=0)
    angles = np.arccos(np.clip((result[:, lit] * truth[:, lit]).sum(0) / lengths, -1, 1))
    ssim = [
        structural_similarity(
            a[i], b[i], data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for i in range(31)
    ]
    psnr = peak_signal_noise_ratio(b, a, data_range=1)
    # The challenge's own formula, with its 255.
    assert psnr == pytest.approx(10 * np.log10(255**2 / ((a * 255 - b * 255) ** 2).mean()))
    return {
        "truth_mrae": relative.mean(),
        "truth_rmse": np.sqrt(mean_squared_error(truth, result)),
        "truth_psnr_db": psnr,
        "truth_sam_deg": np.degrees(angles.mean()),
        "truth_ssim": np.mean(ssim),
        "truth_abs_mean": error.mean(),
        "truth_abs_median": np.median(error),
        "truth_abs_max": error.max(),
        "truth_rel_median": np.median(relative),
        "truth_rel_max": relative.max(),
        "truth_zeros": (~known).sum(),
    }


def against_figures(result, other):
    error, relative = np.abs(result - other), np.abs(result - other) / np.abs(other)
    return {
        "against_abs_mean": error.mean(),
        "against_abs_median": np.median(error),
        "against_abs_max": error.max(),
        "against_rel_mean": relative.mean(),
        "against_rel_median": np.median(relative),
        "against_rel_max": relative.max(),
        "against_rel_rms": np.sqrt((error**2).sum() / (other**2).sum()),
        "against_zeros": 0,
    }


def check(file, expected):
    for key, value in expected.items():
        # Errors are kept in float32 for their median: half of 2^-23.
        assert file[key] == pytest.approx(value, rel=1e-7), key
    assert set(file) == {"input", "width", "height", *expected}


def cubes_of(desk, mstpp, *arguments):
    """What `mstpp run` makes of the pictures."""
    common = ["--weights", "small.safetensors", "--no-clip", "--format", "npy"]
    mstpp("run", "pictures", "-o", "results", *common, *arguments)
    return [np.load(desk / "results" / f"scene{i}.npy") for i in range(3)]


@pytest.mark.parametrize("crop", [0, 3])
def test_figures_against_the_truth(desk, mstpp, accuracy, crop):
    report = accuracy("pictures", "--truth", "cubes", "--crop", crop)
    for i, (file, result) in enumerate(zip(report["files"], cubes_of(desk, mstpp))):
        assert file["input"] == f"pictures/scene{i}.png"
        assert (file["width"], file["height"]) == (WIDTH, HEIGHT)
        check(file, truth_figures(cut(result, crop), cut(scene(i), crop)))
    assert report["crop"] == crop and report["failed"] == []


def test_spectral_agrees_on_the_angle(desk, mstpp, accuracy):
    report = accuracy("pictures/scene0.png", "--truth", "cubes", "--crop", "3")
    result, truth = cut(cubes_of(desk, mstpp)[0], 3), cut(scene(0), 3)
    angles = [
        spectral.spectral_angles(result[:, y, x].reshape(1, 1, 31), truth[:, y, x].reshape(1, 31))
        for y, x in np.ndindex(truth.shape[1:])
    ]
    expected = np.degrees(np.mean(angles))
    assert report["files"][0]["truth_sam_deg"] == pytest.approx(expected, rel=1e-6)


def test_figures_against_another_engine(desk, mstpp, accuracy):
    arguments = ["--device", "cpu", "--against", "reference", "--crop", "2"]
    report = accuracy("pictures", *arguments)
    cpu, reference = (cubes_of(desk, mstpp, "--device", d) for d in ("cpu", "reference"))
    for file, a, b in zip(report["files"], cpu, reference):
        check(file, against_figures(cut(a, 2), cut(b, 2)))
        assert 0 < file["against_abs_max"] < 1e-4
    assert report["engine"]["device"] == "cpu" and report["against"]["device"] == "reference"
    both = accuracy("pictures", *arguments, "--truth", "cubes")
    for file, one in zip(both["files"], report["files"]):
        assert file["truth_mrae"] > 0 and one.items() <= file.items()


def test_a_picture_is_rendered_from_each_cube(desk, accuracy):
    given = accuracy("pictures", "--truth", "cubes", "--crop", "0")["files"]
    rendered = accuracy("cubes", "--crop", "0")["files"]
    assert [file.pop("input") for file in rendered] == [f"cubes/scene{i}.npy" for i in range(3)]
    for file in given:
        del file["input"]
    assert given == rendered


@pytest.mark.parametrize("kind", ["mat", "envi", "tif"])
def test_cubes_of_every_format(desk, mstpp, accuracy, kind):
    expected = accuracy("cubes", "--crop", "0")["files"]
    (desk / "other").mkdir()
    for i in range(3):
        if kind == "mat":
            save_mat(desk / "other" / f"scene{i}.mat", scene(i))
        elif kind == "envi":
            save_envi(desk / "other" / f"scene{i}.hdr", scene(i))
        else:
            planes = [Image.fromarray(band) for band in scene(i)]
            planes[0].save(
                desk / "other" / f"scene{i}.tif", save_all=True, append_images=planes[1:]
            )
    report = accuracy("other", "--crop", "0", *(["--cubes"] if kind == "tif" else []))
    for file, one in zip(report["files"], expected, strict=True):
        assert file | {"input": ""} == one | {"input": ""}


def test_other_wavelengths_and_another_white(desk, accuracy):
    expected = accuracy("pictures", "--truth", "cubes", "--crop", "0")["files"]
    (desk / "fine").mkdir()
    for i in range(3):
        fine = np.repeat(scene(i), 2, axis=0)[:-1] * 4096
        fine[1::2] = (fine[:-1:2] + fine[2::2]) / 2
        save_npy(desk / "fine" / f"scene{i}.npy", fine, np.arange(400, 701, 5))
    report = accuracy("pictures", "--truth", "fine", "--crop", "0", "--white", "4096")
    assert report["files"] == expected
    rendered = accuracy("fine", "--crop", "0", "--white", "4096")["files"]
    assert [f["truth_mrae"] for f in rendered] == [f["truth_mrae"] for f in expected]


def test_ensemble_and_clip_are_passed_on(desk, mstpp, accuracy):
    for flags in (["--ensemble", "mean"], ["--scaling", "minmax"], ["--pad", "zero"]):
        report = accuracy("pictures", "--truth", "cubes", "--crop", "0", *flags)
        for i, result in enumerate(cubes_of(desk, mstpp, *flags)):
            check(report["files"][i], truth_figures(cut(result, 0), cut(scene(i), 0)))
    assert report["ensemble"] == "none" and report["padding"] == "zero"
    report = accuracy("pictures", "--truth", "cubes", "--crop", "0", "--clip")
    for i, result in enumerate(cubes_of(desk, mstpp)):
        check(report["files"][i], truth_figures(np.clip(cut(result, 0), 0, 1), cut(scene(i), 0)))


def test_the_summary_drops_the_extremes(desk, accuracy):
    for i in range(3, 7):
        save_npy(desk / "cubes" / f"scene{i}.npy", scene(i))
    report = accuracy("cubes", "--crop", "0")
    for trim in (0, 1, 2):
        summary = accuracy("cubes", "--crop", "0", "--trim", trim)["summary"]
        for key, figure in summary.items():
            values = np.sort([file[key] for file in report["files"]])[trim : 7 - trim]
            assert figure["images"] == 7 - 2 * trim and figure["dropped"] == 2 * trim
            names = {"mean": np.mean, "median": np.median, "min": np.min, "max": np.max}
            for name, function in names.items():
                assert figure[name] == pytest.approx(function(values), rel=1e-12)
            assert figure["deviation"] == pytest.approx(np.std(values, ddof=1), rel=1e-9)
            assert figure["p95"] == pytest.approx(np.quantile(values, 0.95), rel=1e-12)


def test_the_same_cube_is_perfect(desk, mstpp, accuracy):
    cubes_of(desk, mstpp)
    report = accuracy("pictures", "--truth", "results", "--crop", "0")
    for file in report["files"]:
        assert file["truth_rmse"] == 0 and file["truth_ssim"] == pytest.approx(1, abs=1e-12)
        assert file["truth_psnr_db"] is None  # infinite
    mstpp(
        "accuracy", "pictures", "--truth", "results", "--crop", "0", "--csv", "f.csv",
        "--html", "f.html", "--weights", "small.safetensors",
    )
    rows = list(csv.DictReader((desk / "f.csv").open()))
    assert [row["truth_psnr_db"] for row in rows] == ["inf"] * 3


def test_small_images_have_no_ssim(desk, accuracy):
    report = accuracy("cubes", "--crop", "6")
    assert [file["truth_ssim"] for file in report["files"]] == [None] * 3
    assert report["summary"]["truth_ssim"] == {"images": 0, "dropped": 0, "undefined": 3}


def test_a_crop_that_leaves_nothing(desk, accuracy):
    (desk / "large").mkdir()
    save_npy(desk / "large" / "a.npy", scene(0))
    save_npy(desk / "large" / "b.npy", scene(1, 30, 35))
    report = accuracy("large", "--crop", "11", status=1)
    assert [file["input"] for file in report["files"]] == ["large/b.npy"]
    (failed,) = report["failed"]
    assert failed["input"] == "large/a.npy" and "--crop 0" in failed["message"]
    report = accuracy("cubes", status=1)  # 128, as the challenge
    assert report["crop"] == 128 and len(report["failed"]) == 3
    assert all(figure["images"] == 0 for figure in report["summary"].values())


def test_inputs_that_fail_fail_alone(desk, accuracy):
    (desk / "pictures" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(desk / "pictures" / "lonely.png")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(desk / "pictures" / "other.png")
    save_npy(desk / "cubes" / "other.npy", scene(0))
    save_npy(desk / "cubes" / "nan.npy", np.full((31, HEIGHT, WIDTH), np.nan))
    Image.open(desk / "pictures" / "scene0.png").save(desk / "pictures" / "nan.png")
    report = accuracy("pictures", "gone.png", "--truth", "cubes", "--crop", "0", status=1)
    assert len(report["files"]) == 3
    messages = {failure["input"]: failure["message"] for failure in report["failed"]}
    assert "no cube of its name" in messages["pictures/lonely.png"]
    assert "9 x 9" in messages["pictures/other.png"]
    assert "NaN" in messages["pictures/nan.png"]
    assert set(messages) >= {"pictures/broken.png", "gone.png"} and len(messages) == 5


def test_a_list_of_inputs(desk, accuracy):
    (desk / "cubes" / "list.txt").write_text("# chosen\nscene2.npy\r\n\nscene0.npy\n")
    report = accuracy("--list", "cubes/list.txt", "--crop", "0")
    assert [file["input"] for file in report["files"]] == ["cubes/scene2.npy", "cubes/scene0.npy"]


@pytest.mark.parametrize(
    "status, arguments, message",
    [
        (2, [], "no INPUT"),
        (2, ["pictures"], "--truth"),
        (2, ["cubes/scene0.npy", "--truth", "cubes"], "its own truth"),
        (2, ["cubes", "pictures", "--against", "cpu"], "apart"),
        (2, ["mixed", "--against", "cpu"], "--truth mixed"),
        (2, ["cubes", "--crop", "-1"], "--crop"),
        (2, ["cubes", "--white", "0"], "--white"),
        (2, ["cubes", "--csv", "cubes/scene0.npy"], "overwritten"),
        # Asked for rightly, but the files do not serve.
        (1, ["cubes", "--truth", "cubes"], "holds no JPEG"),
        (1, ["empty"], "neither pictures nor cubes"),
        (1, ["--list", "empty.txt"], "names no file"),
        (1, ["cubes", "--html", "nowhere/x.html"], "nowhere"),
        (1, ["cubes", "--journal", "cubes/scene0.json"], "line 1"),
    ],
)
def test_what_is_refused_before_the_work(desk, status, arguments, message):
    (desk / "mixed").mkdir()
    (desk / "empty").mkdir()
    (desk / "empty.txt").write_text("\n")
    save_npy(desk / "mixed" / "a.npy", scene(0))
    Image.open(desk / "pictures" / "scene0.png").save(desk / "mixed" / "a.png")
    before = {path: path.read_bytes() for path in desk.rglob("*") if path.is_file()}
    command = [os.environ["MSTPP_BINARY"], "accuracy", *arguments, "--weights", "small.safetensors"]
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("mstpp: error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert {path: path.read_bytes() for path in desk.rglob("*") if path.is_file()} == before


# Reports


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]


def test_reports(desk, mstpp):
    done = mstpp(
        "accuracy", "cubes", "--crop", "3", "--against", "reference", "--csv", "figures.csv",
        "--html", "page.html", "--json", "--weights", "small.safetensors",
    )
    report = json.loads(done.stdout)
    rows = list(csv.DictReader((desk / "figures.csv").open()))
    assert len(rows) == 3
    for row, file in zip(rows, report["files"]):
        assert row["input"] == file["input"]
        for key in report["summary"]:
            assert float(row[key]) == file[key]

    text = (desk / "page.html").read_text()
    page = Page(text)
    assert page.links == [] and "script" not in page.tags and "@import" not in text
    assert "3 pixels off each side" in text and "ensemble none" in text
    plots = text.count("<svg")
    assert plots == len(report["summary"])
    for part in text.split("<svg")[1:]:
        figure = xml.fromstring("<svg" + part.split("</svg>")[0] + "</svg>")
        assert len(figure.findall("{http://www.w3.org/2000/svg}rect")) >= 2


def test_the_table(desk, mstpp):
    done = mstpp("accuracy", "cubes", "--crop", "0", "--weights", "small.safetensors")
    assert "ensemble none, not clipped" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("truth: MRAE "))
    assert len(line.split()) == 8 and line.split()[-1] == "1"
