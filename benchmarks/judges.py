"""Checks the judges against published and recorded figures, times them, and prints a Markdown table of each.

    python benchmarks/judges.py --live1 LIVE1_FOLDER --kodak KODAK_FOLDER --decoded DECODED_KODAK_FOLDER \
        --lpips-pair FOLDER_WITH_ex_ref_ex_p0_ex_p1

LIVE1 is compressed here, by Pillow's JPEG at QF 10 and 20; the decoded Kodak pictures are HM-16.5's at QP 37. The
example pair comes with richzhang/PerceptualSimilarity (folder `imgs`). Measures whose weights are not on the machine
are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean

from machine import describe
from subjectiveqe.codecs import get_codec
from subjectiveqe.evaluating.measures import MEASURES
from subjectiveqe.images import RGB, list_images, read_rgb
from subjectiveqe.metrics import blockiness, grid_lines, lpips
from subjectiveqe.weights import list_weights

EXPECTED = {
    "LPIPS ex_ref, ex_p0": 0.7219,
    "LPIPS ex_ref, ex_p1": 0.1376,
    "LIVE1 QF 10 psnr_db": 25.69,
    "LIVE1 QF 10 lpips": 0.3013,
    "LIVE1 QF 10 dists": 0.2387,
    "Kodak HM QP 37 psnr_db": 29.78,
    "Kodak HM QP 37 lpips": 0.2475,
}
"""Published values of the example pair; the others are CODiff's input row and figures recorded with PyTorch."""


def main() -> None:
    """Measures what was given and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--live1", "--kodak", "--decoded", "--lpips-pair"):
        parser.add_argument(name, type=Path)
    folders = parser.parse_args()
    weights = {item.name for item in list_weights() if item.path}
    names = [name for name, one in MEASURES.items() if weights.issuperset(one.weights)]
    found: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in names}

    def measure(title: str, pairs: Iterable[tuple[RGB, RGB]]) -> None:
        values: dict[str, list[float]] = {name: [] for name in names}
        seen = []
        for lq, gt in pairs:
            for name in names:
                value, took_s = timed(MEASURES[name].of, lq, gt)
                values[name].append(value)
                seconds[name].append(took_s / (gt.shape[0] * gt.shape[1] / 1e6))
            seen.append((lq, gt))
        found.update({f"{title} {name}": mean(column) for name, column in values.items()})
        found.update({f"{title} line at {period} px": ratio for period, ratio in grid_lines(seen).items()})

    if folders.lpips_pair:
        ref, *others = (read_rgb(folders.lpips_pair / f"{name}.png") for name in ("ex_ref", "ex_p0", "ex_p1"))
        found.update({f"LPIPS ex_ref, ex_p{k}": lpips(other, ref) for k, other in enumerate(others)})
    if folders.live1:
        originals = [read_rgb(path) for path in list_images(folders.live1)]
        found["LIVE1 originals blockiness"] = mean(blockiness(gt) for gt in originals)
        codec = get_codec("jpeg", chroma="420")
        for qf in (10, 20):
            measure(f"LIVE1 QF {qf}", ((codec.code(gt, qf).rgb, gt) for gt in originals))
    if folders.kodak and folders.decoded:
        decoded = {path.stem: path for path in list_images(folders.decoded)}
        paths = list_images(folders.kodak)
        measure("Kodak HM QP 37", ((read_rgb(decoded[path.stem]), read_rgb(path)) for path in paths))

    print(f"{describe()}\n\n| what | here | expected |\n|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.4f} | {EXPECTED.get(name, '')} |")
    if any(seconds.values()):
        print("\n| measure | s per MP |\n|---|---|")
        for name, values in seconds.items():
            print(f"| {MEASURES[name].heading} | {mean(values):.3f} |")


def timed(measure: Callable[[RGB, RGB], float], out: RGB, gt: RGB) -> tuple[float, float]:
    """Gives the value and the seconds it took."""
    start = time.perf_counter()
    return measure(out, gt), time.perf_counter() - start


if __name__ == "__main__":
    main()
