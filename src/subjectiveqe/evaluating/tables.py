"""Results as tables, of the report and of the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .measures import MEASURES, is_better
from .report import Cell, Table
from .results import WORSE_BY, Group, RateSaving, Row, Summary, title_of, worse_rows


def make_tables(summary: Summary) -> list[Table]:
    """The tables of the report: means per set, codec and level, what that is worth in bits, what is worse, then all."""
    names = list(summary.rows[0].before)
    headings = [MEASURES[name].heading for name in names]

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

    worse = worse_rows(summary.rows)
    caption = f"LPIPS rose by more than {WORSE_BY:g}: {len(worse)} of {len(summary.rows)}, the worst first"
    columns = ["picture", "bytes", "bpp", *headings, "s per MP"]
    return [
        _means(summary, names),
        *_savings(summary.savings),
        *([Table(caption, columns, list_pictures(worse))] if worse else []),
        Table(f"{_sense(summary)}, every picture", columns, list_pictures(summary.rows)),
    ]


def headline(summary: Summary, asked: Sequence[str] = ()) -> list[Table]:
    """Means and BD-rates by the measures that matter most, and by those that were asked for."""
    measured = list(summary.rows[0].before)
    names = [name for name in measured if name in asked or name not in _IN_FILES_ALONE] or measured
    savings = {key: {name: of[name] for name in names if name in of} for key, of in summary.savings.items()}
    return [_means(summary, names), *_savings({key: of for key, of in savings.items() if of})]


_IN_FILES_ALONE = ("psnr_y_db", "ssim", "lpips_legacy")
"""Usual measures that a terminal has no room for."""


def _means(summary: Summary, names: Sequence[str]) -> Table:
    rows = [
        [
            Cell(group.title),
            Cell(str(group.num_pictures)),
            Cell(f"{group.bpp:.3f}"),
            *(_change(name, group) for name in names),
            Cell(_number(group.seconds_per_mp, ".3f")),
        ]
        for group in summary.groups
    ]
    headings = ["pairs", "pictures", "bpp", *(MEASURES[name].heading for name in names), "s per MP"]
    return Table(f"{_sense(summary)}, means", headings, rows, [_ways(names), *_notes(summary.groups, names)])


def _sense(summary: Summary) -> str:
    return "Compressed" if summary.rows[0].after is None else "Compressed → enhanced"


def _ways(names: Sequence[str]) -> str:
    """Which way each measure is better."""
    ways: dict[str, list[str]] = {}
    for name in names:
        ways.setdefault(MEASURES[name].way, []).append(MEASURES[name].heading)
    return "; ".join(f"{', '.join(headings)}: {way}" for way, headings in ways.items()) + "."


def _notes(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """Which pictures are left out of which means."""
    notes = []
    for group in groups:
        headings: dict[tuple[str, ...], list[str]] = {}
        for name, pictures in group.left_out.items():
            if name in names:
                headings.setdefault(tuple(pictures), []).append(MEASURES[name].heading)
        notes += [f"{group.title}: {', '.join(of)} without {_listed(pictures)}" for pictures, of in headings.items()]
    return ["* Mean over the pictures whose values are finite. " + "; ".join(notes) + "."] if notes else []


def _listed(pictures: Sequence[str]) -> str:
    named = ", ".join(pictures[:3])
    return named if len(pictures) <= 3 else f"{len(pictures)} pictures ({named}, ...)"


LOW_OVERLAP = 0.75
"""Below this shared part of their qualities, what two curves differ by says little of either."""


def _savings(found: Mapping[tuple[str, str], Mapping[str, RateSaving]]) -> list[Table]:
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
            told = round(saving.percent, 1) + 0.0  # no -0.0
            verdict = "better" if told < 0 else "worse" if told > 0 else ""
            cells.append(Cell(f"{told:+.1f}{'*' if saving.overlap < LOW_OVERLAP else ''}", verdict))
        rows.append(cells)
    notes = (
        [f"* The curves share less than {LOW_OVERLAP:.0%} of the quality they reach. {'; '.join(low)}."] if low else []
    )
    notes += [f"– No BD-rate. {'; '.join(missing)}."] if missing else []
    headings = [MEASURES[name].heading for name in next(iter(found.values()))]
    return [Table("Bits at equal quality (BD-rate), per cent", ["pairs", *headings], rows, notes, is_open=True)]


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


def _number(value: float | None, form: str) -> str:
    return "" if value is None or math.isnan(value) else format(value, form)
