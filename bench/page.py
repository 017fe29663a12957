# SPDX-License-Identifier: Apache-2.0
"""docs/performance.md, whose tables the benchmarks write."""

import pathlib
import re

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "performance.md"


def write_table(name, text, page=PAGE):
    """Replaces what stands between the marks of that name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = page.read_text()
    first, last = old.index(begin) + len(begin), old.index(end)
    page.write_text(f"{old[:first]}\n{text}\n{old[last:]}")


def file_name(machine):
    """A machine's name as that of a file."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
