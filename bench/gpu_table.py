# SPDX-License-Identifier: Apache-2.0
"""What bench/gpu.py measured, as the Markdown of docs/performance.md."""

RUNNERS = {
    "mstpp": "mstpp",
    "pytorch": "PyTorch eager",
    "torch-compile default": "torch.compile",
    "torch-compile max-autotune": "torch.compile, max-autotune",
}


def table(record):
    """A row for each runner and precision."""
    times = {(r["runner"], r["precision"], r["batch"]): r for r in record["results"]}
    lines = [
        "| runner | precision | batch 1: ms | batch 16: ms a picture | memory, batch 1: MB "
        "| mstpp is faster by, batch 1 | batch 16 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for precision in ("fp16", "bf16", "tf32", "fp32"):
        for runner, name in RUNNERS.items():
            one, many = (times.get((runner, precision, batch)) for batch in (1, 16))
            if one is None and many is None:
                continue
            cells = [f"{one['medianMs']:.2f}" if one else ""]
            cells.append(f"{many['medianMs'] / 16:.2f}" if many else "")
            cells.append(f"{one['memoryBytes'] / 1e6:.0f}" if one else "")
            for row, batch in ((one, 1), (many, 16)):
                ours = times.get(("mstpp", precision, batch))
                compared = row and ours and runner != "mstpp"
                cells.append(f"{row['medianMs'] / ours['medianMs']:.1f}x" if compared else "")
            lines.append(f"| {name} | {precision} | {' | '.join(cells)} |")
    if record["host"]:
        lines += ["", "From the caller's memory and back to it, FP32 pictures and cubes:", ""]
        lines += ["| precision | batch | ms a picture | ready, first run included: ms |"]
        lines += ["| --- | --- | --- | --- |"]
    for r in record["host"]:
        a_picture = r["latency"]["medianMs"] / r["batch"]
        # The second batch of a process finds the driver awake.
        ready = f"{r['readyMs']:.0f}" if r["batch"] == 1 else ""
        precision = r["precision"]
        if r.get("fp16Transfers"):
            precision += ", `--fp16-transfers`"
        lines.append(f"| {precision} | {r['batch']} | {a_picture:.2f} | {ready} |")
    return "\n".join(lines)


def heading(record):
    versions = record["versions"]
    parts = [record["device"], f"mstpp {versions['mstpp']}"]
    if "torch" in versions:
        parts.append(
            f"PyTorch {versions['torch']} (CUDA {versions['cuda']}, cuDNN {versions['cudnn']})"
        )
    return "; ".join([*parts, record["date"]]) + "."


def page_of(record):
    return heading(record) + "\n\n" + table(record)
