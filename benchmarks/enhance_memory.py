"""Peak memory of `sqe enhance` on a large picture, file to file; ends with code 1 above the limit.

python benchmarks/enhance_memory.py [--model FILE] [--runtime NAME] [--megapixels 48] [--format jpg] [--limit 1.5]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

import machine
from measured import enhance_command, make_picture, measure


def main() -> int:
    """Measures, prints a line of the table, and compares with the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--megapixels", type=float, default=48)
    parser.add_argument("--format", default="jpg", help="jpg, png or tif, in and out; a jpg becomes a png")
    parser.add_argument("--limit", type=float, default=1.5, help="in GB")
    options = parser.parse_args()
    height = round(math.sqrt(options.megapixels * 1e6 * 3 / 4))
    width = round(options.megapixels * 1e6 / height)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"in.{options.format}"
        out = Path(folder) / f"out.{options.format.replace('jpg', 'png')}"
        make_picture(source, height, width)
        used = measure(enhance_command(source, out, options.model, options.runtime))
    print(machine.describe())
    print(f"model {options.model or 'bundled'}, runtime {options.runtime}, {options.format}, {width}x{height} px")
    spent = f"{used.wall_s:.1f} s, processor {used.cpu_s:.1f} s"
    print(f"peak {used.peak_bytes / 1e9:.2f} GB (limit {options.limit:g} GB), {spent}")
    return 0 if used.peak_bytes <= options.limit * 1e9 else 1


if __name__ == "__main__":
    sys.exit(main())
