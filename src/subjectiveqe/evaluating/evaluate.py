"""Measures a model on pairs: per picture into CSV, per codec and level into JSON, both into an HTML page."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__, metrics
from ..data.store import PairInfo, PairSet, open_pairs
from ..errors import ConfigError, ShapeError, SubjectiveQEError
from ..files import write_text
from ..images import RGB, write_png
from ..machine import cpu_count
from ..weights import locate
from .bdrate import bd_rate
from .report import Cell, Comparison, Table, compare, write_report


@dataclass(frozen=True)
class Measure:
    """One column of the tables.

    Args:
        heading: as people read it, with the unit.
        form: how its numbers are printed.
        higher_is_better: what counts as an improvement; towards 1 for None.
        of: takes `out` and `gt`, gives the value.
    """

    heading: str
    form: str
    higher_is_better: bool | None
    of: Callable[[RGB, RGB], float]


MEASURES = {
    "psnr_db": Measure("PSNR dB", ".2f", True, metrics.psnr),
    "psnr_y_db": Measure("PSNR-Y dB", ".2f", True, metrics.psnr_y),
    "ssim": Measure("SSIM", ".4f", True, metrics.ssim),
    "lpips": Measure("LPIPS", ".4f", False, metrics.lpips),
    "lpips_legacy": Measure("LPIPS legacy", ".4f", False, lambda out, gt: metrics.lpips(out, gt, legacy=True)),
    "blockiness": Measure("blockiness", ".3f", None, lambda out, _: metrics.blockiness(out)),
    "dists": Measure("DISTS", ".4f", False, metrics.dists),
}
"""All measures by the name they have in CSV and JSON."""


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


def evaluate(
    model: Callable[[RGB], RGB] | None,
    sets: Mapping[str, PairSet],
    out_dir: Path,
    *,
    with_dists: bool = False,
    save_images: bool = False,
    shown: int = 12,
    facts: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Measures compressed pictures, and what a model makes of them, against the originals.

    Outputs are 8-bit pictures, and every measure is taken on exactly those. The model is timed alone, after one call on
    a corner of the first picture that is not counted. A pair that cannot be read or measured is listed and left out.

    Args:
        model: an `Enhancer`, or any function from RGB to RGB; None measures the compressed pictures alone.
        sets: pair sets by the name they get in the tables (`open_sets`).
        out_dir: gets `images.csv`, `summary.json` and `report.html`, and with `save_images` a folder `images`.
        with_dists: measure DISTS too; it costs several times all others together and needs `sqe weights`.
        save_images: write the outputs as PNG.
        shown: number of pictures in the report, taken from all codecs and levels in turn.
        facts: what the caller knows of the run (model file, strength, command, ...), for the summary and the report.
        progress: called with the numbers of finished and of all pairs.
    Returns:
        All rows and means, the failures, and the paths of the files.
    Raises:
        ConfigError: there is no pair at all.
        WeightsError: `with_dists` without the weights.
        SubjectiveQEError: not one pair could be measured.
    """
    jobs = [(name, index) for name, pairs in sets.items() for index in range(len(pairs))]
    if not jobs:
        raise ConfigError(f"expected pairs to evaluate, found none in {', '.join(sets) or 'no set'}")
    if with_dists:
        for name in ("vgg16", "dists"):
            locate(name)  # fails now, not at the first picture
    names = [name for name in MEASURES if name != "dists" or with_dists]
    chosen = _choose(jobs, sets, shown)
    rows: list[Row] = []
    failed: list[tuple[Path, str]] = []
    comparisons: dict[tuple[str, int], Comparison] = {}
    is_warm = False
    for done, (set_name, index) in enumerate(jobs):
        info = sets[set_name].infos[index]
        try:
            lq, gt = sets[set_name].read(index)
            if model is not None and not is_warm:
                model(lq[:64, :64])
                is_warm = True
            row, out = _measure(model, set_name, info, lq, gt, names)
            if save_images and out is not None:
                write_png(out_dir / "images" / set_name / f"{_label(info)}.png", out)
            rows.append(row)
            if (set_name, index) in chosen:
                comparisons[set_name, index] = compare(_title(set_name, info), _caption(row), lq, out, gt)
        except (SubjectiveQEError, OSError) as error:
            failed.append((Path(set_name) / _label(info), str(error)))
        if progress:
            progress(done + 1, len(jobs))
    if not rows:
        raise SubjectiveQEError(f"none of {len(jobs)} pairs could be measured; {failed[0][0]}: {failed[0][1]}")
    all_facts = {**getattr(model, "metadata", {}), **(facts or {}), **describe_machine()}
    names_of_files = (out_dir / name for name in ("images.csv", "summary.json", "report.html"))
    summary = Summary(rows, _group(rows), failed, *names_of_files)
    write_text(summary.csv, _csv(rows))
    write_text(summary.json, json.dumps(_json(summary, all_facts), indent=2, allow_nan=False) + "\n")
    failures = [(str(path), reason) for path, reason in failed]
    in_order = [comparisons[key] for key in chosen if key in comparisons]
    write_report(summary.html, "Evaluation", make_tables(summary), in_order, all_facts, failures)
    return summary


def _measure(
    model: Callable[[RGB], RGB] | None, set_name: str, info: PairInfo, lq: RGB, gt: RGB, names: Sequence[str]
) -> tuple[Row, RGB | None]:
    """Measures one pair; gives the model's output too."""
    before = {name: MEASURES[name].of(lq, gt) for name in names}
    if model is None:
        return Row(set_name, info, before, after=None, seconds_per_mp=None), None
    start = time.perf_counter()
    out = model(lq)
    seconds = time.perf_counter() - start
    if out.shape != lq.shape or out.dtype != lq.dtype:
        raise ShapeError(f"expected uint8 {lq.shape} from the model, got {out.dtype} {out.shape}")
    after = {name: MEASURES[name].of(out, gt) for name in names}
    return Row(set_name, info, before, after, seconds / (lq.shape[0] * lq.shape[1] / 1e6)), out


def open_sets(paths: Sequence[Path]) -> dict[str, PairSet]:
    """Opens stores and paired folders and names each after its file.

    Raises:
        ConfigError: two have the same name.
        StoreError: one is incomplete or damaged.
    """
    sets: dict[str, PairSet] = {}
    for path in paths:
        name = path.resolve().name.removesuffix(".lmdb")
        if name in sets:
            raise ConfigError(f"{path}: another pair set is called {name!r} too; rename one, since tables go by name")
        sets[name] = open_pairs(path)
    return sets


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
    """The tables of the report: means per set, codec and level, what that is worth in bits, then every picture."""
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
    pictures = [
        [
            Cell(_title(row.set_name, row.info)),
            Cell(str(row.info.num_bytes)),
            Cell(f"{row.info.bpp:.3f}"),
            *(_change(name, row) for name in names),
            Cell(_number(row.seconds_per_mp, ".3f")),
        ]
        for row in summary.rows
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
        for (set_name, codec), rates in bd_rates(summary.groups).items()
    ]
    measured = [MEASURES[name].heading for name in names if MEASURES[name].higher_is_better is not None]
    return [
        Table(f"{sense}, means", ["pairs", "pictures", "bpp", *headings, "s per MP"], means),
        *([Table("Bits at equal quality (BD-rate), per cent", ["pairs", *measured], savings)] if savings else []),
        Table(f"{sense}, every picture", ["picture", "bytes", "bpp", *headings, "s per MP"], pictures),
    ]


_FEWEST_LEVELS = 4
"""Points of a curve that a BD-rate needs to say something."""


def bd_rates(groups: Sequence[Group]) -> dict[tuple[str, str], dict[str, float]]:
    """What enhancing is worth in bits: the BD-rate of the enhanced pictures against the compressed ones.

    Args:
        groups: means per set, codec and level.
    Returns:
        For each set and codec with four levels or more, per cent by the name of the measure; negative where enhanced
        pictures need fewer bits for the same quality, NaN where the curves do not meet.
    """
    curves: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        if group.after is not None and group.level >= 0:
            curves.setdefault((group.set_name, group.codec), []).append(group)
    found = {}
    for key, levels in curves.items():
        if len(levels) >= _FEWEST_LEVELS:
            bpp = [group.bpp for group in levels]
            found[key] = {
                name: bd_rate(bpp, [g.before[name] for g in levels], bpp, [g.after[name] for g in levels if g.after])
                for name in levels[0].before
                if MEASURES[name].higher_is_better is not None
            }
    return found


def is_better(name: str, before: float, after: float) -> bool:
    """Whether a measure improved: upwards, downwards, or, for blockiness, towards 1."""
    higher_is_better = MEASURES[name].higher_is_better
    if higher_is_better is None:
        return abs(after - 1) < abs(before - 1)
    return after > before if higher_is_better else after < before


def _choose(jobs: Sequence[tuple[str, int]], sets: Mapping[str, PairSet], count: int) -> list[tuple[str, int]]:
    """The pairs to show: the first of every set, codec and level, then the second of each, and so on."""
    turns: dict[tuple[str, str, int], int] = {}
    ranked = []
    for set_name, index in jobs:
        info = sets[set_name].infos[index]
        key = (set_name, info.codec, info.level)
        turns[key] = turns.get(key, -1) + 1
        ranked.append((turns[key], set_name, index))
    return [(set_name, index) for _, set_name, index in sorted(ranked, key=lambda item: item[0])[:count]]


def _group(rows: Sequence[Row]) -> list[Group]:
    members: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        members.setdefault((row.set_name, row.info.codec, row.info.level), []).append(row)
    names = list(rows[0].before)
    groups = []
    for (set_name, codec, level), group in sorted(members.items()):
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
        for (set_name, codec), rates in bd_rates(summary.groups).items()
    ]
    return {"format": 1, "facts": dict(facts), "groups": groups, "bd_rate_percent": savings, "failed": failed}


def _change(name: str, row: Row | Group) -> Cell:
    form = MEASURES[name].form
    before = row.before[name]
    if row.after is None:
        return Cell(_number(before, form))
    after = row.after[name]
    texts = _number(before, form), _number(after, form)
    verdict = "" if texts[0] == texts[1] else "better" if is_better(name, before, after) else "worse"
    return Cell(f"{texts[0]} → {texts[1]}", verdict)


def _caption(row: Row) -> str:
    parts = [f"{row.info.num_bytes:,} bytes, {row.info.bpp:.3f} bpp"]
    for name in ("psnr_db", "ssim", "lpips", "blockiness"):
        parts.append(f"{MEASURES[name].heading} {_change(name, row).text}")
    return "; ".join(parts) + "."


def _label(info: PairInfo) -> str:
    """Tells the pairs of one set apart, also as a file name."""
    return info.name if info.level < 0 else f"{info.name}__{info.codec}-{info.level}"


def _title(set_name: str, info: PairInfo) -> str:
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
