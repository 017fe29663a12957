#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times ONNX Runtime on mstpp's exports and on PyTorch's, in turns (A B C A B C ...).

    ./dev bench onnx

All are of the same weights, run by the same library on as many threads; each first has to give
PyTorch's cube. Writes bench/results/onnx-MACHINE.json and the table in docs/performance.md.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import page
from compare import HERE, ROOT, Runner

# Of mstpp's exports; --size is added to those that are fixed.
EXPORTS = {
    "published": ["--form", "published"],
    "restructured": ["--form", "restructured"],
    "restructured, opset 13": ["--form", "restructured", "--opset", "13"],
    "restructured, any size": ["--form", "restructured"],
}
PYTORCH = "PyTorch's, raw"
# Float32 in another order: the bound of docs/accuracy.md for the bundled weights, twice.
MOST_APART = 1e-5


def export_all(options, folder):
    """The exported files by name; None for PyTorch's, which its runner makes."""
    files = {PYTORCH: None}
    for i, (name, flags) in enumerate(EXPORTS.items()):
        files[name] = str(folder / f"{i}.onnx")
        fixed = [] if "any size" in name else ["--size", options.size, "--batch", "1"]
        command = [options.mstpp, "export", "--quiet", "-o", files[name], *flags, *fixed]
        subprocess.run(command, check=True)
    return files


def command_of(options, file, threads, *more):
    peer = [options.python, str(HERE / "baselines" / "run_peer.py"), "onnxruntime"]
    flags = ["--size", options.size, "--threads", str(threads), "--warmup", "2"]
    return [*peer, *flags, *(["--onnx", file] if file else []), *more]


def check_outputs(options, files, folder):
    """Ends the program unless every file gives PyTorch's cube."""
    cubes = {}
    for i, (name, file) in enumerate(files.items()):
        path = folder / f"{i}.npy"
        command = command_of(options, file, max(options.threads), "--runs", "0", "--output", path)
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        cubes[name] = np.load(path)
        apart = np.abs(cubes[name] - cubes[PYTORCH]).max()
        if not apart <= MOST_APART:
            sys.exit(f"{name}: {apart:.1e} from PyTorch's cube; nothing was timed")


def measure(options, files, threads):
    """One record a file. Ratios are of times of the same turn: both saw the same machine."""
    runners = {
        name: Runner(name, command_of(options, file, threads, "--serve"))
        for name, file in files.items()
    }
    for i in range(options.rounds):
        for runner in runners.values():
            runner.run(keep_all=options.keep_all)
        print(f"  {threads} threads: round {i + 1} of {options.rounds}", file=sys.stderr)
    results = []
    for name, runner in runners.items():
        summary = runner.close()
        if not runner.seconds:
            sys.exit(f"{name}: the machine was never quiet enough")
        results.append(
            {
                "export": name,
                "versions": summary["versions"],
                "threads": threads,
                "seconds": runner.seconds,
                "processor_seconds": runner.processor_seconds,
                "dropped": runner.dropped,
                "peak_mib": summary["peak_mib"],
            }
        )
    for result in results:
        turns = zip(result["seconds"], results[0]["seconds"])
        result["of_pytorch"] = statistics.median(own / raw for own, raw in turns)
    return results


def table(results):
    lines = [
        "| export | threads | median s | min s | processor s | peak MiB | of PyTorch's time |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        lines.append(
            f"| {r['export']} | {r['threads']} | {statistics.median(r['seconds']):.3f} "
            f"| {min(r['seconds']):.3f} | {statistics.median(r['processor_seconds']):.2f} "
            f"| {r['peak_mib']:.0f} | {r['of_pytorch']:.2f} |"
        )
    return "\n".join(lines)


def cpu_name():
    doctor = [str(ROOT / "build/release/cli/mstpp"), "doctor", "--json"]
    done = subprocess.run(doctor, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["machine"]["cpu"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mstpp", default=str(ROOT / "build/release/cli/mstpp"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--size", default="482x512")
    parser.add_argument("--threads", default=f"{len(os.sched_getaffinity(0))},1")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--keep-all", action="store_true", help="although other programs run")
    options = parser.parse_args()
    options.threads = sorted({int(t) for t in options.threads.split(",")}, reverse=True)

    results = []
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(options, pathlib.Path(folder))
        check_outputs(options, files, pathlib.Path(folder))
        for threads in options.threads:
            results += measure(options, files, threads)
    cpu, today = cpu_name(), datetime.date.today().isoformat()
    heading = (
        f"{cpu}, ONNX Runtime {results[0]['versions']['onnxruntime']}, {options.size}, "
        f"{options.rounds} turns"
        + (", on a machine in use by other programs" if options.keep_all else "")
        + f"; {today}."
    )
    text = heading + "\n\n" + table(results)
    print(text)
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    record = {"date": today, "cpu": cpu, "size": options.size, "kept_all": options.keep_all}
    name = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    (folder / f"onnx-{name}.json").write_text(
        json.dumps(record | {"results": results}, indent=1) + "\n"
    )
    page.write_table("onnx table", text)


if __name__ == "__main__":
    main()
