#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times MST++ in one of its peers and prints one JSON object.

    .venv-bench/bin/python bench/baselines/run_peer.py pytorch --size 482x512 --threads 2

Times shift with the machine's clock and load, so peers are compared in turns, not one after the
other: with --serve the program prints {"ready": ...} once it is warm, then runs once and prints
{"seconds": ...} for each line it reads, and its summary at the end of its input.

    python3 bench/baselines/run_peer.py torch-compile --device cuda --precision fp16 --batches 1,16

times PyTorch on a GPU (cuda_peer.py).
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import platform
import resource
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
DEFAULT_WEIGHTS = HERE.parents[1] / "weights" / "mst_plus_plus_cave.safetensors"


def _network(options):
    """The PyTorch network, its input, and PyTorch set to the thread count."""
    import torch

    sys.path.insert(0, str(HERE))
    import mst_plus_plus

    torch.set_num_threads(options.threads)
    return torch, mst_plus_plus.load(options.weights)


def _export(options, picture, path):
    torch, network = _network(options)
    torch.onnx.export(
        network,
        (torch.from_numpy(picture),),
        str(path),
        input_names=["rgb"],
        output_names=["cube"],
        opset_version=17,
        dynamo=False,
    )


@contextlib.contextmanager
def _onnx_file(options, picture):
    """The network as PyTorch exports it, by a process of its own: this one's peak of memory stays
    the runtime's."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "mst_plus_plus.onnx")
        exporter = multiprocessing.get_context("spawn").Process(
            target=_export, args=(options, picture, path)
        )
        exporter.start()
        exporter.join()
        if exporter.exitcode != 0:
            sys.exit("PyTorch could not export the network")
        yield path


def pytorch(options, picture):
    torch, network = _network(options)

    def run():
        with torch.inference_mode():
            return network(torch.from_numpy(picture)).numpy()

    return run, {"torch": torch.__version__}


def torch_compile(options, picture):
    torch, network = _network(options)
    compiled = torch.compile(network)

    def run():
        with torch.inference_mode():
            return compiled(torch.from_numpy(picture)).numpy()

    return run, {"torch": torch.__version__}


def onnxruntime(options, picture):
    import onnxruntime as ort

    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    given = contextlib.nullcontext(options.onnx) if options.onnx else _onnx_file(options, picture)
    with given as path:
        session = ort.InferenceSession(path, session_options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: picture}
    return lambda: session.run(None, feed)[0], {"onnxruntime": ort.__version__}


def openvino(options, picture):
    import openvino as ov

    with _onnx_file(options, picture) as path:
        compiled = ov.Core().compile_model(
            path,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": options.threads,
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
    return lambda: compiled(picture)[0], {"openvino": ov.__version__}


PEERS = {
    "pytorch": pytorch,
    "torch-compile": torch_compile,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}


def parse_arguments():
    def size(text):
        height, width = text.split("x")
        return int(height), int(width)

    def precisions(text):
        if unknown := set(text.split(",")) - {"fp32", "tf32", "fp16", "bf16"}:
            raise argparse.ArgumentTypeError(f"no such precision: {', '.join(sorted(unknown))}")
        return text.split(",")

    def batches(text):
        return [int(batch) for batch in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--size", type=size, default=(482, 512), metavar="HxW")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    gpu = parser.add_argument_group("with --device cuda")
    gpu.add_argument("--precision", type=precisions, default=["fp32"], metavar="LIST")
    gpu.add_argument("--batches", type=batches, default=[1, 16], metavar="LIST")
    gpu.add_argument("--mode", default="default", help="of torch.compile")
    gpu.add_argument("--seconds", type=float, default=10, help="for each measurement, about")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--runs", type=int, help="10 on a CPU, 200 on a GPU")
    parser.add_argument("--warmup", type=int, help="2 on a CPU, 50 on a GPU")
    parser.add_argument("--weights", default=str(DEFAULT_WEIGHTS))
    parser.add_argument("--onnx", help="onnxruntime: run this file, not PyTorch's export")
    parser.add_argument("--output", help="write the last output there, as .npy")
    parser.add_argument("--serve", action="store_true", help="one run for each line of the input")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if on_gpu and options.serve:
        parser.error("--serve is for the CPU")
    if on_gpu and options.peer not in ("pytorch", "torch-compile"):
        parser.error(f"{options.peer} is timed on the CPU only")
    if options.runs is None:
        options.runs = 200 if on_gpu else 10
    if options.warmup is None:
        options.warmup = 50 if on_gpu else 2
    return options


def _cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _say(record):
    print(json.dumps(record), flush=True)


def main():
    options = parse_arguments()
    if options.device == "cuda":
        sys.path.insert(0, str(HERE))
        import cuda_peer

        return cuda_peer.main(options, _say)
    height, width = options.size
    shape = (options.batch, 3, height, width)
    picture = np.random.default_rng(0).random(shape, dtype=np.float32)

    start = time.perf_counter()
    run, versions = PEERS[options.peer](options, picture)
    load_seconds = time.perf_counter() - start
    start = time.perf_counter()
    cube = run()
    first_seconds = time.perf_counter() - start
    for _ in range(options.warmup - 1):
        run()

    seconds = []

    def timed_run():
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
        return result

    if options.serve:
        _say({"ready": options.peer})
        for _ in sys.stdin:
            cube = timed_run()
            _say({"seconds": seconds[-1]})
    else:
        for _ in range(options.runs):
            cube = timed_run()

    if options.output:
        np.save(options.output, cube)
    _say(
        {
            "peer": options.peer,
            "versions": versions | {"python": platform.python_version()},
            "cpu": _cpu_name(),
            "threads": options.threads,
            "shape": list(shape),
            "load_seconds": load_seconds,
            "first_seconds": first_seconds,
            "seconds": seconds,
            "median_seconds": float(np.median(seconds)) if seconds else None,
            "min_seconds": min(seconds, default=None),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    )


if __name__ == "__main__":
    main()
