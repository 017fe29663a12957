#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Everything that needs an NVIDIA GPU: the tests, compute-sanitizer, and times beside PyTorch's.

    ./dev gpu

Needs a folder that `./dev bundle cuda` made, this source tree, a Python with torch, numpy and
safetensors, and compute-sanitizer. Writes bench/results/GPU.json and the tables of all such
records in docs/performance.md; with --output its own into a folder, for a machine that is not yours
to keep: then `python3 bench/gpu.py --record GPU.json` here does the rest.

Goes on after a failure; the exit status is 1 if anything failed.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import gpu_table
import page

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
STEPS = ["tests", *TOOLS, "bench", "host", "eager", "compile"]
SIZE, BATCHES = "482x512", "1,16"
HOST_BATCHES = "1,16,64"  # the last as a folder of photographs

# Small pictures, for compute-sanitizer makes everything slow: every precision and set of kernels,
# maps of one block and of several, batches, memory of the device, taps.
GOLDEN = "All/CudaGoldenTest.AgreesWithFloat64/"
SANITIZER_TESTS = [
    GOLDEN + "*_stress_one_stage_random_24x40",
    GOLDEN + "*_stress_random_5x7",
    GOLDEN + "fp16_stress_batch2_50x37",
    GOLDEN + "fp16_cave_photo_61x90",
    "CudaTest.TakesDeviceMemoryOfAnyLayout",
    "CudaTest.Fp16TransfersIntoAnyLayout",
    "CudaTest.TapsAgreeWithTheReference",
]


class Failure(Exception):
    """A step failed; the message says how."""


class Session:
    """What the steps came to, and a log with the whole output of every program."""

    def __init__(self, options, log):
        self.options = options
        self.log = log
        self.outcomes = {}
        self.results, self.host, self.versions = [], [], {}

    def step(self, name, work):
        """Runs a step unless it is left out."""
        if name in self.options.skip:
            return
        print(f"== {name}", flush=True)
        start = time.monotonic()
        try:
            detail = work()
            outcome = "passed"
        except Exception as error:  # the other steps still run
            detail = str(error) if isinstance(error, Failure) else repr(error)
            outcome = "FAILED"
        self.outcomes[name] = outcome
        seconds = time.monotonic() - start
        print(f"   {outcome} in {seconds:.0f} s{': ' if detail else ''}{detail or ''}", flush=True)

    def run(self, command, timeout, only_stdout=False):
        """The program's exit status and what it wrote."""
        command = [str(part) for part in command]
        self.log.write(f"\n$ {' '.join(command)}\n".encode())
        self.log.flush()
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                timeout=timeout,
                stdout=subprocess.PIPE,
                stderr=self.log if only_stdout else subprocess.STDOUT,
            )
        except subprocess.TimeoutExpired as expired:
            self.log.write(expired.stdout or b"")
            raise Failure(f"{command[0]} took more than {timeout} s") from None
        except OSError as error:
            raise Failure(f"cannot start {command[0]}: {error.strerror}") from None
        self.log.write(done.stdout)
        self.log.flush()
        done.stdout = done.stdout.decode(errors="replace")
        return done


def last_lines(text, count=15):
    return "\n" + "\n".join("     " + line for line in text.strip().splitlines()[-count:])


def doctor(session):
    """The GPU as the backend sees it."""
    mstpp = session.options.bundle / "bin" / "mstpp"
    done = session.run([mstpp, "doctor", "--json"], 60, only_stdout=True)
    if not done.stdout.startswith("{"):
        raise Failure(f"{mstpp} doctor: exit status {done.returncode}{last_lines(done.stdout)}")
    report = json.loads(done.stdout)
    backend = next(b for b in report["backends"] if b["name"] == "cuda")
    if not backend["usable"]:
        raise Failure(f"no usable GPU: {backend['detail']}; {backend['remedy']}")
    session.versions["mstpp"] = report["version"]
    return backend["detail"]


def run_tests(session, prefix=(), filters=(), timeout=300):
    """cuda_test, or the tests of it that match: how many passed, and its output. `prefix` is a
    program that runs it."""
    command = [*prefix, session.options.bundle / "bin" / "cuda_test"]
    if filters:
        command.append("--gtest_filter=" + ":".join(filters))
    done = session.run(command, timeout)
    passed = re.search(r"\[  PASSED  \] (\d+) test", done.stdout)
    passed = int(passed[1]) if passed else 0
    if skipped := re.search(r"\[  SKIPPED \] (\d+) test", done.stdout):
        raise Failure(f"{skipped[1]} tests were skipped:{last_lines(done.stdout)}")
    failed = sorted(set(re.findall(r"\[  FAILED  \] ([\w./]+)", done.stdout)))
    if failed:
        raise Failure("failed: " + ", ".join(failed))
    if done.returncode != 0 or passed == 0:
        raise Failure(f"exit status {done.returncode}, {passed} passed{last_lines(done.stdout)}")
    return f"{passed} tests", done.stdout


def find_sanitizer():
    folders = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    candidates = [f"{folder}/{sub}" for folder in folders for sub in ("bin", "compute-sanitizer")]
    path = os.pathsep.join([os.environ.get("PATH", ""), *candidates])
    found = shutil.which("compute-sanitizer", path=path)
    if found is None:
        raise Failure("compute-sanitizer is not installed; it comes with the CUDA toolkit")
    return found


def sanitize(session, tool):
    prefix = [find_sanitizer(), "--tool", tool, "--error-exitcode", "99"]
    summary, output = run_tests(session, prefix, SANITIZER_TESTS, timeout=600)
    # "ERROR SUMMARY: 0 errors", "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    reports = re.findall(r"=+ \w+ SUMMARY: (.*)", output)
    if not reports:
        raise Failure(f"{tool} reported nothing at all{last_lines(output)}")
    if any(int(number) != 0 for report in reports for number in re.findall(r"\d+", report)):
        raise Failure(f"{tool}: {'; '.join(reports)}")
    return f"{summary}, {reports[-1]}"


def bench_mstpp(session):
    """Our side, device to device."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "bench.json"
        command = [session.options.bundle / "bin" / "cuda_bench", "--size", SIZE]
        command += ["--batches", BATCHES, "--precisions", "fp16,tf32,bf16,fp32"]
        command += ["--seconds", session.options.seconds, "--json", report]
        if session.options.group:
            command += ["--group", session.options.group]
        done = session.run(command, 300)
        if done.returncode != 0 or not report.exists():
            raise Failure(f"cuda_bench failed{last_lines(done.stdout)}")
        rows = json.loads(report.read_text())["results"]
    session.results += [{"runner": "mstpp", **row} for row in rows]
    tell(rows)


def tell(rows):
    for r in rows:
        print(
            f"   {r['precision']} batch {r['batch']}: median {r['medianMs']:.3f} ms, least "
            f"{r['minMs']:.3f}, p95 {r['p95Ms']:.3f} of {r['runs']} runs; "
            f"{r['memoryBytes'] / 1e6:.0f} MB",
            flush=True,
        )


def bench_host(session):
    """From a caller's memory and back to it, and how soon a new process has its first cube."""
    for precision, transfers in (("fp16", False), ("fp16", True), ("fp32", False)):
        command = [session.options.bundle / "bin" / "mstpp", "bench", "--device", "cuda"]
        command += ["--precision", precision, "--size", SIZE, "--batch", HOST_BATCHES]
        command += ["--iterations", "20", "--no-rates", "--quiet", "--json"]
        command += ["--fp16-transfers"] if transfers else []
        done = session.run(command, 120, only_stdout=True)
        if done.returncode != 0:
            raise Failure(f"mstpp bench failed{last_lines(done.stdout)}")
        name = f"{precision}, FP16 transfers," if transfers else precision
        for row in json.loads(done.stdout)["results"]:
            keys = ("precision", "batch", "readyMs", "iterations", "latency")
            session.host.append({"fp16Transfers": transfers, **{key: row[key] for key in keys}})
            print(
                f"   {name} batch {row['batch']}: median {row['latency']['medianMs']:.2f} ms, "
                f"ready in {row['readyMs']:.0f} ms",
                flush=True,
            )


def peer_command(options, peer, precisions, mode="default"):
    command = [options.python, HERE / "baselines" / "run_peer.py", peer, "--device", "cuda"]
    batches = "1" if mode == "max-autotune" else BATCHES  # of 16 it takes more than ten minutes
    command += ["--precision", precisions, "--batches", batches, "--size", SIZE, "--mode", mode]
    return [*command, "--seconds", options.seconds]


def bench_peer(session, peer, precisions, mode="default"):
    timeout = 1800 if mode == "max-autotune" else 300
    command = peer_command(session.options, peer, precisions, mode)
    done = session.run(command, timeout)
    if done.returncode != 0:
        raise Failure(f"PyTorch failed{last_lines(done.stdout)}")
    # The last, for torch.compile writes such lines before.
    lines = reversed(done.stdout.splitlines())
    record = json.loads(next(line for line in lines if line.startswith('{"')))
    session.versions.update(record["versions"])
    name = peer if record["mode"] is None else f"{peer} {record['mode']}"
    session.results += [{"runner": name, **row} for row in record["results"]]
    tell(record["results"])


@contextlib.contextmanager
def compiling(options):
    """Has torch.compile fill its cache meanwhile: compiling takes the CPU a minute, and the GPU is
    shared with whatever runs. What is measured later compiles from the cache, alone, and chooses
    its kernels' variants anew."""
    if "compile" in options.skip:
        yield
        return
    processes = [
        subprocess.Popen(
            [str(part) for part in peer_command(options, "torch-compile", precision)]
            + ["--runs", "0"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for precision in options.compile_precisions.split(",")
    ]
    try:
        yield
    finally:
        for process in processes:
            try:
                process.wait(240)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = parser.add_argument("--bundle", type=pathlib.Path, default=ROOT / "out/bundle-cuda")
    folder.help = "what `./dev bundle cuda` made (default: %(default)s)"
    parser.add_argument("--output", type=pathlib.Path, help="folder for record, table and log")
    parser.add_argument("--record", type=pathlib.Path, help="only take this record's figures")
    parser.add_argument("--python", default=sys.executable, help="that has torch")
    parser.add_argument("--skip", default="", metavar="LIST", help=f"of {', '.join(STEPS)}")
    autotune = parser.add_argument("--max-autotune", metavar="LIST", nargs="?", const="fp16")
    autotune.help = "one picture by torch.compile that way too, in these precisions (default: fp16)"
    parser.add_argument("--seconds", type=float, default=8, help="for each measurement, at most")
    parser.add_argument("--group", type=int, help="pictures that a graph of ours takes at a time")
    parser.add_argument("--compile-precisions", default="tf32,fp16", metavar="LIST")
    options = parser.parse_args()
    options.skip = set(filter(None, options.skip.split(",")))
    if "sanitizer" in options.skip:
        options.skip = options.skip - {"sanitizer"} | set(TOOLS)
    if unknown := options.skip - set(STEPS):
        parser.error(f"--skip: no such step: {', '.join(sorted(unknown))}; steps: {STEPS}")
    options.bundle = options.bundle.resolve()
    return options


def save(record, folder):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{page.file_name(record['gpu'])}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def publish(record):
    """Among the project's records, all of which docs/performance.md shows."""
    path = save(record, RESULTS)
    records = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    pages = [gpu_table.page_of(record) for record in records if "gpu" in record]
    page.write_table("gpu table", "\n\n".join(pages))
    return path


def write(options, record):
    text = gpu_table.page_of(record)
    if options.output:
        path = save(record, options.output)
        (options.output / "gpu-table.md").write_text(text + "\n")
    else:
        path = publish(record)
    print(f"\n{text}\n\nwritten: {path}")


def run_steps(session):
    options = session.options
    device = doctor(session)
    print(device, flush=True)
    session.step("tests", lambda: run_tests(session)[0])
    with compiling(options):
        for tool in TOOLS:
            session.step(tool, lambda tool=tool: sanitize(session, tool))
    session.step("bench", lambda: bench_mstpp(session))
    session.step("host", lambda: bench_host(session))
    session.step("eager", lambda: bench_peer(session, "pytorch", "fp32,tf32,fp16"))
    compiled = options.compile_precisions
    session.step("compile", lambda: bench_peer(session, "torch-compile", compiled))
    if options.max_autotune:
        name = "max-autotune"
        precisions = options.max_autotune
        session.step(name, lambda: bench_peer(session, "torch-compile", precisions, name))
    if session.results:
        write(
            options,
            {
                "date": datetime.date.today().isoformat(),
                "gpu": device.split(",")[0],
                "device": device,
                "versions": session.versions,
                "size": SIZE,
                "checks": session.outcomes,
                "results": session.results,
                "host": session.host,
            },
        )


def main():
    options = parse_arguments()
    if options.record:
        print(f"written: {publish(json.loads(options.record.read_text()))}")
        return 0
    log = (options.output or ROOT / "out") / "gpu.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(log, "wb") as stream, tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        os.environ["TRITON_CACHE_DIR"] = cache + "/triton"
        os.environ["TORCHINDUCTOR_AUTOTUNE_LOCAL_CACHE"] = "0"
        session = Session(options, stream)
        try:
            run_steps(session)
        except Failure as failure:
            session.outcomes["doctor"] = "FAILED"
            print(failure)
    failed = [name for name, outcome in session.outcomes.items() if outcome == "FAILED"]
    print(f"{time.monotonic() - start:.0f} s; every program's output: {log}")
    for name in failed:
        print(f"FAILED: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
