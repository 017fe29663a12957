#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures every usable backend against the golden outputs and prints the table of
docs/accuracy.md; with --write, puts it there."""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
PAGE = ROOT / "docs" / "accuracy.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def weights_of(name):
    """The weights of a golden case; `cave` are the bundled ones."""
    if name == "cave":
        return ROOT / "weights" / "mst_plus_plus_cave.safetensors"
    return DATA / "golden" / f"{name}.pth"


def measure(binary, device, precision, case, folder):
    """The largest absolute difference of a run from its golden output, and the output's largest."""
    golden = np.load(str(case).replace(".input.", ".output."))
    output = pathlib.Path(folder) / "cube.npy"
    subprocess.run(
        [binary, "run", case, "-o", output, "--weights", weights_of(case.name.split(".")[0])]
        + ["--device", device, "--precision", precision, "--quiet"],
        check=True,
    )
    return np.abs(np.load(output) - golden).max(), np.abs(golden).max()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=ROOT / "build" / "release" / "cli" / "mstpp")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()

    doctor = subprocess.run([options.binary, "doctor", "--json"], capture_output=True, check=True)
    doctor = json.loads(doctor.stdout)
    devices = {b["name"]: b for b in doctor["backends"] if b["usable"]}
    lines = [
        "| backend | precision | case | largest difference | of the largest output |",
        "| --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for device, backend in sorted(devices.items(), reverse=True):
            for precision in backend["precisions"]:
                for case in sorted((DATA / "golden").glob("*.input.npy")):
                    error, largest = measure(options.binary, device, precision, case, folder)
                    name = case.name.removesuffix(".input.npy")
                    lines.append(
                        f"| {device} | {precision} | {name} | {error:.1e} | {error / largest:.1e} |"
                    )
    details = "; ".join(f"{name}: {backend['detail']}" for name, backend in devices.items())
    table = f"mstpp {doctor['version']} on {doctor['machine']['cpu']} ({details}):\n\n"
    table += "\n".join(lines) + "\n"
    print(table, end="")
    if options.write:
        text = PAGE.read_text()
        before, rest = text.split(BEGIN)
        PAGE.write_text(before + BEGIN + table + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
