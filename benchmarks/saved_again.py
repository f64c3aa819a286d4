"""What is lost where a picture of another codec was saved again as a JPEG, which hides it, and is won by saying so.

Each picture is compressed, saved as JPEG at QF 95 (4:2:0) and enhanced twice: by what it looks like, and by what
compressed it first, as `sqe enhance --assume` does.

python benchmarks/saved_again.py PICTURES [--every N]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import machine
from subjectiveqe.codecs import crop_to_multiple, get_codec
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.images import list_images, read_rgb
from subjectiveqe.metrics import lpips, psnr, ssimulacra2

FIRST = ("hevc:32", "hevc:37", "hevc-420:37", "webp:20", "webp:50", "avif:30")
LAST_QF = 95


def main() -> None:
    """Prints a row for each codec and way to enhance what it made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take each of so many pictures")
    options = parser.parse_args()
    originals = [crop_to_multiple(read_rgb(path), 8) for path in list_images(options.pictures)[:: options.every]]
    print(machine.describe())
    print(f"{options.pictures.name}, {len(originals)} pictures, fast, onnxruntime, saved as JPEG at QF {LAST_QF}")
    print("| first | enhanced | PSNR dB | LPIPS | SSIMULACRA2 |\n|---|---|---|---|---|")
    blind = Enhancer("fast", "onnxruntime")
    for first in FIRST:
        family, level = first.split(":")
        codec = get_codec("hevc", chroma="420") if family == "hevc-420" else get_codec(family)
        saved = [get_codec("jpeg").code(codec.code(gt, int(level)).rgb, LAST_QF).rgb for gt in originals]
        ways = {
            "not": saved,
            "as it looks": map(blind, saved),
            f"`--assume {first}`": map(Enhancer("fast", "onnxruntime", assume=first), saved),
        }
        for way, outs in ways.items():
            judged = [
                [judge(out, gt) for judge in (psnr, lpips, ssimulacra2)]
                for out, gt in zip(outs, originals, strict=True)
            ]
            psnr_db, lost, score = map(mean, zip(*judged, strict=True))
            print(f"| {first} | {way} | {psnr_db:.2f} | {lost:.4f} | {score:.2f} |", flush=True)


if __name__ == "__main__":
    main()
