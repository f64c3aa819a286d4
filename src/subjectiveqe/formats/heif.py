"""The boxes of AVIF and HEIC files, and the EXIF block of one: libvips writes the tags that it knows, not its bytes.

Source: ISO/IEC 14496-12, boxes "meta", "iinf", "infe" and "iloc", and 23008-12, annex A, on what an item of EXIF holds.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .exif import exif_of_jpeg

_HEADER, _LONG_HEADER = 8, 16
"""Size and kind of a box, and with a size of 64 bits behind them."""
_PLACE = struct.Struct(">IHII")
"""Of an item: base, number of extents, and how far from the base the extent lies and how long it is."""


def replace_exif(path: Path, exif: bytes) -> None:
    """Puts a block in the place of the one that an AVIF file has; a file that has none stays as it is.

    The block goes behind all else, so that nothing moves, and what it stands in for becomes zeros.
    """
    content = path.read_bytes()
    meta = next((box for box in boxes(io.BytesIO(content)) if box[0] == b"meta"), None)
    if meta is None:
        return
    inner = {kind: (start, end) for kind, start, end in boxes(io.BytesIO(content), meta[1] + 4, meta[2])}
    item = _item_of_exif(content, *inner[b"iinf"]) if b"iinf" in inner else None
    place = _place_of_item(content, inner[b"iloc"][0], item) if item is not None and b"iloc" in inner else None
    if place is None:
        return
    payload = struct.pack(">I", len(b"Exif\0\0")) + exif_of_jpeg(exif)  # how many bytes on the block itself begins
    box = struct.pack(">I4s", _HEADER + len(payload), b"mdat") + payload
    base, _, offset, length = _PLACE.unpack_from(content, place)
    with path.open("rb+") as file:
        file.seek(base + offset)
        file.write(bytes(length))
        file.seek(place)
        file.write(_PLACE.pack(len(content) + _HEADER, 1, 0, len(payload)))
        file.seek(len(content))
        file.write(box)


def boxes(file: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and beginning and end of what is in it, of each box in a part of a file; none behind one that is odd.

    Args:
        file: that can be sought in.
        start: of the first box.
        end: of the part; None for that of the file.
    """
    end = file.seek(0, os.SEEK_END) if end is None else end
    while start + _HEADER <= end:
        file.seek(start)
        size, kind, long = struct.unpack(">I4sQ", file.read(_LONG_HEADER).ljust(_LONG_HEADER, b"\0"))
        header, size = (_LONG_HEADER, long) if size == 1 else (_HEADER, size or end - start)  # 0: to the end
        if not header <= size <= end - start:
            return
        yield kind, start + header, start + size
        start += size


def _item_of_exif(content: bytes, start: int, end: int) -> int | None:
    """The number of the item that is EXIF, by the table of items (version 0)."""
    for kind, entry, _ in boxes(io.BytesIO(content), start + 6, end):
        number, what = struct.unpack_from(">4xH2x4s", content, entry)
        if kind == b"infe" and what == b"Exif":
            return int(number)
    return None


def _place_of_item(content: bytes, start: int, item: int) -> int | None:
    """Where the table of places says where an item lies, as `_PLACE` has it.

    None where the table is of another shape than libheif's: numbers of 4 bytes, one extent for each item.
    """
    version, sizes, count = struct.unpack_from(">B3xHH", content, start)
    before = {0: 4, 1: 6}.get(version)  # its number, how it is constructed (version 1), the file that it lies in
    if before is None or sizes != 0x4440:
        return None
    for place in range(start + 8 + before, start + 8 + count * (before + _PLACE.size), before + _PLACE.size):
        (number,) = struct.unpack_from(">H", content, place - before)
        if number == item:
            return place if _PLACE.unpack_from(content, place)[1] == 1 else None
    return None
