"""What a PNG file says in words (title, author, a program's settings): its text chunks, carried as the bytes they are.

libvips writes all of them as Latin-1, whatever they were.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from .files import atomic_path

_KINDS = (b"tEXt", b"zTXt", b"iTXt")
_ELSEWHERE = (b"XML:com.adobe.xmp", b"Raw profile type")
"""Keywords of what is XMP, EXIF or a profile in other words."""

_HEADER_BYTES = 8 + 25
"""Signature and IHDR, behind which text may stand."""

_MOST_BYTES = 2**24
"""Of one chunk; longer ones are left out."""


def read_texts(path: Path) -> tuple[bytes, ...]:
    """The text chunks of a PNG file, each whole; none from where it is damaged."""
    with path.open("rb") as file:
        return tuple(chunk for chunk in _text_chunks(file) if not keyword(chunk).startswith(_ELSEWHERE))


def read_gamma(path: Path) -> float | None:
    """What a PNG file says of its gamma in place of a profile; None where it says nothing or that of sRGB."""
    with path.open("rb") as file:
        _, mark, rest = file.read(1 << 16).partition(b"IDAT")[0].partition(b"gAMA")
    gamma = int.from_bytes(rest[:4], "big") / 1e5
    return gamma if mark and abs(gamma - 0.45455) > 0.005 else None


def keyword(chunk: bytes) -> bytes:
    """What a text is about."""
    return chunk[8:].partition(b"\0")[0]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def add_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Puts chunks into a PNG file, before its pixels; it is written anew."""
    with atomic_path(path) as aside, path.open("rb") as old, aside.open("wb") as new:
        new.write(old.read(_HEADER_BYTES))
        new.writelines(chunks)
        shutil.copyfileobj(old, new, 2**20)


def _text_chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        length = int.from_bytes(head[:4], "big")
        if head[4:] not in _KINDS or length > _MOST_BYTES:
            file.seek(length + 4, 1)
            continue
        rest = file.read(length + 4)  # and its checksum
        if len(rest) < length + 4:
            return
        yield head + rest
