#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times mstpp and its peers in turns (A B C A B C ...), so that all see the same machine.

    ./dev bench cpu

Samples during which other programs used more than a twentieth of the processor are dropped and
taken again. Writes bench/results/cpu-MACHINE.json and the table in docs/performance.md.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import page

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = ["openvino", "onnxruntime", "pytorch"]
TICKS = os.sysconf("SC_CLK_TCK")


def busy_seconds():
    """Processor time that all programs together have used."""
    fields = [int(v) for v in open("/proc/stat").readline().split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = fields
    return (user + nice + system + irq + softirq) / TICKS


class Runner:
    """A program that runs the network once for each line it reads."""

    def __init__(self, name, command):
        self.name = name
        self.seconds = []
        self.processor_seconds = []
        self.dropped = 0
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer("ready")

    def _answer(self, key):
        while True:
            line = self.process.stdout.readline()
            if not line:
                sys.exit(f"{self.name} ended without an answer")
            if line.startswith("{") and key in (record := json.loads(line)):
                return record

    def _own_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def run(self, tries=8, keep_all=False):
        """One good sample, or the last of a few bad ones, which is not kept. On a machine that is
        never quiet: `keep_all`, whatever others did."""
        for _ in range(tries):
            if not keep_all:
                wait_until_quiet()
            busy, own, start = busy_seconds(), self._own_seconds(), time.perf_counter()
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            seconds = self._answer("seconds")["seconds"]
            elapsed = time.perf_counter() - start
            own = self._own_seconds() - own
            others = (busy_seconds() - busy) - own
            # Two ticks: the clocks of /proc are that coarse.
            if keep_all or others <= 0.05 * elapsed * os.cpu_count() + 2 / TICKS:
                self.seconds.append(seconds)
                self.processor_seconds.append(own)
                return
            self.dropped += 1

    def close(self):
        self.process.stdin.close()
        summary = self._answer("peak_mib")
        self.process.wait()
        return summary


def wait_until_quiet(patience=60):
    """Until others leave nine tenths of the processor idle for a moment, or patience ends."""
    for _ in range(patience * 10):
        busy = busy_seconds()
        time.sleep(0.1)
        if busy_seconds() - busy <= 0.1 * 0.1 * os.cpu_count() + 1 / TICKS:
            return


def command_of(name, options, size, threads):
    common = ["--size", size, "--threads", str(threads), "--serve"]
    if name == "mstpp":
        return [options.mstpp, "bench", "--device", "cpu", "--warm-up", "2", *common]
    peer = [options.python, str(HERE / "baselines" / "run_peer.py"), name]
    return [*peer, "--warmup", "2", *common]


def compare(options, size, threads):
    names = ["mstpp", *options.peers]
    runners = [Runner(name, command_of(name, options, size, threads)) for name in names]
    for i in range(options.rounds):
        for runner in runners:
            runner.run()
        print(f"  {size}, {threads} threads: round {i + 1} of {options.rounds}", file=sys.stderr)
    results = []
    for runner in runners:
        summary = runner.close()
        if not runner.seconds:
            sys.exit(f"{runner.name}: the machine was never quiet enough")
        results.append(
            {
                "runner": runner.name,
                "versions": summary["versions"],
                "size": size,
                "threads": threads,
                "seconds": runner.seconds,
                "dropped": runner.dropped,
                "median": statistics.median(runner.seconds),
                "min": min(runner.seconds),
                "peak_mib": summary["peak_mib"],
            }
        )
    for result in results:
        result["mstpp_is_faster"] = result["median"] / results[0]["median"]
    return results


def table(results):
    lines = [
        "| picture | threads | runner | median s | min s | peak MiB | mstpp is faster by |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        versions = [v for k, v in r["versions"].items() if k != "python"]
        ratio = "" if r["runner"] == "mstpp" else f"{r['mstpp_is_faster']:.2f}x"
        lines.append(
            f"| {r['size']} | {r['threads']} | {r['runner']} {versions[0]} | {r['median']:.3f} "
            f"| {r['min']:.3f} | {r['peak_mib']:.0f} | {ratio} |"
        )
    return "\n".join(lines)


def machine_of(options):
    """The processor and what it can do, from mstpp bench."""
    command = [options.mstpp, "bench", "--json", "--quiet", "--size", "128x128", "--threads"]
    threads = ",".join(str(t) for t in options.threads)
    output = subprocess.run([*command, threads], check=True, capture_output=True, text=True)
    report = json.loads(output.stdout)
    return report["machine"] | {
        "rates": report["rates"],
        "runs_on": report["results"][0]["runs_on"],
        "compiler": report["compiler"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mstpp", default=str(ROOT / "build/release/cli/mstpp"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--sizes", default="482x512,256x256,128x128")
    parser.add_argument("--threads", default=f"{len(os.sched_getaffinity(0))},1")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    options.threads = sorted({int(t) for t in options.threads.split(",")}, reverse=True)
    options.peers = options.peers.split(",")

    machine = machine_of(options)
    results = []
    for threads in options.threads:
        for size in options.sizes.split(","):
            results += compare(options, size, threads)
    text = table(results)
    rates = "; ".join(
        f"{r['threads']} threads: matrix product {r['gemmGflops']:.0f} GFLOP/s, "
        f"copy {r['copyGBs']:.0f} GB/s"
        for r in machine["rates"]
    )
    today = datetime.date.today().isoformat()
    heading = f"{machine['runs_on']}; {machine['compiler']}; {rates}; {today}."
    print(heading, text, sep="\n\n")
    name = page.file_name(machine["cpu"])
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    record = {"date": today, "machine": machine, "results": results}
    (folder / f"cpu-{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    page.write_table("cpu table", heading + "\n\n" + text)


if __name__ == "__main__":
    main()
