"""Makes `sheet.jpg` for the README and `failures.jpg` for the card: compressed details, the dial, the originals.

python benchmarks/draw_pages.py PAGES && python docs/picture_sheet.py KODAK CID22_VALIDATION PAGES

Under each detail stands LPIPS of the whole picture, lower is better.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from subjectiveqe.codecs import crop_to_multiple, get_codec
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.images import read_rgb
from subjectiveqe.metrics import Original, lpips

Detail: TypeAlias = tuple[str, str, str, int, tuple[int, int]]
"""What it shows, the picture, codec and level, and the detail's top and left."""

DETAILS: tuple[Detail, ...] = (
    ("face", "kodim04", "jpeg", 10, (192, 168)),
    ("text", "kodim10", "hevc", 37, (20, 200)),
    ("foliage", "kodim13", "jpeg", 20, (150, 330)),
    ("sky", "844297", "jpeg", 10, (200, 230)),
    ("night", "2389166", "hevc", 37, (110, 80)),
    ("painting", "297394", "webp", 5, (290, 60)),
    ("line art", "engraving_7", "jpeg", 20, (100, 80)),
)
FAILURES: tuple[Detail, ...] = (
    ("weave", "kodim10", "hevc", 37, (20, 200)),
    ("smooth ground", "792079", "hevc", 32, (40, 300)),
    ("speckle", "kodim07", "jpeg", 10, (200, 250)),
)

STRENGTHS = (0.0, 0.5, 1.0)
SIDE, GAP, LINE = 176, 6, 20
PAPER, INK = "#ffffff", "#333333"


def main() -> None:
    """Draws both sheets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="where the pictures are")
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent, help="folder for the sheets")
    options = parser.parse_args()
    found = {path.stem: path for folder in options.folders for path in folder.iterdir()}
    enhancers = [Enhancer("fast", "onnxruntime", strength=strength) for strength in STRENGTHS]
    for name, details in (("sheet", DETAILS), ("failures", FAILURES)):
        sheet = draw_sheet(details, found, enhancers)
        sheet.save(options.out / f"{name}.jpg", quality=92, subsampling=0, optimize=True)


def draw_sheet(details: Sequence[Detail], found: Mapping[str, Path], enhancers: Sequence[Enhancer]) -> Image.Image:
    """One row a detail; `found` gives the file of each picture's name."""
    heads = ["compressed", *(f"enhanced, strength {strength:g}" for strength in STRENGTHS), "original"]
    width = len(heads) * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, LINE + len(details) * (SIDE + LINE + GAP)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, head in enumerate(heads):
        draw.text((GAP + column * (SIDE + GAP), 3), head, INK, font)
    for row, (what, name, codec, level, (top, left)) in enumerate(details):
        gt = crop_to_multiple(read_rgb(found[name]))
        lq = get_codec(codec).code(gt, level).rgb
        original = Original(gt)
        y = LINE + row * (SIDE + LINE + GAP)
        for column, image in enumerate((lq, *(enhancer(lq) for enhancer in enhancers), gt)):
            x = GAP + column * (SIDE + GAP)
            sheet.paste(Image.fromarray(np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])), (x, y))
            text = f"LPIPS {lpips(image, original):.3f}" if image is not gt else what
            text = f"{codec.upper()} {level}: {text}" if column == 0 else text
            draw.text((x, y + SIDE + 2), text, INK, font)
    return sheet


if __name__ == "__main__":
    main()
