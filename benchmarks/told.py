"""What it is worth to a network to be told what a file knows: how coarse it is, and where its grid lies.

    python benchmarks/told.py START

Trains by `recipes/told.yaml`, which says what START and the stores are: one network that is told nothing, one that is
told the coarseness of every patch, and one whose patches all begin on the codec's grid besides, as if it had been told
where that is. After a stop, the same command goes on. Judged on centre crops of the validation pictures, on their grid
and off it, all told the truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

from machine import describe
from subjectiveqe.codecs.coarseness import FAMILIES, coarseness
from subjectiveqe.data.pairs import centre
from subjectiveqe.data.store import open_pairs
from subjectiveqe.nets.checkpoint import load_net
from subjectiveqe.training.validate import Known, validate
from variants import train

RECIPE = Path("recipes/told.yaml")
ARMS: dict[str, dict[str, object]] = {
    "nothing": {"net_g.hparams": "{gate: true}"},
    "coarseness": {},
    "coarseness and grid": {"data.aligned": 1},
}
"""What a network is told, and how its recipe differs."""

STORES = [Path("runs/stores/valid-jpeg.lmdb"), Path("runs/stores/valid-webp.lmdb")]
CROP_PX = 256
OFF_PX = (3, 5)
"""Rows and columns cut off at the top and left, so that the grid begins elsewhere."""


def main() -> None:
    """Trains what is not trained yet, measures all, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, help="weights of a network that is told nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/told"))
    args = parser.parse_args()
    runs = {told: train(RECIPE, args.start, args.out / told.replace(" ", "-"), ARMS[told]) for told in ARMS}
    crops = read_crops()
    print(f"{describe()}\n\nPSNR dB, LPIPS\n")
    print(f"| told | grid | {' | '.join(crops)} | all |\n{'|---' * (len(crops) + 3)}|")
    for told, run in runs.items():
        net, _ = load_net(run / "psnr" / "last.safetensors")
        for place, off in (("at the corner", (0, 0)), ("elsewhere", OFF_PX)):
            scores = [validate(net, [cut(known, off) for known in there], 1.0, show=0)[0] for there in crops.values()]
            cells = [f"{score.psnr_db:.2f}, {score.lpips:.4f}" for score in scores]
            total = f"{mean(score.psnr_db for score in scores):.2f}, {mean(score.lpips for score in scores):.4f}"
            print(f"| {told} | {place} | {' | '.join(cells)} | {total} |", flush=True)


def read_crops() -> dict[str, list[Known]]:
    """The middle of each validation picture, by codec and level; on the grid, and told the truth."""
    crops: dict[str, list[Known]] = {}
    for pairs in map(open_pairs, STORES):
        for index, info in enumerate(pairs.infos):
            told = coarseness(info.codec, info.level, len(FAMILIES), info.chroma)
            crops.setdefault(f"{info.codec} {info.level}", []).append(Known(*centre(pairs, index, CROP_PX), told))
    return crops


def cut(known: Known, off: tuple[int, int]) -> Known:
    """The same without some rows at the top and columns at the left."""
    top, left = off
    return known._replace(lq=known.lq[top:, left:], gt=known.gt[top:, left:])


if __name__ == "__main__":
    main()
