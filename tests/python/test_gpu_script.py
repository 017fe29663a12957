# SPDX-License-Identifier: Apache-2.0
"""bench/gpu.py, which runs where there is a GPU: here with programs that only pretend."""

import json
import os
import shutil
import subprocess
import sys

import pytest

DOCTOR = {
    "version": "1.2.3",
    "backends": [{"name": "cuda", "usable": True, "detail": "Fast GPU 80GB, 132 multiprocessors"}],
}


def rows(*medians):
    """Records of fp16, batches 1 and 16."""
    base = {"precision": "fp16", "minMs": 0.1, "p95Ms": 9, "runs": 200, "memoryBytes": 125e6}
    return [{**base, "batch": b, "medianMs": m} for b, m in zip((1, 16), medians)]


@pytest.fixture
def bundle(tmp_path):
    """A folder with programs that print what the real ones would."""

    def program(name, lines):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + lines)
        path.chmod(0o755)

    def say(record):
        return f"echo '{json.dumps(record)}'\n"

    host = {"readyMs": 250, "iterations": 20, "latency": {"medianMs": 4}}
    host = {"results": [{"precision": "fp16", "batch": 16, **host}]}
    program("bin/mstpp", f"[ $1 = doctor ] && {say(DOCTOR)}[ $1 = bench ] && {say(host)}")
    program("bin/cuda_test", "echo '[  PASSED  ] 12 tests.'\n")
    # Its last argument is the file for the report.
    report = say({"results": rows(0.5, 8)})[:-1]
    program("bin/cuda_bench", f"for file; do :; done; {report} >$file\n")
    program("compute-sanitizer", "echo '========= ERROR SUMMARY: 0 errors'; shift 4; exec $@\n")
    peer = {"versions": {"torch": "9.9", "cuda": "99.0", "cudnn": 9}, "results": rows(10, 160)}
    eager, compiled = say({**peer, "mode": None}), say({**peer, "mode": "default"})
    noise = say({"num_choices": 10, "best_kernel": "mm"})  # as torch.compile writes it
    program("python", f"case $2 in pytorch) {eager};;\n*) {noise}{compiled};; esac\n")
    return program


def run(source, tmp_path, *arguments):
    script = [sys.executable, source / "bench" / "gpu.py", "--bundle", tmp_path]
    script += ["--python", tmp_path / "python", "--output", tmp_path / "output", *arguments]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CUDA_HOME": "/none"}
    return subprocess.run(script, capture_output=True, text=True, env=environment, timeout=60)


def test_all_is_well(source, tmp_path, bundle, monkeypatch):
    monkeypatch.syspath_prepend(source / "bench")
    import gpu_table

    done = run(source, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "output" / "fast-gpu-80gb.json").read_text())
    assert set(record["checks"].values()) == {"passed"} and len(record["checks"]) == 9
    assert [r["runner"] for r in record["results"]] == (
        ["mstpp"] * 2 + ["pytorch"] * 2 + ["torch-compile default"] * 2
    )
    table = (tmp_path / "output" / "gpu-table.md").read_text()
    assert "| mstpp | fp16 | 0.50 | 0.50 | 125 |  |  |" in table
    assert "| PyTorch eager | fp16 | 10.00 | 10.00 | 125 | 20.0x | 20.0x |" in table
    assert "| fp16 | 16 | 0.25 |" in table  # from host to host, a picture
    assert "| fp16, `--fp16-transfers` | 16 | 0.25 |" in table
    assert [r["fp16Transfers"] for r in record["host"]] == [False, True, False]
    # An earlier record does not say how its cubes were transferred.
    for row in record["host"]:
        del row["fp16Transfers"]
    assert "transfers" not in gpu_table.page_of(record)


@pytest.mark.parametrize(
    "program, lines, failed",
    [
        ("bin/cuda_test", "echo '[  FAILED  ] CudaTest.Some (3 ms)'; exit 1", "tests"),
        ("bin/cuda_test", "echo '[  SKIPPED ] 3 tests'; echo '[  PASSED  ] 1 test.'", "tests"),
        ("bin/cuda_test", "echo '[  PASSED  ] 0 tests.'", "tests"),
        (
            "compute-sanitizer",
            "shift 4; $@; echo '===== RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)'",
            "racecheck",
        ),
        ("compute-sanitizer", "shift 4; exec $@", "memcheck"),
        ("bin/cuda_bench", "exit 1", "bench"),
        ("python", "echo out of memory; exit 1", "eager"),
    ],
)
def test_goes_on_after_a_failure(source, tmp_path, bundle, program, lines, failed):
    bundle(program, lines + "\n")
    done = run(source, tmp_path)
    assert done.returncode == 1
    assert f"FAILED: {failed}" in done.stdout
    assert "== compile" in done.stdout


def test_shows_the_records_of_all_gpus(source, tmp_path, bundle):
    for part in ("bench", "docs"):
        shutil.copytree(source / part, tmp_path / "project" / part)
    project = tmp_path / "project"
    results = project / "bench" / "results"
    before = [json.loads(file.read_text()) for file in results.glob("*.json")]
    before = [record["device"] for record in before if "gpu" in record]
    assert run(source, tmp_path).returncode == 0
    record = tmp_path / "output" / "fast-gpu-80gb.json"
    script = [sys.executable, project / "bench" / "gpu.py", "--record", record]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads((results / record.name).read_text()) == json.loads(record.read_text())
    text = (project / "docs" / "performance.md").read_text()
    text = text[text.index("<!-- gpu table -->") : text.index("<!-- end of gpu table -->")]
    for device in [*before, "Fast GPU 80GB, 132 multiprocessors"]:
        assert text.count(f"{device};") == 1
    assert "| mstpp | fp16 | 0.50 | 0.50 |" in text


def test_leaves_steps_out(source, tmp_path, bundle):
    bundle("bin/cuda_test", "exit 1\n")
    done = run(source, tmp_path, "--skip", "tests,sanitizer,eager,compile")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("==")] == [
        "== bench",
        "== host",
    ]
    assert run(source, tmp_path, "--skip", "nonsense").returncode == 2


def test_without_a_gpu(source, tmp_path, bundle):
    backend = {"name": "cuda", "usable": False, "detail": "no driver", "remedy": "install it"}
    bundle("bin/mstpp", f"echo '{json.dumps({'version': '1', 'backends': [backend]})}'\n")
    done = run(source, tmp_path)
    assert done.returncode == 1
    assert "no usable GPU: no driver; install it" in done.stdout
