"""Peak memory of `sqe enhance` on a 48-megapixel JPEG, file to file; ends with code 1 above 1.5 GB.

python benchmarks/enhance_memory.py [--model FILE] [--runtime NAME] [--megapixels 48]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

import machine
from measured import enhance_command, make_picture, measure

LIMIT_GB = 1.5


def main() -> int:
    """Measures, prints a line of the table, and compares with the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--megapixels", type=float, default=48)
    options = parser.parse_args()
    height = round(math.sqrt(options.megapixels * 1e6 * 3 / 4))
    width = round(options.megapixels * 1e6 / height)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.jpg", Path(folder) / "out.png"
        make_picture(source, height, width)
        used = measure(enhance_command(source, out, options.model, options.runtime))
    print(machine.describe())
    print(f"model {options.model or 'bundled'}, runtime {options.runtime}, {width}x{height} px")
    print(
        f"peak {used.peak_bytes / 1e9:.2f} GB (limit {LIMIT_GB} GB), {used.wall_s:.1f} s, processor {used.cpu_s:.1f} s"
    )
    return 0 if used.peak_bytes <= LIMIT_GB * 1e9 else 1


if __name__ == "__main__":
    sys.exit(main())
