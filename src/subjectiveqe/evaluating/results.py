"""What was measured, and how it is written: per picture into CSV, means into JSON, both into an HTML page."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import json
import math
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.store import PairInfo
from ..files import write_text
from ..machine import cpu_count
from .bdrate import bd_rate, find_fault, overlap
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
        left_out: by measure, names of pictures in neither mean, since one of their values is not finite: the PSNR of
            equal pictures, the blockiness of flat ones. Where no picture has finite values, none is left out.
    """

    set_name: str
    codec: str
    level: int
    num_pictures: int
    bpp: float
    before: Mapping[str, float]
    after: Mapping[str, float] | None
    seconds_per_mp: float | None
    left_out: Mapping[str, Sequence[str]]

    @property
    def title(self) -> str:
        """Names it in tables."""
        return self.set_name if self.level < 0 else f"{self.set_name}, {self.codec} {self.level}"


@dataclass(frozen=True)
class Curve:
    """One measure of one set and codec over its levels: means over pictures that have finite values at all of them.

    Args:
        bpp: mean bits per pixel, by level.
        before: means of the compressed pictures.
        after: means of the enhanced pictures; None without a model.
        num_pictures: how many the means are of; the lists are empty for 0.
        left_out: names of pictures that all levels have, but not all with a finite value.
    """

    bpp: Sequence[float]
    before: Sequence[float]
    after: Sequence[float] | None
    num_pictures: int
    left_out: Sequence[str]


@dataclass(frozen=True)
class Saving:
    """What enhancing is worth in bits, by one measure.

    Args:
        percent: the BD-rate; negative where enhanced pictures need fewer bits for the same quality, None without one.
        overlap: shared part of the quality that both curves reach, 0..1.
        fault: why there is no BD-rate, else "".
    """

    percent: float | None
    overlap: float
    fault: str = ""


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
    summary = Summary(rows, _group(rows), failed, *files)
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


def library_versions() -> dict[str, str | None]:
    """What codes pictures here: PyAV, which brings libx265 along, and Pillow with its libraries."""
    from PIL import features

    libraries = {"libjpeg-turbo": "libjpeg_turbo", "libwebp": "webp", "libavif": "avif"}
    return {name: _version(name) for name in ("av", "pillow")} | {
        name: features.version(feature) for name, feature in libraries.items()
    }


def describe_machine() -> dict[str, str]:
    """Date, versions and hardware of this run, for people who want to repeat it."""
    packages = ("numpy", "onnxruntime", "openvino", "torch", "pyvips")
    found = {name: _version(name) for name in packages} | library_versions()
    versions = {"subjectiveqe": __version__} | {name: version for name, version in found.items() if version}
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
            Cell(group.title),
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
    worse = worse_rows(summary.rows)
    caption = f"LPIPS rose by more than {WORSE_BY:g}: {len(worse)} of {len(summary.rows)}, the worst first"
    columns = ["picture", "bytes", "bpp", *headings, "s per MP"]
    return [
        Table(f"{sense}, means", ["pairs", "pictures", "bpp", *headings, "s per MP"], means, _notes(summary.groups)),
        *_savings(bd_rates(summary.rows)),
        *([Table(caption, columns, list_pictures(worse))] if worse else []),
        Table(f"{sense}, every picture", columns, list_pictures(summary.rows)),
    ]


def _notes(groups: Sequence[Group]) -> list[str]:
    """Which pictures are left out of which means."""
    notes = []
    for group in groups:
        headings: dict[tuple[str, ...], list[str]] = {}
        for name, pictures in group.left_out.items():
            headings.setdefault(tuple(pictures), []).append(MEASURES[name].heading)
        notes += [f"{group.title}: {', '.join(of)} without {_listed(pictures)}" for pictures, of in headings.items()]
    return ["* Mean over the pictures whose values are finite. " + "; ".join(notes) + "."] if notes else []


def _listed(pictures: Sequence[str]) -> str:
    named = ", ".join(pictures[:3])
    return named if len(pictures) <= 3 else f"{len(pictures)} pictures ({named}, ...)"


LOW_OVERLAP = 0.75
"""Below this shared part of their qualities, what two curves differ by says little of either."""


def _savings(found: Mapping[tuple[str, str], Mapping[str, Saving]]) -> list[Table]:
    """The table of BD-rates, with footnotes on those that are missing or say little; none without BD-rates."""
    if not found:
        return []
    rows, low, missing = [], [], []
    for (set_name, codec), savings in found.items():
        title = f"{set_name}, {codec}"
        cells = [Cell(title)]
        for name, saving in savings.items():
            heading = f"{title}, {MEASURES[name].heading}"
            if saving.percent is None:
                missing.append(f"{heading}: {saving.fault}")
                cells.append(Cell("–"))
                continue
            if saving.overlap < LOW_OVERLAP:
                low.append(f"{heading}: {saving.overlap:.0%}")
            verdict = "better" if saving.percent < 0 else "worse" if saving.percent > 0 else ""
            cells.append(Cell(f"{saving.percent:+.1f}{'*' if saving.overlap < LOW_OVERLAP else ''}", verdict))
        rows.append(cells)
    notes = (
        [f"* The curves share less than {LOW_OVERLAP:.0%} of the quality they reach. {'; '.join(low)}."] if low else []
    )
    notes += [f"– No BD-rate. {'; '.join(missing)}."] if missing else []
    headings = [MEASURES[name].heading for name in next(iter(found.values()))]
    return [Table("Bits at equal quality (BD-rate), per cent", ["pairs", *headings], rows, notes, is_open=True)]


WORSE_BY = 0.002
"""From how much more LPIPS on a picture counts as worse."""


def worse_rows(rows: Sequence[Row]) -> list[Row]:
    """Pictures that enhancing made worse to LPIPS, the worst first; none where there is no model or no LPIPS."""
    rises = [(row.after["lpips"] - row.before["lpips"], row) for row in rows if row.after and "lpips" in row.before]
    worse = sorted(((rise, row) for rise, row in rises if rise > WORSE_BY), key=lambda item: -item[0])
    return [row for _, row in worse]


def curves(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Curve]]:
    """Curves of all measures by set and codec, of the pictures that all levels have: others would bend them.

    Args:
        rows: one per picture and level; those of unknown level count for nothing.
    """
    members: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        if row.info.level >= 0:
            members.setdefault((row.set_name, row.info.codec), {}).setdefault(row.info.name, []).append(row)
    found = {}
    for key, pictures in sorted(members.items()):
        levels = sorted({row.info.level for of_one in pictures.values() for row in of_one})
        whole = {name: of_one for name, of_one in pictures.items() if {row.info.level for row in of_one} == set(levels)}
        if whole:
            measures = next(iter(whole.values()))[0].before
            found[key] = {measure: _curve(measure, whole, levels) for measure in measures}
    return found


def _curve(measure: str, pictures: Mapping[str, Sequence[Row]], levels: Sequence[int]) -> Curve:
    left_out = [name for name, rows in pictures.items() if not all(_is_finite(row, measure) for row in rows)]
    kept = [row for name, rows in pictures.items() if name not in left_out for row in rows]
    num_pictures = len(pictures) - len(left_out)
    by_level = [[row for row in kept if row.info.level == level] for level in levels] if kept else []
    has_model = all(row.after is not None for rows in pictures.values() for row in rows)
    return Curve(
        [_mean([row.info.bpp for row in rows]) for rows in by_level],
        [_mean([row.before[measure] for row in rows]) for rows in by_level],
        [_mean([row.after[measure] for row in rows if row.after]) for rows in by_level] if has_model else None,
        num_pictures,
        left_out,
    )


_FEWEST_LEVELS = 4
"""Points of a curve that a BD-rate needs to say something."""


def bd_rates(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Saving]]:
    """What enhancing is worth in bits: the BD-rate of the enhanced pictures against the compressed ones.

    Args:
        rows: one per picture; those of a set and codec that were not measured at all its levels count for nothing.
    Returns:
        By the name of the measure, for each set and codec with a model and four levels or more.
    """
    found: dict[tuple[str, str], dict[str, Saving]] = {}
    levels: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        levels.setdefault((row.set_name, row.info.codec), set()).add(row.info.level)
    for key, of_measures in curves(rows).items():
        if len(levels[key]) >= _FEWEST_LEVELS:
            savings = {
                name: _saving(curve.bpp, curve.before, curve.after)
                for name, curve in of_measures.items()
                if curve.after is not None and MEASURES[name].higher_is_better is not None
            }
            if savings:
                found[key] = savings
    return found


def _saving(bpp: Sequence[float], before: Sequence[float], after: Sequence[float]) -> Saving:
    if not bpp:
        return Saving(None, 0.0, "no picture has finite values at all levels")
    fault = find_fault(bpp, before, bpp, after)
    percent = None if fault else bd_rate(bpp, before, bpp, after)
    return Saving(percent, overlap(before, after), fault)


def _group(rows: Sequence[Row]) -> list[Group]:
    members: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        members.setdefault((row.set_name, row.info.codec, row.info.level), []).append(row)
    groups = []
    for (set_name, codec, level), group in sorted(members.items()):
        kept = {name: [row for row in group if _is_finite(row, name)] or group for name in group[0].before}
        after = {name: [row.after[name] for row in of_one if row.after is not None] for name, of_one in kept.items()}
        seconds = [row.seconds_per_mp for row in group if row.seconds_per_mp is not None]
        groups.append(
            Group(
                set_name,
                codec,
                level,
                num_pictures=len(group),
                bpp=_mean([row.info.bpp for row in group]),
                before={name: _mean([row.before[name] for row in of_one]) for name, of_one in kept.items()},
                after={name: _mean(values) for name, values in after.items()} if all(after.values()) else None,
                seconds_per_mp=_mean(seconds) if seconds else None,
                left_out={
                    name: [row.info.name for row in group if not _is_finite(row, name)]
                    for name, of_one in kept.items()
                    if len(of_one) < len(group)
                },
            )
        )
    return groups


def _is_finite(row: Row, name: str) -> bool:
    """Whether a picture counts for the means of a measure: both sides are means of the same pictures."""
    return math.isfinite(row.before[name]) and (row.after is None or math.isfinite(row.after[name]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


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
    for (set_name, codec), savings in bd_rates(summary.rows).items():
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


def _change(name: str, row: Row | Group) -> Cell:
    form = MEASURES[name].form
    before = row.before[name]
    mark = "*" if isinstance(row, Group) and name in row.left_out else ""
    if row.after is None:
        return Cell(_number(before, form) + mark)
    after = row.after[name]
    texts = _number(before, form), _number(after, form)
    is_told = texts[0] != texts[1] and not math.isnan(before) and not math.isnan(after)
    verdict = ("better" if is_better(name, before, after) else "worse") if is_told else ""
    return Cell(f"{texts[0]} → {texts[1]}{mark}", verdict)


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
