"""What is lost where a picture of one codec was saved again by another, which hides it, and is won by saying so.

Each picture is compressed, saved again (4:2:0), and enhanced twice: by what it looks like, and by what compressed it
first, as `sqe enhance --assume` does. Some JPEGs are cut before they are saved again, so that their blocks begin 5 px
and 3 px from the corner.

python benchmarks/saved_again.py PICTURES [--every N]
"""

from __future__ import annotations

from statistics import mean

import numpy as np

import machine
from pictures import coded, parser_of, read_pictures
from subjectiveqe.codecs import crop_to_multiple
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.metrics import lpips, psnr, ssimulacra2

CASES = (
    ("hevc:32", "jpeg:95"),
    ("hevc:37", "jpeg:95"),
    ("hevc-420:37", "jpeg:95"),
    ("webp:20", "jpeg:95"),
    ("webp:50", "jpeg:95"),
    ("avif:30", "jpeg:95"),
    ("jpeg:30, cut", "jpeg:95"),
    ("jpeg:30, cut", "jpeg:80"),
    ("jpeg:60, cut", "jpeg:90"),
    ("jpeg:30", "webp:80"),
    ("jpeg:30", "avif:70"),
    ("jpeg:60", "avif:80"),
)


def main() -> None:
    """Prints a row for each codec and way to enhance what it made."""
    options = parser_of(__doc__).parse_args()
    originals = [crop_to_multiple(rgb, 8) for rgb in read_pictures(options.pictures, options.every)]
    print(machine.describe())
    print(f"{options.pictures.name}, {len(originals)} pictures, fast, onnxruntime")
    print("| first | then | enhanced | PSNR dB | LPIPS | SSIMULACRA2 |\n|---|---|---|---|---|---|")
    blind = Enhancer("fast", "onnxruntime")
    for first, then in CASES:
        was, *cut = first.split(", ")
        part = (slice(3, None), slice(5, None)) if cut else (slice(None), slice(None))
        gts = [np.ascontiguousarray(gt[part]) for gt in originals]
        saved = [coded(np.ascontiguousarray(coded(gt, was)[part]), then) for gt in originals]
        ways = {
            "not": saved,
            "as it looks": map(blind, saved),
            f"`--assume {was}`": map(Enhancer("fast", "onnxruntime", assume=was), saved),
        }
        for way, outs in ways.items():
            judged = [
                [judge(out, gt) for judge in (psnr, lpips, ssimulacra2)] for out, gt in zip(outs, gts, strict=True)
            ]
            psnr_db, lost, score = map(mean, zip(*judged, strict=True))
            print(f"| {first} | {then} | {way} | {psnr_db:.2f} | {lost:.4f} | {score:.2f} |", flush=True)


if __name__ == "__main__":
    main()
