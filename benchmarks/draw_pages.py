"""Draws pages of text and engravings, which the estimator of coarseness is most often wrong about.

Saves them as PNG, for other benchmarks to read.

python benchmarks/draw_pages.py FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from subjectiveqe.images import RGB, write_png

WIDTH_PX, HEIGHT_PX = 640, 448
COLOURS = (
    ("black", "white"),
    ("white", "black"),
    ("red", "white"),
    ("white", "navy"),
    ("dimgray", "silver"),
    ("yellow", "darkgreen"),
)
"""Of letters and paper."""

PERIODS_PX = (5, 7)
"""Of an engraving's lines."""


def main() -> None:
    """Draws all into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for letters, paper in COLOURS:
        write_png(folder / f"text_{letters}_on_{paper}.png", text(letters, paper, rng))
    for period_px in PERIODS_PX:
        write_png(folder / f"engraving_{period_px}.png", engraving(period_px))


def text(letters: str, paper: str, rng: np.random.Generator) -> RGB:
    """A page of words of letters drawn by chance, in sizes from 10 to 24 px."""
    page = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), paper)
    pen = ImageDraw.Draw(page)
    top, alphabet = 6, list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.      ")
    while top < HEIGHT_PX:
        size_px = int(rng.integers(10, 25))
        pen.text((8, top), "".join(rng.choice(alphabet, 120)), letters, ImageFont.load_default(size_px))
        top += round(1.4 * size_px)
    return np.asarray(page)


def engraving(period_px: int) -> RGB:
    """Black lines across hills of gray, the thicker the darker, with soft edges."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX].astype(np.float32)
    gray = 0.5 + 0.4 * np.sin(x / 60) * np.cos(y / 45)
    across = (y + 0.6 * x + 8 * np.sin(x / 40)) / np.hypot(1, 0.6)
    line = 0.5 + 0.5 * np.cos(2 * np.pi * across / period_px)
    levels = np.clip(255 * (0.5 + 3 * (line - 1 + gray)), 0, 255)
    return np.repeat(np.rint(levels).astype(np.uint8)[..., None], 3, axis=2)


if __name__ == "__main__":
    main()
