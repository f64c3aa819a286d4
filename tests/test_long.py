"""What takes many minutes: `pytest -m long`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import pyvips

from subjectiveqe.samples import samples

MOST_BYTES = 1_000_000_000

# The kernel's peak of a child begins with that of the process that calls it, which is to be small.
MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.exit(done.returncode)
"""


def peak_of_enhancing(folder: Path, height: int, width: int) -> int:
    """The most memory, in bytes, that `sqe enhance` has resident at a JPEG of that size and the default model."""
    source, result = folder / "large.jpg", folder / "better.jpg"
    sample = pyvips.Image.new_from_file(str(samples()[0]))
    tiled = sample.replicate(-(-width // sample.width), -(-height // sample.height))
    tiled.crop(0, 0, width, height).write_to_file(str(source), Q=40)  # in strips
    command = [sys.executable, "-m", "subjectiveqe", "enhance", str(source), "-o", str(result)]
    run = subprocess.run([sys.executable, "-c", MEASURE, *command], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    made = pyvips.Image.new_from_file(str(result))
    assert (made.height, made.width) == (height, width)
    return int(run.stdout)


@pytest.mark.long
def test_200_megapixels_take_less_than_a_gigabyte(tmp_path):
    assert peak_of_enhancing(tmp_path, 12_500, 16_000) < MOST_BYTES
