"""Comments of a JPEG file, carried as the bytes they are; libvips neither reads nor writes them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .files import atomic_path

_START, _COMMENT, _SCAN = b"\xff\xd8", 0xFE, 0xDA
_APPLICATION = range(0xE0, 0xF0)
"""Markers of JFIF, EXIF, XMP and profiles, which readers want first."""


def read_comments(path: Path) -> tuple[bytes, ...]:
    """The comment segments of a JPEG file, each whole; those before what is damaged."""
    with path.open("rb") as file:
        return tuple(segment for segment in _segments(file) if segment[1] == _COMMENT)


def add_comments(path: Path, segments: tuple[bytes, ...]) -> None:
    """Puts comment segments behind those of applications in a JPEG file, which is written anew."""
    with atomic_path(path) as aside, path.open("rb") as old, aside.open("wb") as new:
        new.write(_START)
        end = len(_START)
        for segment in _segments(old):
            if segment[1] not in _APPLICATION:
                break
            new.write(segment)
            end += len(segment)
        new.writelines(segments)
        old.seek(end)
        shutil.copyfileobj(old, new, 2**20)


def _segments(file: BinaryIO) -> Iterator[bytes]:
    """Marker, length and content of each segment before the first scan."""
    file.seek(len(_START))
    while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] != _SCAN:
        if head[1] == 0xFF:  # before a marker there may be any number of them
            file.seek(-3, 1)
            continue
        length = int.from_bytes(head[2:], "big") - 2  # which counts itself
        rest = file.read(max(length, 0))
        if len(rest) != length:
            return
        yield head + rest
