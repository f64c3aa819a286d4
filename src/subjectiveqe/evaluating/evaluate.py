"""Measures a model on pairs: per picture into CSV, per codec and level into JSON, both into an HTML page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..data.pairs import PairInfo, PairSet
from ..data.store import files_of, open_pairs
from ..errors import PICTURE_FAILED, ConfigError, ShapeError, SubjectiveQEError, reason_of
from ..files import held, real_path
from ..images import RGB, write_png
from ..metrics import Original
from .measures import MEASURES, check_measures
from .report import Comparison, compare
from .results import Row, Summary, label_of, title_of
from .tables import caption_of
from .write import write_results

PLAIN_MEASURES = ("psnr_db", "psnr_y_db", "ssim", "lpips", "lpips_legacy", "blockiness")
"""What is measured unless told otherwise, since it costs little."""

_SAVED = ".saved"
"""Lists the outputs that were saved beside it, one JSON string a line: their set and their file."""


def evaluate(
    model: Callable[[RGB], RGB] | None,
    sets: Mapping[str, PairSet],
    out_dir: Path,
    *,
    measures: Sequence[str] = PLAIN_MEASURES,
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
        out_dir: gets `images.csv`, `summary.json` and `report.html`, and with `save_images` a folder `images`; outputs
            that an earlier run has saved and noted there are removed once a pair is measured, with `save_images` or
            without.
        measures: keys of `MEASURES`; "dists" costs several times all others together and needs `sqe weights`.
        save_images: write the outputs as PNG.
        shown: number of pictures in the report, taken from all codecs and levels in turn.
        facts: what the caller knows of the run (model file, strength, command, ...), for the summary and the report.
        progress: called with the numbers of finished and of all pairs.
    Returns:
        All rows and means, the failures, and the paths of the files.
    Raises:
        ConfigError: there is no pair at all, a measure is unknown, or there are no outputs for `save_images`, or pairs
            that lie where these go.
        WeightsError: weights of a measure are not on this machine.
        SubjectiveQEError: not one pair could be measured.
    """
    jobs = [(name, index) for name, pairs in sets.items() for index in range(len(pairs))]
    if not jobs:
        raise ConfigError(f"expected pairs to evaluate, found none in {', '.join(sets) or 'no set'}")
    images = out_dir / "images"
    inputs = _inputs_within(images, sets)
    if among := next((path for path in _inputs_within(out_dir, sets) if path.parent == real_path(out_dir)), None):
        raise ConfigError(f"{among}: is measured and lies where the tables would go; give another --out")
    if save_images and inputs:
        raise ConfigError(f"{min(inputs)}: is measured and lies where outputs are saved; give another --out")
    if save_images and model is None:
        raise ConfigError("save_images: there are no outputs without a model; leave it out")
    check_measures(measures)
    with held(out_dir, "another evaluation writes here; wait for it, or give another --out"):
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
                row, out = measure_pair(model, set_name, info, lq, Original(gt), measures)
                if not rows:
                    _remove_outputs(images, inputs)
                if save_images and out is not None:
                    _save_output(images, Path(set_name, f"{label_of(info)}.png"), out)
                if (set_name, index) in chosen:
                    comparisons[set_name, index] = compare(title_of(set_name, info), caption_of(row), lq, out, gt)
                rows.append(row)
            except PICTURE_FAILED as error:
                failed.append((Path(set_name) / label_of(info), reason_of(error)))
            if progress:
                progress(done + 1, len(jobs))
        if not rows:
            raise SubjectiveQEError(f"none of {len(jobs)} pairs could be measured; {failed[0][0]}: {failed[0][1]}")
        in_order = [comparisons[key] for key in chosen if key in comparisons]
        all_facts = {**getattr(model, "metadata", {}), **(facts or {})}
        return write_results(out_dir, "Evaluation", rows, failed, in_order, all_facts)


def measure_pair(
    model: Callable[[RGB], RGB] | None, set_name: str, info: PairInfo, lq: RGB, gt: Original, names: Sequence[str]
) -> tuple[Row, RGB | None]:
    """Measures a compressed picture and what a model makes of it, by some of `MEASURES`; gives the model's output too.

    Raises:
        ShapeError: the model's output is of another shape or type.
    """
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
    """Opens stores and paired folders and names each after its file; pictures that cannot be read fail later, alone.

    Raises:
        ConfigError: two have the same name.
        StoreError: one is incomplete or damaged.
    """
    sets: dict[str, PairSet] = {}
    for path in paths:
        name = real_path(path).name.removesuffix(".lmdb")
        if name in sets:
            raise ConfigError(f'{path}: another pair set is called "{name}" too; rename one, since tables go by name')
        sets[name] = open_pairs(path, keeps_unread=True)
    return sets


def _inputs_within(folder: Path, sets: Mapping[str, PairSet]) -> set[Path]:
    """Files of pairs that lie in a folder, themselves or what they link to."""
    files = (path for pairs in sets.values() for path in files_of(pairs))
    return {place for path in files for place in _places(path) if place.is_relative_to(real_path(folder))}


def _places(path: Path) -> set[Path]:
    return {real_path(path), real_path(path.parent) / path.name}


def _save_output(folder: Path, name: Path, out: RGB) -> None:
    """Writes an output and notes that it is one."""
    write_png(folder / name, out)
    with (folder / _SAVED).open("a", encoding="utf-8") as file:
        file.write(json.dumps(name.as_posix()) + "\n")


def _remove_outputs(folder: Path, inputs: Iterable[Path]) -> None:
    """Takes away what an earlier run has saved and noted here, and folders that are empty then; nothing else."""
    if not (folder / _SAVED).is_file():
        return
    for line in (folder / _SAVED).read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, TypeError):  # the line a killed run was writing
            name = Path(json.loads(line))
            is_ours = len(name.parts) == 2 and not name.is_absolute() and ".." not in name.parts
            if is_ours and (folder / name).is_file() and _places(folder / name).isdisjoint(inputs):
                (folder / name).unlink()
    (folder / _SAVED).unlink()
    for place in (*folder.glob("*/"), folder):
        with suppress(OSError):  # of which there is none, or with other files in it
            place.rmdir()


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
