"""Results as files: per picture in CSV, means in JSON, both in an HTML page."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..files import write_text
from ..machine import cpu_count, cpu_info, package_version
from .report import Comparison, Plot, write_report
from .results import Row, Summary, bd_rates, group_rows, label_of, worse_rows
from .tables import make_tables


def write_results(
    out_dir: Path,
    title: str,
    rows: Sequence[Row],
    failed: Sequence[tuple[Path, str]],
    comparisons: Sequence[Comparison],
    facts: Mapping[str, str],
    make_plots: Callable[[Sequence[Row]], Sequence[Plot]] | None = None,
) -> Summary:
    """Writes `images.csv`, `summary.json` and `report.html`; files that are there are replaced.

    What of a name is not UTF-8, which no text file takes, is written as escapes such as `\\udce9`, and so are line
    ends and other control characters, which end a row to some readers.

    Args:
        out_dir: made if missing.
        title: heading of the page.
        rows: one per pair that could be measured; all by the same measures.
        failed: set and name of every pair that could not be measured, and why.
        comparisons: sliders of the page.
        facts: what is known of the run; date, versions and hardware are added.
        make_plots: draws curves of the rows for the page.
    """
    rows = [
        replace(row, set_name=_one_line(row.set_name), info=replace(row.info, name=_one_line(row.info.name)))
        for row in rows
    ]
    failed = [(Path(_one_line(str(path))), _escaped(reason)) for path, reason in failed]
    comparisons = [replace(shown, title=_one_line(shown.title)) for shown in comparisons]
    all_facts = {name: _escaped(fact) for name, fact in facts.items()} | describe_machine()
    files = (out_dir / name for name in ("images.csv", "summary.json", "report.html"))
    summary = Summary(rows, group_rows(rows), bd_rates(rows), failed, *files)
    plots = make_plots(rows) if make_plots else ()
    write_text(summary.csv, _csv(rows))
    write_text(summary.json, json.dumps(_json(summary, all_facts), indent=2, allow_nan=False) + "\n")
    failures = [(str(path), reason) for path, reason in failed]
    write_report(summary.html, title, make_tables(summary), comparisons, all_facts, failures, plots)
    return summary


def _escaped(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], _escaped(text))


def _csv(rows: Sequence[Row]) -> str:
    names = list(rows[0].before)
    has_model = rows[0].after is not None
    columns = ["set", "name", "codec", "level", "height", "width", "bytes", "bpp"]
    columns += [f"lq_{name}" for name in names]
    columns += [*(f"out_{name}" for name in names), "seconds_per_mp"] if has_model else []
    text = io.StringIO(newline="")
    # Quotes tell a set called "NA" or "007" from a missing value or a number.
    table = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    table.writerow(columns)
    for row in rows:
        info = row.info
        cells: list[str | float] = [row.set_name, info.name, info.codec, info.level, info.height, info.width]
        cells += [info.num_bytes, *(round(value, 6) for value in (info.bpp, *row.before.values()))]
        if row.after is not None:
            cells += [round(value, 6) for value in row.after.values()]
            cells.append("" if row.seconds_per_mp is None else round(row.seconds_per_mp, 6))
        table.writerow(cells)
    return text.getvalue()


def _json(summary: Summary, facts: Mapping[str, str]) -> dict[str, Any]:
    """Numbers that JSON does not know (a PSNR of inf) become null."""

    def clean(values: Mapping[str, float] | None) -> dict[str, float | None] | None:
        return (
            None if values is None else {name: round(v, 6) if math.isfinite(v) else None for name, v in values.items()}
        )

    groups = []
    for group in summary.groups:
        change = group.after and {name: group.after[name] - value for name, value in group.before.items()}
        groups.append(
            {
                "set": group.set_name,
                "codec": group.codec,
                "level": group.level,
                "num_pictures": group.num_pictures,
                "bpp": round(group.bpp, 6),
                "before": clean(group.before),
                "after": clean(group.after),
                "difference": clean(change),
                "left_out": {name: list(pictures) for name, pictures in group.left_out.items()},
                "seconds_per_mp": group.seconds_per_mp,
            }
        )
    failed = [{"name": str(path), "reason": reason} for path, reason in summary.failed]
    percents: list[dict[str, Any]] = []
    overlaps: list[dict[str, Any]] = []
    for (set_name, codec), savings in summary.savings.items():
        key = {"set": set_name, "codec": codec}
        percents.append(
            key | {name: None if one.percent is None else round(one.percent, 6) for name, one in savings.items()}
        )
        overlaps.append(key | {name: round(one.overlap, 3) for name, one in savings.items()})
    worse = [
        {"set": row.set_name, "name": label_of(row.info), "before": row.before["lpips"], "after": row.after["lpips"]}
        for row in worse_rows(summary.rows)
        if row.after
    ]
    return {
        "format": 1,
        "facts": dict(facts),
        "groups": groups,
        "bd_rate_percent": percents,
        "bd_rate_overlap": overlaps,
        "lpips_worse": worse,
        "failed": failed,
    }


def describe_machine() -> dict[str, str]:
    """Date, versions and hardware of this run, for people who want to repeat it."""
    packages = ("numpy", "onnxruntime", "openvino", "torch", "pyvips")
    found = {name: package_version(name) for name in packages} | library_versions()
    versions = {"subjectiveqe": __version__} | {name: version for name, version in found.items() if version}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": f"{processor_name()}, {cpu_count()} cores for this process",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def processor_name() -> str:
    """The processor as it calls itself, or else its kind."""
    return cpu_info("model name") or platform.processor() or platform.machine()


def library_versions() -> dict[str, str | None]:
    """What codes pictures here: PyAV, which brings libx265 along, and Pillow with its libraries."""
    from PIL import features

    libraries = {"libjpeg-turbo": "libjpeg_turbo", "libwebp": "webp", "libavif": "avif"}
    return {name: package_version(name) for name in ("av", "pillow")} | {
        name: features.version(feature) for name, feature in libraries.items()
    }
