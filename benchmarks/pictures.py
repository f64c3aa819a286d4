"""What benchmarks of pictures share: their arguments, the pictures of a folder, and codecs by their names."""

from __future__ import annotations

import argparse
from pathlib import Path

from subjectiveqe.codecs import codec_named
from subjectiveqe.images import RGB, list_images, read_rgb


def parser_of(doc: str) -> argparse.ArgumentParser:
    """What all benchmarks of pictures are asked: which, and how many of them; described by the first line of `doc`."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take each of so many pictures")
    return parser


def read_pictures(folder: Path, every: int = 1) -> list[RGB]:
    """Each of so many of a folder's pictures; ends the program where there are none."""
    paths = list_images(folder)[::every]
    if not paths:
        raise SystemExit(f"{folder}: no picture in it")
    return [read_rgb(path) for path in paths]


def coded(rgb: RGB, step: str) -> RGB:
    """What a codec leaves of a picture, by its name, chroma and level: "jpeg:30", "hevc-420:37", "avif-444:30"."""
    family, _, level = step.partition(":")
    return codec_named(family).code(rgb, int(level)).rgb
