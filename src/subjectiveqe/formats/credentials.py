"""Content credentials (C2PA): a signed record of who made and changed a picture, which holds for no other pixels.

Source: C2PA, "Technical Specification" 2.1, appendix A.3, on where each format has them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .exif import read_tables
from .heif import boxes
from .jpegsegments import read_application
from .pngchunks import read_chunk
from .webpchunks import chunks

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
            return any(name == b"C2PA" for name, _ in chunks(file))
        if kind == "gif":
            return _GIF_BLOCK in file.read()
        if kind == "tiff":
            with suppress(Exception):  # damaged
                return any(_TIFF_TAG in table["tags"] for table in read_tables(file)["ifds"])
        return kind in ("heic", "avif") and any(_holds_credentials(file, *box) for box in boxes(file))


def _holds_credentials(file: BinaryIO, kind: bytes, start: int, end: int) -> bool:
    file.seek(start)
    return kind == b"uuid" and file.read(min(end - start, len(_BOX))) == _BOX
