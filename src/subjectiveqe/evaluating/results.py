"""What was measured, and how it is written: per picture into CSV, means into JSON, both into an HTML page."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.store import PairInfo
from ..files import write_text
from ..machine import cpu_count
from .bdrate import bd_rate
from .measures import MEASURES, is_better
from .report import Cell, Comparison, Plot, Table, write_report


@dataclass(frozen=True)
class Row:
    """One pair, measured.

    Args:
        set_name: the pair set it belongs to.
        info: name, codec, level, bytes, size.
        before: measures of the compressed picture, by name.
        after: measures of the enhanced picture; None without a model.
        seconds_per_mp: seconds the model took per megapixel; None without a model.
    """

    set_name: str
    info: PairInfo
    before: Mapping[str, float]
    after: Mapping[str, float] | None
    seconds_per_mp: float | None


@dataclass(frozen=True)
class Group:
    """Means over the pictures of one set, codec and level.

    Args:
        set_name: the pair set.
        codec: codec of its pairs.
        level: QP or QF of its pairs.
        num_pictures: how many were measured.
        bpp: mean bits per pixel.
        before: mean measures of the compressed pictures.
        after: mean measures of the enhanced pictures; None without a model.
        seconds_per_mp: mean seconds per megapixel; None without a model.
    """

    set_name: str
    codec: str
    level: int
    num_pictures: int
    bpp: float
    before: Mapping[str, float]
    after: Mapping[str, float] | None
    seconds_per_mp: float | None


@dataclass(frozen=True)
class Summary:
    """What `evaluate` found and where it wrote it.

    Args:
        rows: one per pair that could be measured.
        groups: means per set, codec and level.
        failed: set and name of every pair that could not be measured, and why.
        csv: the table per picture.
        json: the summary.
        html: the page.
    """

    rows: Sequence[Row]
    groups: Sequence[Group]
    failed: Sequence[tuple[Path, str]]
    csv: Path
    json: Path
    html: Path


def write_results(
    out_dir: Path,
    title: str,
    rows: Sequence[Row],
    failed: Sequence[tuple[Path, str]],
    comparisons: Sequence[Comparison],
    facts: Mapping[str, str],
    make_plots: Callable[[Sequence[Group]], Sequence[Plot]] | None = None,
) -> Summary:
    """Writes `images.csv`, `summary.json` and `report.html`; files that are there are replaced.

    What of a name is not UTF-8, which no text file takes, is written as escapes such as `\\udce9`.

    Args:
        out_dir: made if missing.
        title: heading of the page.
        rows: one per pair that could be measured; all by the same measures.
        failed: set and name of every pair that could not be measured, and why.
        comparisons: sliders of the page.
        facts: what is known of the run; date, versions and hardware are added.
        make_plots: draws curves of the means for the page.
    """
    rows = [
        replace(row, set_name=_escaped(row.set_name), info=replace(row.info, name=_escaped(row.info.name)))
        for row in rows
    ]
    failed = [(Path(_escaped(str(path))), _escaped(reason)) for path, reason in failed]
    comparisons = [replace(shown, title=_escaped(shown.title)) for shown in comparisons]
    all_facts = {name: _escaped(fact) for name, fact in facts.items()} | describe_machine()
    files = (out_dir / name for name in ("images.csv", "summary.json", "report.html"))
    summary = Summary(rows, _group(rows), failed, *files)
    plots = make_plots(summary.groups) if make_plots else ()
    write_text(summary.csv, _csv(rows))
    write_text(summary.json, json.dumps(_json(summary, all_facts), indent=2, allow_nan=False) + "\n")
    failures = [(str(path), reason) for path, reason in failed]
    write_report(summary.html, title, make_tables(summary), comparisons, all_facts, failures, plots)
    return summary


def _escaped(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def describe_machine() -> dict[str, str]:
    """Date, versions and hardware of this run, for people who want to repeat it."""
    packages = ("numpy", "onnxruntime", "openvino", "torch")
    versions = {"subjectiveqe": __version__} | {name: found for name in packages if (found := _version(name))}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": f"{_processor()}, {cpu_count()} cores for this process",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def make_tables(summary: Summary) -> list[Table]:
    """The tables of the report: means per set, codec and level, what that is worth in bits, what is worse, then all."""
    names = list(summary.rows[0].before)
    headings = [MEASURES[name].heading for name in names]
    means = [
        [
            Cell(group.set_name if group.level < 0 else f"{group.set_name}, {group.codec} {group.level}"),
            Cell(str(group.num_pictures)),
            Cell(f"{group.bpp:.3f}"),
            *(_change(name, group) for name in names),
            Cell(_number(group.seconds_per_mp, ".3f")),
        ]
        for group in summary.groups
    ]

    def list_pictures(rows: Sequence[Row]) -> list[list[Cell]]:
        return [
            [
                Cell(title_of(row.set_name, row.info)),
                Cell(str(row.info.num_bytes)),
                Cell(f"{row.info.bpp:.3f}"),
                *(_change(name, row) for name in names),
                Cell(_number(row.seconds_per_mp, ".3f")),
            ]
            for row in rows
        ]

    sense = "Compressed" if summary.rows[0].after is None else "Compressed → enhanced"
    savings = [
        [
            Cell(f"{set_name}, {codec}"),
            *(
                Cell(_number(rate, "+.1f"), "better" if rate < 0 else "worse" if rate > 0 else "")
                for rate in rates.values()
            ),
        ]
        for (set_name, codec), rates in bd_rates(summary.rows).items()
    ]
    measured = [MEASURES[name].heading for name in names if MEASURES[name].higher_is_better is not None]
    worse = worse_rows(summary.rows)
    caption = f"LPIPS rose by more than {WORSE_BY:g}: {len(worse)} of {len(summary.rows)}, the worst first"
    columns = ["picture", "bytes", "bpp", *headings, "s per MP"]
    return [
        Table(f"{sense}, means", ["pairs", "pictures", "bpp", *headings, "s per MP"], means),
        *([Table("Bits at equal quality (BD-rate), per cent", ["pairs", *measured], savings)] if savings else []),
        *([Table(caption, columns, list_pictures(worse))] if worse else []),
        Table(f"{sense}, every picture", columns, list_pictures(summary.rows)),
    ]


WORSE_BY = 0.002
"""From how much more LPIPS on a picture counts as worse."""


def worse_rows(rows: Sequence[Row]) -> list[Row]:
    """Pictures that enhancing made worse to LPIPS, the worst first; none where there is no model or no LPIPS."""
    rises = [(row.after["lpips"] - row.before["lpips"], row) for row in rows if row.after and "lpips" in row.before]
    worse = sorted(((rise, row) for rise, row in rises if rise > WORSE_BY), key=lambda item: -item[0])
    return [row for _, row in worse]


def by_curve(groups: Sequence[Group]) -> dict[tuple[str, str], list[Group]]:
    """Means of levels that are known, by set and codec."""
    curves: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        if group.level >= 0:
            curves.setdefault((group.set_name, group.codec), []).append(group)
    return curves


_FEWEST_LEVELS = 4
"""Points of a curve that a BD-rate needs to say something."""


def _of_all_levels(rows: Sequence[Row]) -> list[Row]:
    """Rows of pictures that were measured at all levels of their set and codec: a curve is of the same pictures."""
    levels: dict[tuple[str, str], set[int]] = {}
    met: dict[tuple[str, str, str], set[int]] = {}
    for row in rows:
        levels.setdefault((row.set_name, row.info.codec), set()).add(row.info.level)
        met.setdefault((row.set_name, row.info.codec, row.info.name), set()).add(row.info.level)
    return [
        row for row in rows if met[row.set_name, row.info.codec, row.info.name] == levels[row.set_name, row.info.codec]
    ]


def bd_rates(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """What enhancing is worth in bits: the BD-rate of the enhanced pictures against the compressed ones.

    Args:
        rows: one per picture; those of a set and codec that were not measured at all its levels count for nothing.
    Returns:
        For each set and codec with four levels or more, per cent by the name of the measure; negative where enhanced
        pictures need fewer bits for the same quality, NaN where the curves do not meet.
    """
    found = {}
    for key, levels in by_curve(_group(_of_all_levels(rows))).items():
        if len(levels) >= _FEWEST_LEVELS and levels[0].after is not None:
            bpp = [group.bpp for group in levels]
            found[key] = {
                name: bd_rate(bpp, [g.before[name] for g in levels], bpp, [g.after[name] for g in levels if g.after])
                for name in levels[0].before
                if MEASURES[name].higher_is_better is not None
            }
    return found


def _group(rows: Sequence[Row]) -> list[Group]:
    members: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        members.setdefault((row.set_name, row.info.codec, row.info.level), []).append(row)
    groups = []
    for (set_name, codec, level), group in sorted(members.items()):
        names = list(group[0].before)
        after = [row.after for row in group if row.after is not None]
        seconds = [row.seconds_per_mp for row in group if row.seconds_per_mp is not None]
        groups.append(
            Group(
                set_name,
                codec,
                level,
                num_pictures=len(group),
                bpp=_mean([row.info.bpp for row in group]),
                before={name: _mean([row.before[name] for row in group]) for name in names},
                after={name: _mean([values[name] for values in after]) for name in names} if after else None,
                seconds_per_mp=_mean(seconds) if seconds else None,
            )
        )
    return groups


def _mean(values: Sequence[float]) -> float:
    """Plain mean; inf where a picture has it (PSNR of equal pictures)."""
    return sum(values) / len(values)


def _csv(rows: Sequence[Row]) -> str:
    names = list(rows[0].before)
    has_model = rows[0].after is not None
    columns = ["set", "name", "codec", "level", "height", "width", "bytes", "bpp"]
    columns += [f"lq_{name}" for name in names]
    columns += [*(f"out_{name}" for name in names), "seconds_per_mp"] if has_model else []
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        info = row.info
        cells: list[object] = [row.set_name, info.name, info.codec, info.level, info.height, info.width]
        cells += [info.num_bytes, f"{info.bpp:.6f}", *(f"{value:.6f}" for value in row.before.values())]
        if row.after is not None:
            cells += [*(f"{value:.6f}" for value in row.after.values()), _number(row.seconds_per_mp, ".6f")]
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
                "seconds_per_mp": group.seconds_per_mp,
            }
        )
    failed = [{"name": str(path), "reason": reason} for path, reason in summary.failed]
    savings = [
        {"set": set_name, "codec": codec, **(clean(rates) or {})}
        for (set_name, codec), rates in bd_rates(summary.rows).items()
    ]
    worse = [
        {"set": row.set_name, "name": label_of(row.info), "before": row.before["lpips"], "after": row.after["lpips"]}
        for row in worse_rows(summary.rows)
        if row.after
    ]
    return {
        "format": 1,
        "facts": dict(facts),
        "groups": groups,
        "bd_rate_percent": savings,
        "lpips_worse": worse,
        "failed": failed,
    }


def _change(name: str, row: Row | Group) -> Cell:
    form = MEASURES[name].form
    before = row.before[name]
    if row.after is None:
        return Cell(_number(before, form))
    after = row.after[name]
    texts = _number(before, form), _number(after, form)
    verdict = "" if texts[0] == texts[1] else "better" if is_better(name, before, after) else "worse"
    return Cell(f"{texts[0]} → {texts[1]}", verdict)


def caption_of(row: Row) -> str:
    """What a picture of the report says of itself."""
    parts = [f"{row.info.num_bytes:,} bytes, {row.info.bpp:.3f} bpp"]
    told = [name for name in ("psnr_db", "ssim", "lpips", "blockiness") if name in row.before]
    parts += [f"{MEASURES[name].heading} {_change(name, row).text}" for name in told]
    return "; ".join(parts) + "."


def label_of(info: PairInfo) -> str:
    """Tells the pairs of one set apart, also as a file name."""
    return info.name if info.level < 0 else f"{info.name}__{info.codec}-{info.level}"


def title_of(set_name: str, info: PairInfo) -> str:
    """Names a pair in tables."""
    return f"{set_name}: {info.name}" + ("" if info.level < 0 else f", {info.codec} {info.level}")


def _number(value: float | None, form: str) -> str:
    return "" if value is None or math.isnan(value) else format(value, form)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
