"""Prints what the judges say along the dial: means over crops of validation pictures, as a Markdown table.

    python benchmarks/dial.py fast
    python benchmarks/dial.py fast another.onnx --strength 0 --strength 0.5 --strength 1 --by-level

By the stores of validation pairs that the recipes in `recipes/` use, all their codecs and levels alike; how coarse a
crop is, the whole picture tells, as in use. DISTS, by which the dial's default was chosen, needs `sqe weights`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from machine import describe
from subjectiveqe.data.pairs import centre
from subjectiveqe.data.store import open_pairs
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.evaluating.measures import MEASURES
from subjectiveqe.images import RGB
from subjectiveqe.metrics import Original

STORES = ("hevc", "hevc420", "jpeg", "webp", "avif", "resaved")
CROP_PX = 256
NAMES = ("psnr_db", "lpips", "dists", "ssimulacra2")


def main() -> None:
    """Measures each model at each strength."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", help="a bundled model, or an ONNX file with a dial")
    parser.add_argument("--strength", type=float, action="append", help="default: 0, 0.5, 0.7, 0.8, 0.9 and 1")
    parser.add_argument("--every", type=int, default=3, help="take each of so many pictures (default: 3)")
    parser.add_argument("--stores", type=Path, default=Path("runs/stores"))
    parser.add_argument("--by-level", action="store_true", help="a row for each codec and level as well")
    args = parser.parse_args()
    cuts = crops([args.stores / f"valid-{name}.lmdb" for name in STORES], args.every)
    originals = [Original(cut.gt) for cut in cuts]
    columns = ["model", "strength", *(["level"] if args.by_level else []), *(MEASURES[name].heading for name in NAMES)]
    print(f"{describe()}\n\n{len(cuts)} crops\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")

    def report(model: str, strength: str, outs: Sequence[RGB]) -> None:
        scores = [[MEASURES[name].of(*pair) for name in NAMES] for pair in zip(outs, originals, strict=True)]
        row(model, strength, *(["all"] if args.by_level else []), scores=scores)
        for level in dict.fromkeys(cut.level for cut in cuts) if args.by_level else ():
            there = [score for score, cut in zip(scores, cuts, strict=True) if cut.level == level]
            row(model, strength, level, scores=there)

    report("input", "", [cut.lq for cut in cuts])
    for model in args.model:
        looker = Enhancer(model, "onnxruntime")
        looks = [looker.look(cut.whole) for cut in cuts]
        for strength in args.strength or (0.0, 0.5, 0.7, 0.8, 0.9, 1.0):
            enhancer = Enhancer(model, "onnxruntime", strength=strength)
            outs = [enhancer.with_look(cut.lq, look) for cut, look in zip(cuts, looks, strict=True)]
            report(Path(model).stem, f"{strength:g}", outs)


class Cut(NamedTuple):
    """A compressed picture, its middle, and that of its original."""

    level: str
    whole: RGB
    lq: RGB
    gt: RGB


def crops(stores: Sequence[Path], every: int) -> list[Cut]:
    """The same originals for every level."""
    found = []
    for store in stores:
        pairs = open_pairs(store)
        names = sorted({info.name for info in pairs.infos})[::every]
        for index, info in enumerate(pairs.infos):
            if info.name in names:
                level = f"{store.stem.removeprefix('valid-')} {info.level}"
                found.append(Cut(level, pairs.read(index)[0], *centre(pairs, index, CROP_PX)))
    return found


def row(*cells: str, scores: Sequence[Sequence[float]]) -> None:
    """Prints means."""
    means = [
        format(mean(column), MEASURES[name].form) for name, column in zip(NAMES, zip(*scores, strict=True), strict=True)
    ]
    print(f"| {' | '.join((*cells, *means))} |", flush=True)


if __name__ == "__main__":
    main()
