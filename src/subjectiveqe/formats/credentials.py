"""Content credentials (C2PA): a signed record of who made and changed a picture, which holds for no other pixels.

Source: C2PA, "Technical Specification" 2.1, appendix A.3, on where each format has them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .exif import read_tables
from .jpegsegments import read_application
from .pngchunks import read_chunk

_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""The kind of box that holds them in HEIC and AVIF."""

_TIFF_TAG, _GIF_BLOCK = 0xCD41, b"\x21\xff\x0bC2PA_GIF"


def has_credentials(path: Path, kind: str) -> bool:
    """Whether a picture file has some; `kind` is its format."""
    if kind == "jpeg":
        return any(b"c2pa" in said for said in read_application(path, 11, b"JP"))
    if kind == "png":
        return read_chunk(path, b"caBX") is not None
    with path.open("rb") as file:
        if kind == "webp":
            return any(name == b"C2PA" for name in _chunks_of_webp(file))
        if kind == "gif":
            return _GIF_BLOCK in file.read()
        if kind == "tiff":
            with suppress(Exception):  # damaged
                return any(_TIFF_TAG in table["tags"] for table in read_tables(file)["ifds"])
        return kind in ("heic", "avif") and any(
            name == b"uuid" and file.read(len(_BOX)) == _BOX for name in _boxes(file)
        )


def _chunks_of_webp(file: BinaryIO) -> Iterator[bytes]:
    file.seek(12)
    while len(head := file.read(8)) == 8:
        yield head[:4]
        length = int.from_bytes(head[4:], "little")
        file.seek(length + length % 2, os.SEEK_CUR)


def _boxes(file: BinaryIO) -> Iterator[bytes]:
    """The kinds of a file's boxes, with the file at what is in each; none behind one that goes to the end."""
    place, end = 0, os.fstat(file.fileno()).st_size
    while len(head := file.read(16)) == 16:
        size, kind, long = int.from_bytes(head[:4], "big"), head[4:8], int.from_bytes(head[8:], "big")
        file.seek(place + (16 if size == 1 else 8))
        yield kind
        size = long if size == 1 else size
        if not 8 <= size < end - place:
            return
        place += size
        file.seek(place)
