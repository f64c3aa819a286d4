"""What benchmarks of pictures share: the pictures of a folder."""

from __future__ import annotations

from pathlib import Path

from subjectiveqe.images import RGB, list_images, read_rgb


def read_pictures(folder: Path, every: int = 1) -> list[RGB]:
    """Each of so many of a folder's pictures; ends the program where there are none."""
    paths = list_images(folder)[::every]
    if not paths:
        raise SystemExit(f"{folder}: no picture in it")
    return [read_rgb(path) for path in paths]
