#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cycles that the machine code makes a warp wait, loop by loop.

    cuobjdump -sass build/cuda/bench/cuda_bench | lab/cuda/stalls.py --kernel 'FeedForward.*Li32'

Since Volta each instruction says for how many cycles its warp waits at least before the next, bits
41 to 44 of its second word: for results of known latency, and for its pipe. Their sum over a loop
is what a warp alone takes for it, but for memory, barriers and whatever else has no known latency.
Other warps can use these cycles; three a scheduler, as most kernels here have, do not use them all.
"""

import argparse
import collections
import re
import sys

INSTRUCTION = re.compile(r"\s+/\*([0-9a-f]{4,5})\*/\s+(.*?);\s+/\* 0x[0-9a-f]{16} \*/")
SECOND_WORD = re.compile(r"\s+/\* 0x([0-9a-f]{16}) \*/")
BRANCH = re.compile(r"\bBRA(?:\.U)? (?:!?U?P\d+, )?`?\(?0x([0-9a-f]+)")


def functions(lines):
    """Name and [(address, text, stall)] of each."""
    name, code, waiting = None, [], None
    for line in lines:
        if "Function :" in line:
            if name:
                yield name, code
            name, code, waiting = line.split(":")[1].strip(), [], None
        elif found := INSTRUCTION.match(line):
            waiting = int(found[1], 16), found[2]
        elif waiting and (found := SECOND_WORD.match(line)):
            code.append((*waiting, int(found[1], 16) >> 41 & 15))
            waiting = None
    if name:
        yield name, code


def opcode(text):
    """Without what guards it; of products and of loads with their shape."""
    parts = re.sub(r"^@!?U?P\w+ ", "", text).split()[0].split(".")
    shaped = parts[0] in ("HMMA", "HGMMA", "LDS", "STS", "LDG", "STG")
    return ".".join(parts[: 2 if shaped else 1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel", default="", help="only functions with this regular expression")
    parser.add_argument("--least", type=int, default=100, help="instructions of a loop (100)")
    parser.add_argument("--opcodes", type=int, default=8, help="to list of each loop (8)")
    options = parser.parse_args()
    for name, code in functions(sys.stdin):
        if not re.search(options.kernel, name):
            continue
        print(name)
        for address, text, _ in code:
            target = BRANCH.search(text)
            if not target or int(target[1], 16) >= address:
                continue
            loop = [i for i in code if int(target[1], 16) <= i[0] <= address]
            if len(loop) < options.least:
                continue
            counts, stalls = collections.Counter(), collections.Counter()
            for _, instruction, stall in loop:
                counts[opcode(instruction)] += 1
                stalls[opcode(instruction)] += stall
            print(f"  {len(loop)} instructions, {sum(stalls.values())} cycles:", end=" ")
            most = stalls.most_common(options.opcodes)
            print(", ".join(f"{counts[o]} {o} {cycles}" for o, cycles in most))


if __name__ == "__main__":
    main()
