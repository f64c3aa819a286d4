"""What each runtime, and each type of numbers, costs in LPIPS on whole pictures.

The reference is `fast` in 32-bit floats in ONNX Runtime, at the same place of the dial. OpenVINO takes bfloat16 where
the processor has it.

python benchmarks/runtimes_lpips.py STORE [STORE ...] [--case MODEL:RUNTIME ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import machine
from runtimes import CASES, type_of
from subjectiveqe.dial import TRAINED_AT
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.evaluating.evaluate import open_sets
from subjectiveqe.metrics import Original, lpips


def main() -> None:
    """Measures all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, nargs="+")
    parser.add_argument("--case", action="append", help="MODEL:RUNTIME; all that are bundled when left out")
    options = parser.parse_args()
    sets = open_sets(options.pairs)
    print(machine.describe())
    print(f"| model | runtime | numbers | {' | '.join(f'{name}: LPIPS lost' for name in sets)} |")
    print("|---|---|---|" + "---|" * len(sets))
    for case in options.case or CASES:
        model, runtime = case.rsplit(":", 1)
        enhancer = Enhancer(model, runtime)
        strength = float(enhancer.metadata.get(TRAINED_AT, enhancer.strength))
        reference = Enhancer("fast", "onnxruntime", strength)
        cells = []
        for pairs in sets.values():
            lost = []
            for index in range(len(pairs)):
                lq, gt = pairs.read(index)
                original = Original(gt)
                lost.append(lpips(enhancer(lq), original) - lpips(reference(lq), original))
            cells.append(f"{np.mean(lost):+.5f}")
        print(f"| {Path(model).name} | {runtime} | {type_of(model, runtime)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
