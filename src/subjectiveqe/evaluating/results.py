"""What was measured, and what it comes to: means, curves over the levels, bits saved, pictures made worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.pairs import PairInfo
from .bdrate import bd_rate, find_fault, overlap
from .measures import MEASURES


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
class RateSaving:
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
    """What `evaluate` or `benchmark` found and where it wrote it.

    Args:
        rows: one per pair that could be measured.
        groups: means per set, codec and level.
        savings: what enhancing is worth in bits, as `bd_rates` gives it.
        failed: set and name of every pair that could not be measured, and why.
        csv: the table per picture.
        json: the summary.
        html: the page.
    """

    rows: Sequence[Row]
    groups: Sequence[Group]
    savings: Mapping[tuple[str, str], Mapping[str, RateSaving]]
    failed: Sequence[tuple[Path, str]]
    csv: Path
    json: Path
    html: Path


def group_rows(rows: Sequence[Row]) -> list[Group]:
    """Means by set, codec and level."""
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


def bd_rates(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, RateSaving]]:
    """What enhancing is worth in bits: the BD-rate of the enhanced pictures against the compressed ones.

    Args:
        rows: one per picture; those of a set and codec that were not measured at all its levels count for nothing.
    Returns:
        By the name of the measure, for each set and codec with a model and four levels or more.
    """
    found: dict[tuple[str, str], dict[str, RateSaving]] = {}
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


def _saving(bpp: Sequence[float], before: Sequence[float], after: Sequence[float]) -> RateSaving:
    if not bpp:
        return RateSaving(None, 0.0, "no picture has finite values at all levels")
    fault = find_fault(bpp, before, bpp, after)
    percent = None if fault else bd_rate(bpp, before, bpp, after)
    return RateSaving(percent, overlap(before, after), fault)


WORSE_BY = 0.002
"""From how much more LPIPS on a picture counts as worse."""


def worse_rows(rows: Sequence[Row]) -> list[Row]:
    """Pictures that enhancing made worse to LPIPS, the worst first; none where there is no model or no LPIPS."""
    rises = [(row.after["lpips"] - row.before["lpips"], row) for row in rows if row.after and "lpips" in row.before]
    worse = sorted(((rise, row) for rise, row in rises if rise > WORSE_BY), key=lambda item: -item[0])
    return [row for _, row in worse]


def label_of(info: PairInfo) -> str:
    """Tells the pairs of one set apart, also as a file name."""
    return info.name if info.level < 0 else f"{info.name}__{info.codec}-{info.level}"


def title_of(set_name: str, info: PairInfo) -> str:
    """Names a pair in tables."""
    return f"{set_name}: {info.name}" + ("" if info.level < 0 else f", {info.codec} {info.level}")


def _is_finite(row: Row, name: str) -> bool:
    """Whether a picture counts for the means of a measure: both sides are means of the same pictures."""
    return math.isfinite(row.before[name]) and (row.after is None or math.isfinite(row.after[name]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
