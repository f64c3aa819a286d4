"""Compares losses: trains the same network with each, and prints a Markdown table of what the judges say.

    python benchmarks/losses.py

By `recipes/losses.yaml`, which says what stores it needs, from the faithful end of the bundled model. After a stop, the
same command goes on. Judged on centre crops of the validation pictures; LPIPS-VGG and DISTS need `sqe weights`.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from machine import describe
from subjectiveqe.data.pairs import centre
from subjectiveqe.data.store import open_pairs
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.evaluating.measures import MEASURES
from subjectiveqe.images import RGB
from subjectiveqe.metrics import Original, grid_lines
from variants import train

TEXTURE = {
    "LPIPS-AlexNet, randomised": {"percep": 1.0, "percep_kind": "lpips-alex-randomised"},
    "VGG16": {"percep": 0.4, "percep_kind": "vgg16"},
    "spectrum": {"spectrum": 265.0, "percep": 0.0},
    "SSIM": {"ssim": 9.0, "percep": 0.0},
}
"""What asks for texture. By these weights their gradients at the output are equally long at the start."""

OTHERS = {
    "": {"adv": 0.0, "border": 0.0},
    " + adversarial": {"adv": 0.005, "border": 0.0},
    " + borders": {"adv": 0.0, "border": 0.03},
    " + both": {"adv": 0.005, "border": 0.03},
}

JUDGED = {"HEVC QP 37": ("valid-hevc", 37), "JPEG QF 10": ("valid-jpeg", 10)}
CROP_PX = 256
NAMES = ("psnr_db", "ssim", "lpips", "lpips_vgg", "dists", "ssimulacra2", "blockiness")

RECIPE = Path("recipes/losses.yaml")
START = Path("checkpoints/sqe-fast-faithful.safetensors")
STORES = Path("runs/stores")


def main() -> None:
    """Trains what is not trained yet, measures all, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/losses"))
    out = parser.parse_args().out
    runs = {
        title + added: trained(out / f"{title}{added}".replace(" ", ""), texture | others)
        for title, texture in TEXTURE.items()
        for added, others in OTHERS.items()
    }
    print(describe())
    for title, (store, level) in JUDGED.items():
        pairs = crops(STORES / f"{store}.lmdb", level)
        originals = [Original(gt) for _, gt in pairs]
        print(f"\n{title}, {len(pairs)} crops\n\n{heading('loss')}")
        report("input", [lq for lq, _ in pairs], originals)
        report("start", enhanced(START, pairs), originals)
        for name, run in runs.items():
            report(name, enhanced(run / "gan" / "last.safetensors", pairs), originals, minutes(run / "train.log"))


def trained(run: Path, loss: Mapping[str, float | str]) -> Path:
    """The folder of a run with the given losses."""
    return train(RECIPE, START, run, {f"gan.loss.{key}": value for key, value in loss.items()})


def crops(store: Path, level: int) -> list[tuple[RGB, RGB]]:
    """The middle of each compressed picture of a level, and of its original."""
    pairs = open_pairs(store)
    return [centre(pairs, index, CROP_PX) for index, info in enumerate(pairs.infos) if info.level == level]


def enhanced(model: Path, pairs: list[tuple[RGB, RGB]]) -> list[RGB]:
    """What a checkpoint makes of the compressed pictures, by its own estimate of their coarseness."""
    enhancer = Enhancer(model, runtime="torch", strength=1.0)
    return [enhancer(lq) for lq, _ in pairs]


def heading(what: str) -> str:
    """The first two lines of a table."""
    columns = [what, *(MEASURES[name].heading for name in NAMES), "line at 2, 4, 8 px", "minutes"]
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def report(name: str, outs: list[RGB], originals: list[Original], took_min: float | None = None) -> None:
    """Prints the row of one network."""
    pairs = list(zip(outs, originals, strict=True))
    values = {name: [MEASURES[name].of(*pair) for pair in pairs] for name in NAMES}
    # Blockiness has no end where there is no step inside blocks.
    means = [format(mean(filter(math.isfinite, values[name])), MEASURES[name].form) for name in NAMES]
    lines = grid_lines([(out, gt.rgb) for out, gt in pairs])
    grid = ", ".join(f"{ratio:.1f}" for ratio in lines.values())
    print(f"| {name} | {' | '.join(means)} | {grid} | {'' if took_min is None else f'{took_min:.1f}'} |", flush=True)


def minutes(log: Path) -> float:
    """How long a run's steps took, without its start; from what it logged."""
    found = re.findall(r" (\d+)/\d+ .*\((\d+\.\d+) s a step", log.read_text(encoding="utf-8"))
    steps, paces_s = [int(step) for step, _ in found], [float(pace) for _, pace in found]
    return sum((step - before) * pace for step, before, pace in zip(steps, [0, *steps], paces_s, strict=False)) / 60


if __name__ == "__main__":
    main()
