"""A folder of JPEGs beside the network alone: how much of the time is reading, finishing and writing.

`sqe enhance` works through the folder once; then the network computes tiles of the same sizes and nothing else.

python benchmarks/enhance_folder.py [--model FILE] [--runtime NAME] [--pictures 4] [--format NAME]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import machine
from measured import make_picture
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.files import enhance_files
from subjectiveqe.enhancing.runtime import Floats
from subjectiveqe.saving import Saving

HEIGHT, WIDTH = 3000, 4000
TARGET = 0.9


def main() -> None:
    """Measures both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--format", default="jpeg")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    enhancer = Enhancer(options.model, options.runtime)
    network = enhancer._network
    calls: list[tuple[tuple[int, ...], Any]] = []

    def noted(lq: Floats, coarseness: Floats | None) -> Floats:
        calls.append((lq.shape, coarseness))
        return network.run(lq, coarseness)

    enhancer._network = dataclasses.replace(network, run=noted)
    with tempfile.TemporaryDirectory() as folder:
        pictures = [Path(folder) / f"{number}.jpg" for number in range(options.pictures)]
        for picture in pictures:
            make_picture(picture, HEIGHT, WIDTH)
        start_s = time.perf_counter()
        saving = Saving(options.format)
        result = enhance_files(pictures, Path(folder) / "out", enhancer, saving=saving, jobs=options.jobs)
        all_s = time.perf_counter() - start_s
        assert len(result.of("done")) == options.pictures
    start_s = time.perf_counter()
    for shape, coarseness in calls:
        network.run(np.full(shape, 0.5, np.float32), coarseness)
    network_s = time.perf_counter() - start_s
    megapixels = HEIGHT * WIDTH * options.pictures / 1e6
    print(machine.describe())
    what = f"{options.pictures} JPEGs of {WIDTH}x{HEIGHT} px to {options.format}"
    print(f"{what}, runtime {options.runtime}, {options.jobs} at a time")
    print("| | s | MP/s |\n|---|---|---|")
    for name, seconds in (("sqe enhance FOLDER", all_s), ("the network alone, the same tiles", network_s)):
        print(f"| {name} | {seconds:.1f} | {megapixels / seconds:.3f} |")
    print(f"{network_s / all_s:.0%} of the network's rate (target {TARGET:.0%})")


if __name__ == "__main__":
    main()
