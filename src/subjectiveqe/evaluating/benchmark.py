"""Measures a model on clean pictures through codecs at several levels, and goes on where it was stopped."""

from __future__ import annotations

import importlib.util
import json
import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .. import __version__
from ..codecs import CODECS, Codec, codec_named, crop_to_multiple
from ..data.pairs import PairInfo
from ..errors import PICTURE_FAILED, CodecError, ConfigError, SubjectiveQEError, reason_of, unknown
from ..files import atomic_path, held, real_path, sha256_if_readable, write_text
from ..images import RGB, list_images, read_rgb
from ..metrics import Original
from .evaluate import measure_pair
from .measures import check_measures
from .plots import rate_distortion
from .report import Comparison, compare
from .results import Row, Summary, title_of
from .tables import caption_of
from .write import library_versions, write_results

LEVELS: dict[str, tuple[int, ...]] = {
    "hevc": (22, 27, 32, 37, 42),
    "jpeg": (10, 20, 40, 70),
    "webp": (5, 20, 50, 80),
    "avif": (15, 30, 50, 70),
}
"""What each codec is measured at unless told otherwise."""

STANDARD_MEASURES = ("psnr_db", "psnr_y_db", "ssim", "lpips", "dists", "ssimulacra2", "blockiness")
"""What is measured unless told otherwise; those of `MEASURES` that are not here are taken on request."""

_ROWS = "rows.jsonl"

Key: TypeAlias = tuple[str, str, str, int]
"""Set, picture, codec and level."""


@dataclass(frozen=True)
class Case:
    """One picture at one level of one codec, which has the name that it was asked for by."""

    set_name: str
    path: Path
    codec_name: str
    codec: Codec
    level: int

    @property
    def key(self) -> Key:
        """Tells the rows of one benchmark apart."""
        return self.set_name, self.path.name, self.codec_name, self.level


def benchmark(
    model: Callable[[RGB], RGB] | None,
    folders: Sequence[Path],
    out_dir: Path,
    *,
    levels: Mapping[str, Sequence[int]] | None = None,
    measures: Sequence[str] = STANDARD_MEASURES,
    shown: int = 12,
    codecs: Mapping[str, Codec] = {},
    identity: Mapping[str, str] | None = None,
    facts: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Codes clean pictures, enhances them, and measures both against the originals.

    Every row is kept in `rows.jsonl` as soon as it is measured, and the same call made again goes on behind it. What
    the judges see in an original is computed once for all codecs and levels. Pictures are cut to multiples of 8 px.

    Args:
        model: an `Enhancer`, or any function from RGB to RGB; None measures the codecs alone.
        folders: of clean pictures; each is a set of the tables, by its name.
        out_dir: gets `rows.jsonl`, `images.csv`, `summary.json` and `report.html`.
        levels: by codec (`CODECS`), or by codec and chroma as in "jpeg-444"; `LEVELS` if not given.
        measures: keys of `MEASURES`.
        shown: the most pictures in the report, which has one of every set, codec and level.
        codecs: those of `levels` that have options of their own, as HM has its encoder.
        identity: what tells this model from others (file, checksum, strength, runtime); rows of another are refused.
            Rows of a model without one are never taken up again.
        facts: what else the caller knows of the run, for the summary and the report.
        progress: called with the numbers of finished and of all rows.
    Returns:
        All rows and means, the failures, and the paths of the files.
    Raises:
        ConfigError: no pictures, two folders of one name, an unknown codec or measure, a codec that does not work here
            or at such a level, no level, a package is missing, another process writes to `out_dir`, or it holds rows
            of another benchmark.
        WeightsError: weights of a measure are not on this machine.
        SubjectiveQEError: not one picture could be measured.
    """
    check_measures(measures)
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError('the curves need matplotlib; run: pip install "subjectiveqe[benchmark]"')
    cases = _plan(folders, levels or LEVELS, codecs)
    if model is not None and not identity:
        identity = {"unnamed": secrets.token_hex(8)}  # nothing tells it from another, so no rows are its own
    plan = {
        "version": __version__,
        "model": dict(identity or {}) if model is not None else "none",
        "measures": list(measures),
    }
    with held(out_dir, "another benchmark writes here; wait for it, or give another --out"):
        kept = _read_rows(out_dir / _ROWS, plan)
        origins = _origins(cases)
        known = {key: kept[key][1] for key in origins if key in kept and kept[key][0] == origins[key]}

        def keep(case: Case, row: Row) -> None:
            known[case.key] = row
            _append(out_dir / _ROWS, row, origins[case.key])

        failed = _measure_all(model, cases, measures, known, keep, progress)
        rows = [known[case.key] for case in cases if case.key in known]
        if not rows:
            raise SubjectiveQEError(f"none of {len(cases)} pictures could be measured; {failed[0][0]}: {failed[0][1]}")
        by_key = {case.key: case for case in cases}
        chosen = [
            by_key[row.set_name, row.info.name, row.info.codec, row.info.level] for row in _in_turns(rows)[:shown]
        ]
        comparisons = []
        for case in chosen:
            with suppress(*PICTURE_FAILED):  # a picture that is gone since it was measured
                comparisons.append(_compare(model, case, known[case.key]))
        all_facts = {**getattr(model, "metadata", {}), **(identity or {}), **(facts or {})}
        return write_results(out_dir, "Benchmark", rows, failed, comparisons, all_facts, rate_distortion)


def _plan(folders: Sequence[Path], levels: Mapping[str, Sequence[int]], given: Mapping[str, Codec]) -> list[Case]:
    """All cases, those of one picture one after the other."""
    codecs = {name: given.get(name) or codec_named(name) for name in levels}
    for name, codec in codecs.items():
        if not levels[name]:
            raise ConfigError(f"{name}: expected one level or more, got none")
        try:
            codec.check_levels(levels[name])
        except CodecError as error:
            raise ConfigError(str(error)) from None
    cases: list[Case] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: expected a folder of clean pictures")
        name = real_path(folder).name
        if any(case.set_name == name for case in cases):
            raise ConfigError(f'{folder}: another set is called "{name}" too; rename one, since tables go by name')
        cases += [
            Case(name, path, codec_name, codec, level)
            for path in list_images(folder)
            for codec_name, codec in codecs.items()
            for level in levels[codec_name]
        ]
    if not cases:
        raise ConfigError(f"{', '.join(map(str, folders)) or 'no folder'}: no pictures found")
    return cases


def _by_picture(cases: Sequence[Case]) -> Iterator[tuple[Path, list[Case]]]:
    found: dict[Path, list[Case]] = {}
    for case in cases:
        found.setdefault(case.path, []).append(case)
    yield from found.items()


def _measure_all(
    model: Callable[[RGB], RGB] | None,
    cases: Sequence[Case],
    measures: Sequence[str],
    known: Mapping[Key, Row],
    keep: Callable[[Case, Row], None],
    progress: Callable[[int, int], None] | None,
) -> list[tuple[Path, str]]:
    """Measures what is not `known` yet and hands it to `keep`; gives what failed, and why."""
    failed: list[tuple[Path, str]] = []
    is_warm = model is None
    done = 0
    for path, of_picture in _by_picture(cases):
        original: Original | None = None
        try:
            if any(case.key not in known for case in of_picture):
                original = Original(crop_to_multiple(read_rgb(path)))
        except PICTURE_FAILED as error:  # once, not for each codec and level
            failed.append((Path(of_picture[0].set_name) / path.name, reason_of(error)))
        for case in of_picture:
            if original is not None and case.key not in known:
                try:
                    if model is not None and not is_warm:
                        model(original.rgb[:64, :64])
                        is_warm = True
                    row = _measure(model, case, original, measures)
                except PICTURE_FAILED as error:
                    what = f"{path.name}, {case.codec_name} {case.level}"
                    failed.append((Path(case.set_name) / what, reason_of(error)))
                else:
                    keep(case, row)
            done += 1
            if progress:
                progress(done, len(cases))
    return failed


def _measure(model: Callable[[RGB], RGB] | None, case: Case, original: Original, measures: Sequence[str]) -> Row:
    coded = case.codec.code(original.rgb, case.level)
    height, width = original.rgb.shape[:2]
    info = PairInfo(case.path.name, case.codec_name, case.level, coded.num_bytes, height, width)
    return measure_pair(model, case.set_name, info, coded.rgb, original, measures)[0]


def _compare(model: Callable[[RGB], RGB] | None, case: Case, row: Row) -> Comparison:
    """Made anew: what a stopped run has measured, it has not kept."""
    gt = crop_to_multiple(read_rgb(case.path))
    lq = case.codec.code(gt, case.level).rgb
    out = None if model is None else model(lq)
    return compare(title_of(row.set_name, row.info), caption_of(row), lq, out, gt)


def _in_turns(rows: Sequence[Row]) -> list[Row]:
    """One row of every set, codec and level: of its first picture, its second, and so on, so that they differ."""
    kinds: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row.set_name, row.info.codec, row.info.level), []).append(row)
    return [members[number % len(members)] for number, members in enumerate(kinds.values())]


# ---------------------------------------------------------------- rows that are kept


def _origins(cases: Sequence[Case]) -> dict[Key, dict[str, Any]]:
    """What a row was measured on: the picture, by its checksum, and how it was coded, by which libraries."""
    digests = {path: sha256_if_readable(path) for path in {case.path for case in cases}}
    versions = library_versions()
    codecs = {
        name: {**codec.settings(), "versions": versions}
        for name, codec in {c.codec_name: c.codec for c in cases}.items()
    }
    return {case.key: {"sha256": digests[case.path], "codec": codecs[case.codec_name]} for case in cases}


def _other(first: bytes, plan: Mapping[str, Any]) -> str:
    """What tells the benchmark whose rows begin with this line from the one that is asked for."""
    try:
        kept = json.loads(first)
        name = next(name for name in plan if kept[name] != plan[name])
    except (ValueError, KeyError, TypeError, StopIteration):
        return "has rows of another benchmark"
    return f"has rows of another benchmark, by its {name}: {kept[name]}, not {plan[name]}"


def _read_rows(path: Path, plan: Mapping[str, Any]) -> dict[Key, tuple[dict[str, Any], Row]]:
    """Rows of an earlier run and their origins, the last of each key; starts the file where there is none.

    Raises:
        ConfigError: they are of another model, measured otherwise, or damaged.
    """
    head = json.dumps(plan, sort_keys=True)
    if not path.is_file():
        write_text(path, head + "\n")
        return {}
    first, *lines = path.read_bytes().split(b"\n")  # a damaged line may be no text
    if first != head.encode():
        raise ConfigError(f"{path}: {_other(first, plan)}; give another --out, or delete it to begin anew")
    if not lines or lines[-1]:  # the line a killed run was writing, or the newline that an editor left out
        with atomic_path(path) as aside:
            aside.write_bytes(b"\n".join([first, *lines[:-1]]) + b"\n")
    rows = {}
    for number, line in enumerate(lines[:-1], start=2):
        try:
            row = json.loads(line)
            origin, info = row.pop("origin"), PairInfo(**row.pop("info"))
            for side in ("before", "after") if row["after"] is not None else ("before",):
                row[side] = {name: float(row[side][name]) for name in plan["measures"]}
            rows[row["set_name"], info.name, info.codec, info.level] = origin, Row(info=info, **row)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{path}: line {number} is damaged; delete the line, or the file to begin anew") from None
    return rows


def _append(path: Path, row: Row, origin: Mapping[str, Any]) -> None:
    line = json.dumps(_as_json({**asdict(row), "origin": origin}), allow_nan=False) + "\n"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        error.filename = str(path)  # which one met while writing does not have
        raise


def _as_json(value: Any) -> Any:
    """Infinite numbers as text, which JSON has no other way to say."""
    if isinstance(value, dict):
        return {key: _as_json(part) for key, part in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def parse_levels(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Reads codecs as the command takes them: "jpeg" for its usual levels, or "jpeg:10,20", or "jpeg-444:10,20".

    Raises:
        ConfigError: a codec without usual levels and without given ones, or what is no number.
    Example:
        >>> parse_levels(["jpeg:10,20", "webp"])
        {'jpeg': (10, 20), 'webp': (5, 20, 50, 80)}
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, numbers = text.partition(":")
        codec = name.partition("-")[0]
        try:
            levels = tuple(int(number) for number in numbers.split(",")) if numbers else LEVELS[codec]
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *levels)))
        except ValueError:
            raise ConfigError(f'--codec: expected levels such as jpeg:10,20, got "{text}"') from None
        except KeyError:
            if codec not in CODECS:
                raise unknown("codec", codec, CODECS) from None
            low, high = CODECS[codec].level_range
            raise ConfigError(
                f'--codec {name}: say at which of its levels {low} to {high}, as in "{name}:30,40"'
            ) from None
    return found
