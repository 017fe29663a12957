#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where the CPU engine's time goes: cost a pixel by size, time by kind of block, the roofline.

    ./dev bench roofline

Writes two tables of docs/performance.md, the drawing docs/roofline.svg, and
bench/results/cpu-MACHINE-blocks.json. Wants a machine that does nothing else.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import subprocess

import page

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZES = ["128x128", "256x256", "482x512", "1024x1024", "2048x2048"]
BLOCKS_SIZE = "482x512"
KINDS = ["3x3", "S-MSA", "FFN", "downsampling", "upsampling and fusion"]


def bench(options, sizes, *more):
    command = [options.mstpp, "bench", "--device", "cpu", "--json", "--quiet", "--threads"]
    command += [str(options.threads), "--size", ",".join(sizes), *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def kind_of(block):
    """Of KINDS, by PyTorch's name of the module."""
    parts = block.split(".")
    if "blocks" in parts:
        return "S-MSA" if parts[-1] == "0" else "FFN"
    if "encoder_layers" in parts:
        return "downsampling"
    return "upsampling and fusion" if "decoder_layers" in parts else "3x3"


def sums_by_kind(blocks):
    sums = {kind: {"ms": 0.0, "operations": 0.0, "bytes": 0.0, "blocks": 0} for kind in KINDS}
    for block in blocks:
        entry = sums[kind_of(block["name"])]
        entry["ms"] += block["timeMs"]
        entry["operations"] += block["operations"]
        entry["bytes"] += block["bytes"]
        entry["blocks"] += 1
    return sums


def size_table(results):
    lines = [
        "| picture | median s | ns a pixel | of the least | of the matrix product's rate | peak MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    cost = [1e6 * r["latency"]["medianMs"] / (r["height"] * r["width"]) for r in results]
    for r, ns in zip(results, cost):
        lines.append(
            f"| {r['height']}x{r['width']} | {r['latency']['medianMs'] / 1e3:.3f} | {ns:.0f} "
            f"| {ns / min(cost):.2f} | {100 * r['shareOfGemm']:.0f} % | {r['peakMiB']:.0f} |"
        )
    return "\n".join(lines)


def kind_table(sums, gemm):
    lines = [
        "| blocks | number | ms | share | GFLOP/s | floor ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    all_ms = sum(entry["ms"] for entry in sums.values())
    for kind, entry in sums.items():
        lines.append(
            f"| {kind} | {entry['blocks']} | {entry['ms']:.1f} | {100 * entry['ms'] / all_ms:.0f} % "
            f"| {entry['operations'] / entry['ms'] * 1e-6:.0f} "
            f"| {entry['operations'] / gemm * 1e-6:.1f} |"
        )
    return "\n".join(lines)


def drawing(sums, gemm, copy, title):
    """The roofline as SVG: both axes logarithmic."""
    width, height, left, bottom = 720, 440, 70, 60
    x_range, y_range = (1.0, 1000.0), (10.0, 10 ** math.ceil(math.log10(gemm * 1.2)))

    def at(value, low, high, begin, length):
        return begin + length * math.log(value / low) / math.log(high / low)

    def x_of(value):
        return at(value, *x_range, left, width - left - 20)

    def y_of(value):
        return height - bottom - at(value, *y_range, 0, height - bottom - 40)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="22" font-size="14">{title}</text>',
    ]

    def line(x1, y1, x2, y2, style):
        parts.append(
            f'<line x1="{x_of(x1):.1f}" y1="{y_of(y1):.1f}" x2="{x_of(x2):.1f}" '
            f'y2="{y_of(y2):.1f}" {style}/>'
        )

    for exponent in range(4):
        value = 10.0**exponent
        line(value, y_range[0], value, y_range[1], 'stroke="#ddd"')
        parts.append(
            f'<text x="{x_of(value):.1f}" y="{height - bottom + 18}" text-anchor="middle">'
            f"{value:.0f}</text>"
        )
    for exponent in range(1, round(math.log10(y_range[1])) + 1):
        value = 10.0**exponent
        line(x_range[0], value, x_range[1], value, 'stroke="#ddd"')
        parts.append(
            f'<text x="{left - 8}" y="{y_of(value) + 4:.1f}" text-anchor="end">{value:.0f}</text>'
        )
    parts.append(
        f'<text x="{(left + width) / 2}" y="{height - 18}" text-anchor="middle">floating-point '
        "operations for each byte of the feature maps read and written</text>"
    )
    parts.append(f'<text x="{left}" y="36">GFLOP/s</text>')
    roof, begin = 'stroke="black" stroke-width="2"', max(x_range[0], y_range[0] / copy)
    line(begin, copy * begin, gemm / copy, gemm, roof)
    line(gemm / copy, gemm, x_range[1], gemm, roof)
    parts.append(
        f'<text x="{x_of(x_range[1])}" y="{y_of(gemm) - 8:.1f}" text-anchor="end">matrix product '
        f"{gemm:.0f} GFLOP/s; slope: copy {copy:.0f} GB/s</text>"
    )
    for kind, entry in sums.items():
        x, y = x_of(entry["operations"] / entry["bytes"]), y_of(entry["operations"] / entry["ms"] * 1e-6)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#0a58ca"/>')
        parts.append(f'<text x="{x + 9:.1f}" y="{y + 4:.1f}">{kind}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mstpp", default=str(ROOT / "build/release/cli/mstpp"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()

    sizes = bench(options, SIZES, "--iterations", "5", "--warm-up", "1")
    blocks = bench(options, [BLOCKS_SIZE], "--blocks", "--iterations", "20")
    rates = sizes["rates"][0]
    gemm, copy = rates["gemmGflops"], rates["copyGBs"]
    sums = sums_by_kind(blocks["results"][0]["blocks"])
    today = datetime.date.today().isoformat()
    heading = (
        f"{sizes['results'][0]['runs_on']}; matrix product {gemm:.0f} GFLOP/s, copy {copy:.0f} "
        f"GB/s; {today}."
    )
    page.write_table("sizes table", f"{heading}\n\n{size_table(sizes['results'])}")
    page.write_table(
        "blocks table", f"{BLOCKS_SIZE}; {heading}\n\n{kind_table(sums, gemm)}"
    )
    title = f"mstpp, {BLOCKS_SIZE}: {sizes['results'][0]['runs_on']}"
    (ROOT / "docs" / "roofline.svg").write_text(drawing(sums, gemm, copy, title))
    name = f"cpu-{page.file_name(sizes['machine']['cpu'])}-blocks.json"
    record = {"date": today, "sizes": sizes, "blocks": blocks}
    (ROOT / "bench" / "results" / name).write_text(json.dumps(record, indent=1) + "\n")
    print(heading, size_table(sizes["results"]), kind_table(sums, gemm), sep="\n\n")


if __name__ == "__main__":
    main()
