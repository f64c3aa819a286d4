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
        after = group["after"] or {}
        cells = [change(name, group["before"][name], after.get(name), bool(after)) for name in names]
        level = f"{group['codec']} {group['level']}"
        print(row(group["set"], level, group["num_pictures"], f"{group['bpp']:.2f}", *cells))
    if saved := summary["bd_rate_percent"]:
        judged = [name for name in saved[0] if name in MEASURES]
        print()
        print(row("set", "codec", *(MEASURES[name].heading for name in judged)))
        print("|---" * (2 + len(judged)) + "|")
        for rates in saved:
            cells = ["–" if rates[name] is None else f"{rates[name]:+.0f} %" for name in judged]
            print(row(rates["set"], rates["codec"], *cells))


def change(name: str, before: float | None, after: float | None, has_model: bool) -> str:
    """Both values, and for distances by how many per cent they fell; "–" where no picture has a finite value."""
    form = MEASURES[name].form
    texts = ["–" if value is None else f"{value:{form}}" for value in (before, after)]
    if not has_model:
        return texts[0]
    text = " → ".join(texts)
    if MEASURES[name].higher_is_better is False and before and after is not None:
        text += f" ({100 * (after / before - 1):+.0f} %)"
    return text


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
