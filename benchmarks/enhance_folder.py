"""A folder of JPEGs beside the network alone: how much of the time is reading, finishing and writing.

In each round `sqe enhance` works through the folder with so many pictures at a time; then the network computes tiles of
the same sizes and nothing else. Rates are compared within a round, since a machine's speed drifts.

python benchmarks/enhance_folder.py [--model FILE] [--runtime NAME] [--pictures 4] [--format NAME]
    [--jobs 1 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import machine
from measured import make_picture
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.files import enhance_files
from subjectiveqe.enhancing.network import Floats
from subjectiveqe.formats.saving import Saving

HEIGHT, WIDTH = 3000, 4000
TARGET = 0.9


def main() -> None:
    """Measures all in turn, round after round, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--format", default="jpeg")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    enhancer = Enhancer(options.model, options.runtime)
    network = enhancer._network
    calls: list[tuple[tuple[int, ...], Any]] = []

    def noted(lq: Floats, coarseness: Floats | None) -> Floats:
        calls.append((lq.shape, coarseness))
        return network.run(lq, coarseness)

    enhancer._networks[os.getpid()] = dataclasses.replace(network, run=noted)
    network_s, folder_s = [], {jobs: [] for jobs in options.jobs}
    with tempfile.TemporaryDirectory() as name:
        pictures = [Path(name) / f"{number}.jpg" for number in range(options.pictures)]
        for picture in pictures:
            make_picture(picture, HEIGHT, WIDTH)
        for _ in range(options.rounds):
            for jobs, seconds in folder_s.items():
                calls.clear()
                with timed(seconds):
                    result = enhance_files(
                        pictures,
                        Path(name) / "out",
                        enhancer,
                        saving=Saving(options.format),
                        existing="overwrite",
                        jobs=jobs,
                    )
                assert len(result.of("done")) == options.pictures
            with timed(network_s):
                for shape, coarseness in calls:
                    network.run(np.full(shape, 0.5, np.float32), coarseness)
    megapixels = HEIGHT * WIDTH * options.pictures / 1e6
    print(machine.describe())
    print(f"{options.pictures} JPEGs of {WIDTH}x{HEIGHT} px to {options.format}, runtime {options.runtime}")
    print(f"Medians of {options.rounds} rounds\n| | s | MP/s | of the network's rate |\n|---|---|---|---|")
    print(f"| the network alone, the same tiles | {row(network_s, megapixels)} | |")
    for jobs, seconds in folder_s.items():
        rate = np.median([alone / whole for alone, whole in zip(network_s, seconds, strict=True)])
        print(f"| sqe enhance FOLDER --jobs {jobs} | {row(seconds, megapixels)} | {rate:.0%} |")
    print(f"Target: {TARGET:.0%}")


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Appends how long its body took."""
    start_s = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - start_s)


def row(seconds: list[float], megapixels: float) -> str:
    """Two cells: the median of the seconds, and megapixels a second by it."""
    return f"{np.median(seconds):.1f} | {megapixels / np.median(seconds):.3f}"


if __name__ == "__main__":
    main()
