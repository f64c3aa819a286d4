"""Prints the tables of benchmarks.md from the summary of a benchmark.

python benchmarks/benchmark_table.py benchmark/summary.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from subjectiveqe.evaluating.measures import MEASURES


def main() -> None:
    """Means of every set, codec and level, then the bits saved."""
    summary = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    names = list(summary["groups"][0]["before"])
    print(row("set", "codec, level", "pictures", "bpp", *(MEASURES[name].heading for name in names)))
    print("|---" * (4 + len(names)) + "|")
    for group in summary["groups"]:
        cells = [change(name, group["before"][name], group["after"][name]) for name in names]
        level = f"{group['codec']} {group['level']}"
        print(row(group["set"], level, group["num_pictures"], f"{group['bpp']:.2f}", *cells))
    if saved := summary["bd_rate_percent"]:
        judged = [name for name in saved[0] if name in MEASURES]
        print()
        print(row("set", "codec", *(MEASURES[name].heading for name in judged)))
        print("|---" * (2 + len(judged)) + "|")
        for rates in saved:
            cells = ["" if rates[name] is None else f"{rates[name]:+.0f} %" for name in judged]
            print(row(rates["set"], rates["codec"], *cells))


def change(name: str, before: float, after: float) -> str:
    """Both values, and for distances by how many per cent they fell."""
    form = MEASURES[name].form
    text = f"{before:{form}} → {after:{form}}"
    return text + (f" ({100 * (after / before - 1):+.0f} %)" if MEASURES[name].higher_is_better is False else "")


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
