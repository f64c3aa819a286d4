"""Prints what the judges say along the dial: means over crops of validation pictures, as a Markdown table.

    python benchmarks/dial.py fast
    python benchmarks/dial.py fast another.onnx --strength 0 --strength 0.5 --strength 1

By the stores of validation pairs that the recipes in `recipes/` use, all their codecs and levels alike; how coarse a
crop is, the whole picture tells, as in use. DISTS, by which the dial's default was chosen, needs `sqe weights`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from machine import describe
from subjectiveqe.data.store import centre, open_pairs
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
    args = parser.parse_args()
    triples = crops([args.stores / f"valid-{name}.lmdb" for name in STORES], args.every)
    originals = [Original(gt) for _, _, gt in triples]
    columns = ["model", "strength", *(MEASURES[name].heading for name in NAMES)]
    print(f"{describe()}\n\n{len(triples)} crops\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    report("input", None, [lq for _, lq, _ in triples], originals)
    for model in args.model:
        looker = Enhancer(model, "onnxruntime")
        looks = [looker.look(whole) for whole, _, _ in triples]
        for strength in args.strength or (0.0, 0.5, 0.7, 0.8, 0.9, 1.0):
            enhancer = Enhancer(model, "onnxruntime", strength=strength)
            outs = [enhancer.with_look(lq, look) for (_, lq, _), look in zip(triples, looks, strict=True)]
            report(Path(model).stem, strength, outs, originals)


def crops(stores: Sequence[Path], every: int) -> list[tuple[RGB, RGB, RGB]]:
    """Compressed pictures, their middles, and those of their originals; the same originals for every level."""
    found = []
    for store in stores:
        pairs = open_pairs(store)
        names = sorted({info.name for info in pairs.infos})[::every]
        chosen = [index for index, info in enumerate(pairs.infos) if info.name in names]
        found += [(pairs.read(index)[0], *centre(pairs, index, CROP_PX)) for index in chosen]
    return found


def report(model: str, strength: float | None, outs: Sequence[RGB], originals: Sequence[Original]) -> None:
    """Prints one row."""
    means = []
    for name in NAMES:
        measure = MEASURES[name]
        means.append(format(mean(measure.of(*pair) for pair in zip(outs, originals, strict=True)), measure.form))
    print(f"| {model} | {'' if strength is None else f'{strength:g}'} | {' | '.join(means)} |", flush=True)


if __name__ == "__main__":
    main()
