# SPDX-License-Identifier: Apache-2.0
"""MST++ in PyTorch on a GPU: pictures and cubes in its memory, times by CUDA events.

What run_peer.py does with --device cuda. All of PyTorch's switches for speed are on: cuDNN searches
its algorithms, fp16 and bf16 networks take and give pictures and cubes of that type.
"""

import platform
import statistics
import time


def _set_precision(torch, precision):
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)


def _measure(torch, run, warm_up, runs, seconds):
    """Milliseconds of each run. Fewer runs than asked for, but seven, once `seconds` are over; a
    fifth of them for warming up: what bench/cuda_bench.cc does."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def once():
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    start = time.perf_counter()
    warm = 0
    while warm < warm_up and (warm < 2 or time.perf_counter() - start < seconds / 5):
        once()
        warm += 1
    times = []
    while len(times) < runs and (len(times) < 7 or time.perf_counter() - start < seconds):
        times.append(once())
    return warm, sorted(times)


def _results(torch, options, precision, pictures):
    import mst_plus_plus

    kind = _set_precision(torch, precision)
    network = mst_plus_plus.load(options.weights).to("cuda", kind)
    if options.peer == "torch-compile":
        torch._dynamo.reset()
        network = torch.compile(network, mode=options.mode, dynamic=False)
    for batch in options.batches:
        picture = pictures[:batch].to(kind)
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        network(picture)
        torch.cuda.synchronize()
        first_seconds = time.perf_counter() - start
        if options.runs > 0:
            warm, times = _measure(
                torch, lambda p=picture: network(p), options.warmup, options.runs, options.seconds
            )
            yield {
                "precision": precision,
                "batch": batch,
                "warmUp": warm,
                "runs": len(times),
                "medianMs": statistics.median(times),
                "minMs": times[0],
                "p95Ms": times[len(times) * 95 // 100],
                "memoryBytes": torch.cuda.max_memory_allocated(),
                "firstSeconds": first_seconds,
            }
        torch.cuda.empty_cache()


def main(options, say):
    """Measures every precision and batch and gives the record to `say`. With options.runs 0 it runs
    each once and no more: what torch.compile makes is then in its cache."""
    import torch

    generator = torch.Generator("cuda").manual_seed(0)
    shape = (max(options.batches), 3, *options.size)
    pictures = torch.rand(shape, device="cuda", generator=generator)
    results = []
    with torch.inference_mode():
        for precision in options.precision:
            results += _results(torch, options, precision, pictures)
    say(
        {
            "peer": options.peer,
            "mode": options.mode if options.peer == "torch-compile" else None,
            "versions": {
                "torch": torch.__version__,
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
                "python": platform.python_version(),
            },
            "gpu": torch.cuda.get_device_name(),
            "size": list(options.size),
            "results": results,
        }
    )
