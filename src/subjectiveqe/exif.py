"""What a camera says of a picture (EXIF): out of TIFF files and into them, and freed of the thumbnail.

libvips carries an EXIF block through all formats but TIFF, where the same tags lie among those of the picture.
"""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from .files import atomic_path

_PLACE = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
"""Where on Earth the pixels of a GeoTIFF lie, and what GDAL says of them."""

_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, 0x8769, 0x8825, *_PLACE)
"""Title, maker, model, software, time, artist, computer, copyright, the tables of EXIF and GPS, and the place; most
other tags of a first table describe how the pixels are stored."""

_START = b"Exif\0\0"
_ORIENTATION = 0x0112


def without_thumbnail(exif: bytes) -> bytes:
    """Cuts the link from the first table of an EXIF block to the second, which holds a small copy of the old pixels."""
    start = len(_START) if exif.startswith(_START) else 0
    order = ">" if exif[start : start + 2] == b"MM" else "<"
    try:
        (table,) = struct.unpack_from(f"{order}I", exif, start + 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start + table)
    except struct.error:  # damaged; viewers will not find a thumbnail either
        return exif
    link = start + table + 2 + 12 * count
    return exif[:link] + b"\0" * len(exif[link : link + 4]) + exif[link + 4 :]


def upright(exif: bytes) -> bytes:
    """Says in the first table of an EXIF block that pixels lie as they are to be seen, where it says anything of it."""
    start = len(_START) if exif.startswith(_START) else 0
    order = ">" if exif[start : start + 2] == b"MM" else "<"
    with suppress(struct.error):  # damaged; viewers will not find the tag either
        (table,) = struct.unpack_from(f"{order}I", exif, start + 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start + table)
        for entry in range(start + table + 2, start + table + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", exif, entry) == (_ORIENTATION,):
                return exif[: entry + 8] + struct.pack(f"{order}HH", 1, 0) + exif[entry + 12 :]
    return exif


def exif_of_tiff(path: Path) -> bytes | None:
    """The EXIF block of a TIFF file's first picture; None where it says nothing, or is damaged."""
    import tifftools

    with suppress(Exception):  # tifftools has no common root for what damaged files make it raise
        return _block(tifftools.read_tiff(str(path))["ifds"][0])
    return None


def has_place(exif: bytes) -> bool:
    """Whether an EXIF block came from a GeoTIFF, of whose tags other formats keep none."""
    return not _table_of(exif).get("tags", {}).keys().isdisjoint(_PLACE)


def can_go_into_tiff(exif: bytes) -> bool:
    """Whether `add_to_tiff` will understand a block."""
    with suppress(Exception):  # what can be read may still lack values that would have to be written
        return _block(_table_of(exif)) is not None
    return False


def add_to_tiff(path: Path, exif: bytes) -> None:
    """Puts an EXIF block among the tags of a TIFF file's first picture; the file is written anew."""
    import tifftools

    tiff = tifftools.read_tiff(str(path))
    tiff["ifds"][0]["tags"].update(_told(_table_of(exif)))
    with atomic_path(path) as aside:
        tifftools.write_tiff(tiff, str(aside), allowExisting=True)


def _table_of(exif: bytes) -> dict[str, Any]:
    """The first table of a block, as tifftools has it; empty where it is damaged."""
    import tifftools

    with suppress(Exception):
        table: dict[str, Any] = tifftools.read_tiff(io.BytesIO(exif.removeprefix(_START)))["ifds"][0]
        return table
    return {}


def _told(table: dict[str, Any]) -> dict[int, Any]:
    """What a table says of the picture and not of how its pixels are stored."""
    return {tag: value for tag, value in table.get("tags", {}).items() if tag in _TAGS}


def _block(table: dict[str, Any]) -> bytes | None:
    """An EXIF block of what a table tells; None where that is nothing, and tifftools raises where it is damaged."""
    import tifftools

    tags = _told(table)
    if not tags:
        return None
    block = io.BytesIO()
    tifftools.write_tiff([{**table, "tags": tags}], block, bigtiff=False, allowExisting=True)
    return _START + block.getvalue()
