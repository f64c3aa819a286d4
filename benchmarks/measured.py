"""What the enhancing benchmarks share: a large compressed picture, and a command measured from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips
from PIL import Image

from subjectiveqe.samples import samples

QF = 40
"""A bad JPEG, though not the worst; the network's time does not depend on it."""


@dataclass(frozen=True)
class Measured:
    """Wall time and processor time of all threads in seconds, peak resident memory in bytes."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def make_picture(path: Path, height: int, width: int) -> None:
    """Writes the bundled samples side by side, mirrored at each seam and repeated, as JPEG, or as the name says."""
    parts = [np.asarray(Image.open(source).convert("RGB"))[:300, :400] for source in samples()]
    block = np.concatenate([np.concatenate([part, part[:, ::-1]], axis=1) for part in parts])
    block = np.concatenate([block, block[::-1]])
    down, across = (-(-side // length) for side, length in zip((height, width), block.shape, strict=False))
    picture = pyvips.Image.new_from_array(block).replicate(across, down).crop(0, 0, width, height)  # never in memory
    picture.write_to_file(str(path), **({"Q": QF} if path.suffix == ".jpg" else {}))


def measure(command: Sequence[str]) -> Measured:
    """Runs a command to its end; its failure ends the benchmark.

    The kernel's peak starts from that of the process that called it, so it is an upper bound: keep the caller small.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}: ended with code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return Measured(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def enhance_command(source: Path, out: Path, model: Path | None, runtime: str) -> list[str]:
    """The command line of `sqe enhance` in this Python."""
    chosen = [] if model is None else ["--model", str(model)]
    return [sys.executable, "-m", "subjectiveqe", "enhance", str(source), "-o", str(out), "--runtime", runtime, *chosen]
