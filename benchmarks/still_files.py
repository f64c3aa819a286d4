"""What is gained on AVIF, HEIC, JPEG and WebP files by what they say of their quantiser, and by interpolating chroma.

Each picture is saved as a file (4:2:0) and enhanced three ways: with each sample of chroma repeated for 2x2 pixels, as
libheif decodes (AVIF and HEIC alone); with chroma interpolated; and told what the file says, where it says something,
as `sqe enhance` does.

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
from PIL import Image, JpegPresets

import machine
from pictures import read_pictures
from subjectiveqe.codecs.file_header import file_coarseness
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.look import with_file
from subjectiveqe.images import RGB, read_rgb
from subjectiveqe.metrics import lpips, psnr, ssimulacra2

FILES: dict[str, tuple[int | str, ...]] = {
    "avif": (15, 30, 50, 70),
    "heic": (30, 50, 70),
    "jpeg": (10, 30, 60, 85),
    "mozjpeg": (25, 40, 60, 75, 85),
    "photoshop": ("web_low", "web_medium", "web_high", "low", "medium", "high"),
    "webp": (20, 50, 80, 90),
}
MOZJPEG = {"quant_table": 3, "trellis_quant": True, "overshoot_deringing": True, "optimize_scans": True}
"""What makes libvips' libjpeg, which is mozjpeg, code as that does if not told otherwise."""


def main() -> None:
    """Prints one row for each kind of file and way to enhance it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take each of so many pictures")
    parser.add_argument("--format", choices=FILES, help="of these files alone")
    options = parser.parse_args()
    pillow_heif.register_heif_opener()
    enhancer = Enhancer("fast", "onnxruntime")
    originals = read_pictures(options.pictures, options.every)
    print(machine.describe())
    print(f"{options.pictures.name}, {len(originals)} pictures, fast, onnxruntime")
    columns = [
        "file",
        "chroma",
        *(f"{judge} {end}" for judge in ("PSNR", "LPIPS", "SSIMULACRA2") for end in ("in", "out")),
    ]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    kinds = FILES if options.format is None else [options.format]
    for kind, quality in ((one, quality) for one in kinds for quality in FILES[one]):
        rows = [measure(gt, kind, quality, enhancer) for gt in originals]
        for way in rows[0]:
            scores = [mean(values) for values in zip(*(row[way] for row in rows), strict=True)]
            texts = [f"{score:.4f}" if place in (2, 3) else f"{score:.2f}" for place, score in enumerate(scores)]
            print(f"| {kind} {quality} | {way} | {' | '.join(texts)} |", flush=True)


def save(gt: RGB, path: Path, kind: str, quality: int | str) -> None:
    """Saves a picture as one of `FILES`."""
    if kind == "mozjpeg":
        pyvips.Image.new_from_array(gt).jpegsave(str(path), Q=quality, interlace=True, **MOZJPEG)
        return
    tables = {"qtables": JpegPresets.presets[quality]["quantization"]} if kind == "photoshop" else {"quality": quality}
    options = {"heic": {"chroma": 420}, "webp": {}}.get(kind, {"subsampling": "4:2:0"})
    Image.fromarray(gt).save(path, **tables, **options)


def measure(gt: RGB, kind: str, quality: int | str, enhancer: Enhancer) -> dict[str, list[float]]:
    """The columns of one picture, for each way."""
    suffix = "jpeg" if kind in ("mozjpeg", "photoshop") else kind
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"in.{suffix}"
        save(gt, path, kind, quality)
        repeated = np.asarray(Image.open(path)) if suffix == "heic" else pyvips.Image.new_from_file(str(path)).numpy()
        interpolated, told = read_rgb(path), file_coarseness(path)
    look = enhancer.look(interpolated)
    outs = {
        "repeated": (repeated, enhancer(repeated)),
        "interpolated": (interpolated, enhancer.with_look(interpolated, look)),
        "interpolated, told": (interpolated, enhancer.with_look(interpolated, with_file(look, told))),
    }
    if suffix in ("jpeg", "webp"):
        del outs["repeated"]
    return {
        way: [judge(image, gt) for judge in (psnr, lpips, ssimulacra2) for image in pair] for way, pair in outs.items()
    }


if __name__ == "__main__":
    main()
