"""What is gained on AVIF and HEIC files by interpolating their chroma, and by what they say of their quantiser.

Each picture is saved as a file (4:2:0) and enhanced three ways: with each sample of chroma repeated for 2x2 pixels, as
libheif decodes; with chroma interpolated; and told what the file says, where it says something, as `sqe enhance` does.

python benchmarks/still_files.py PICTURES [--every N]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
import pillow_heif
import pyvips
from PIL import Image

import machine
from subjectiveqe.codecs.file_header import file_coarseness
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.look import with_file
from subjectiveqe.images import RGB, list_images, read_rgb
from subjectiveqe.metrics import lpips, psnr, ssimulacra2

FILES = (("avif", 15), ("avif", 30), ("avif", 50), ("avif", 70), ("heic", 30), ("heic", 50), ("heic", 70))
WAYS = ("repeated", "interpolated", "interpolated, told")


def main() -> None:
    """Prints one row for each kind of file and way to enhance it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take each of so many pictures")
    options = parser.parse_args()
    pillow_heif.register_heif_opener()
    enhancer = Enhancer("fast", "onnxruntime")
    originals = [read_rgb(path) for path in list_images(options.pictures)[:: options.every]]
    print(machine.describe())
    print(f"{options.pictures.name}, {len(originals)} pictures, fast, onnxruntime")
    columns = [
        "file",
        "chroma",
        *(f"{judge} {end}" for judge in ("PSNR", "LPIPS", "SSIMULACRA2") for end in ("in", "out")),
    ]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for suffix, quality in FILES:
        rows = [measure(gt, suffix, quality, enhancer) for gt in originals]
        for way in WAYS:
            scores = [mean(values) for values in zip(*(row[way] for row in rows), strict=True)]
            texts = [f"{score:.4f}" if place in (2, 3) else f"{score:.2f}" for place, score in enumerate(scores)]
            print(f"| {suffix} {quality} | {way} | {' | '.join(texts)} |", flush=True)


def measure(gt: RGB, suffix: str, quality: int, enhancer: Enhancer) -> dict[str, list[float]]:
    """The columns of one picture, for each way."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"in.{suffix}"
        options = {"subsampling": "4:2:0"} if suffix == "avif" else {"chroma": 420}
        Image.fromarray(gt).save(path, quality=quality, **options)
        repeated = pyvips.Image.new_from_file(str(path)).numpy() if suffix == "avif" else np.asarray(Image.open(path))
        interpolated, told = read_rgb(path), file_coarseness(path)
    look = enhancer.look(interpolated)
    outs = {
        "repeated": (repeated, enhancer(repeated)),
        "interpolated": (interpolated, enhancer.with_look(interpolated, look)),
        "interpolated, told": (interpolated, enhancer.with_look(interpolated, with_file(look, told))),
    }
    return {
        way: [judge(image, gt) for judge in (psnr, lpips, ssimulacra2) for image in pair] for way, pair in outs.items()
    }


if __name__ == "__main__":
    main()
