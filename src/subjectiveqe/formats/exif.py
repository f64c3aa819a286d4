"""What a camera says of a picture (EXIF): out of TIFF files and into them, and freed of the thumbnail.

libvips reads an EXIF block from all formats but TIFF, where the same tags lie among those of the picture. What it
writes lacks the tags that it does not know.
"""

from __future__ import annotations

import io
import os
import struct
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..files import atomic_path

_PLACE = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
"""Where on Earth the pixels of a GeoTIFF lie, and what GDAL says of them."""

_NAMES = (0x010D, 0x011D, 0x4746, 0x4749, *range(0x9C9B, 0x9CA0))
"""Names of the document and the page, rating in stars and per cent, and what Windows writes: title, comment, author,
keywords, subject."""

_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, 0x8769, 0x8825, *_NAMES, *_PLACE)
"""Title, maker, model, software, time, artist, computer, copyright, the tables of EXIF and GPS, names and the place;
most other tags of a first table describe how the pixels are stored."""

_START = b"Exif\0\0"
_NOTHING = _START + b"II*\0\x08\0\0\0" + bytes(6)
_ORIENTATION, _RESOLUTION, _RESOLUTION_UNIT = 0x0112, (0x011A, 0x011B), 0x0128
_THUMBNAIL = ((0x0201, 0x0202), (0x0111, 0x0117))
"""Where the thumbnail lies and how long it is, as JPEG or bare."""

_MM_IN_UNIT = {2: 25.4, 3: 10.0}
_IPTC, _LONG, _UNDEFINED = 33723, 4, 7
_SUBFILE, _PHOTOMETRIC, _SUB_TABLES, _DNG_VERSION = 254, 262, 330, 50706
_OF_SENSORS = (32803, 34892)
"""Kinds of colours: one at each pixel in turn, and one per channel that is not a picture's yet."""


def without_thumbnail(exif: bytes) -> bytes:
    """Takes the small copy of the old pixels out of an EXIF block, and the link to the second table, which has it."""
    name, bare = _parts(exif)
    body = bytearray(bare)
    with suppress(struct.error):  # damaged; viewers will not find a thumbnail either
        _, link = _table(body, 4)
        if any(body[link : link + 4]):
            _clear_thumbnail(body, link)
        body[link : link + 4] = bytes(len(body[link : link + 4]))
    return name + bytes(body)


def _clear_thumbnail(body: bytearray, link: int) -> None:
    with suppress(struct.error):
        entries, end = _table(body, link)
        for place, length in _THUMBNAIL:
            told = [entries[tag] for tag in (place, length) if tag in entries and _count(body, entries[tag]) == 1]
            if len(told) == 2:
                first = _number(body, entries[place])
                last = first + _number(body, entries[length])
                if first > end and last >= len(body):  # where most cameras put it
                    del body[first:]
                elif first > end:
                    body[first:last] = bytes(last - first)


def with_orientation(exif: bytes, orientation: int) -> bytes:
    """An EXIF block that says how pixels lie; all else stays where it is, since makers' notes count on that.

    Args:
        exif: a block; if it is empty or damaged, and the pixels are not upright, the result says nothing else.
        orientation: 1..8; 1, for upright, is not added to a block that does not speak of it.
    """
    name, body = _parts(exif)
    entry = struct.pack(f"{_order(body)}HHIHH", _ORIENTATION, 3, 1, orientation, 0)
    try:
        entries, _ = _table(body, 4)
    except struct.error:
        return exif if orientation == 1 else with_orientation(_NOTHING, orientation)
    if place := entries.get(_ORIENTATION):
        return name + body[:place] + entry + body[place + 12 :]
    return exif if orientation == 1 else name + _with_entries(body, {_ORIENTATION: entry})


def orientation_of(exif: bytes) -> int:
    """What an EXIF block says of how pixels lie, 1..8; 1 where it says nothing, or is damaged."""
    _, body = _parts(exif)
    with suppress(struct.error, KeyError):
        entries, _ = _table(body, 4)
        told = _number(body, entries[_ORIENTATION])
        return told if 1 <= told <= 8 else 1
    return 1


def with_density(exif: bytes, density: tuple[float, float]) -> bytes:
    """An EXIF block that tells print resolution; one that does so already stays as it is.

    Args:
        exif: a block; if it is empty, the result says nothing else, and one that is damaged stays as it is.
        density: pixels per millimetre across and down.
    """
    name, body = _parts(exif or _NOTHING)
    order = _order(body)
    try:
        entries, _ = _table(body, 4)
    except struct.error:
        return exif
    if not entries.keys().isdisjoint(_RESOLUTION):
        return exif
    told = {_RESOLUTION_UNIT: struct.pack(f"{order}HHIHH", _RESOLUTION_UNIT, 3, 1, 2, 0)}
    body += b"\0" * (len(body) % 2)
    for tag, per_mm in zip(_RESOLUTION, density, strict=True):
        told[tag] = struct.pack(f"{order}HHII", tag, 5, 1, len(body))
        body += struct.pack(f"{order}II", round(per_mm * _MM_IN_UNIT[2] * 1000), 1000)
    return name + _with_entries(body, told)


def _with_entries(body: bytes, more: Mapping[int, bytes]) -> bytes:
    """A bare block with these entries in its first table, which goes to the end; all else stays where it is."""
    order = _order(body)
    entries, link = _table(body, 4)
    told = {tag: body[place : place + 12] for tag, place in entries.items()} | dict(more)
    body += b"\0" * (len(body) % 2)
    table = struct.pack(f"{order}H", len(told)) + b"".join(told[tag] for tag in sorted(told))
    return body[:4] + struct.pack(f"{order}I", len(body)) + body[8:] + table + body[link : link + 4]


def with_density_turned(exif: bytes) -> bytes:
    """An EXIF block in which what it tells of print resolution across and down has changed places."""
    name, bare = _parts(exif)
    body = bytearray(bare)
    with suppress(struct.error, KeyError):  # damaged, or not told
        entries, _ = _table(body, 4)
        across, down = (slice(entries[tag] + 2, entries[tag] + 12) for tag in _RESOLUTION)
        body[across], body[down] = body[down], body[across]
    return name + bytes(body)


def density_of(exif: bytes) -> tuple[float, float] | None:
    """Pixels per millimetre across and down, as an EXIF block tells them."""
    tags = _table_of(exif).get("tags", {})
    with suppress(ArithmeticError, LookupError, TypeError, ValueError):  # damaged, or not told
        unit = tags[_RESOLUTION_UNIT]["data"][0] if _RESOLUTION_UNIT in tags else 2
        across, down = (tags[tag]["data"][0] / tags[tag]["data"][1] / _MM_IN_UNIT[unit] for tag in _RESOLUTION)
        if min(across, down) > 0:
            return across, down
    return None


def bare_exif(exif: bytes) -> bytes:
    """An EXIF block as PNG and WebP have it, and not as JPEG."""
    return exif.removeprefix(_START)


def exif_of_jpeg(exif: bytes) -> bytes:
    """An EXIF block as JPEG has it."""
    return _START + bare_exif(exif)


def is_block(exif: bytes) -> bool:
    """Whether it begins as a block does; libavif refuses files with any other."""
    return len(bare_exif(exif)) >= 8 and bare_exif(exif)[:4] in (b"II*\0", b"MM\0*")


def _parts(exif: bytes) -> tuple[bytes, bytes]:
    """The name that an EXIF block has in front of it in JPEG, or nothing, and the bare block."""
    body = bare_exif(exif)
    return exif[: len(exif) - len(body)], body


def _order(body: bytes | bytearray) -> str:
    return ">" if body[:2] == b"MM" else "<"


def _table(body: bytes | bytearray, link: int) -> tuple[dict[int, int], int]:
    """Where the entries of a table lie by their tags, and the link to the next one; that to it lies at `link`."""
    order = _order(body)
    (table,) = struct.unpack_from(f"{order}I", body, link)
    (count,) = struct.unpack_from(f"{order}H", body, table)
    end = table + 2 + 12 * count
    return {struct.unpack_from(f"{order}H10x", body, place)[0]: place for place in range(table + 2, end, 12)}, end


def _count(body: bytes | bytearray, entry: int) -> int:
    """How many values an entry has; those of more than one do not lie in it."""
    return int(struct.unpack_from(f"{_order(body)}I", body, entry + 4)[0])


def _number(body: bytes | bytearray, entry: int) -> int:
    """The value of an entry that is a whole number."""
    kind = struct.unpack_from(f"{_order(body)}H", body, entry + 2)[0]
    return int(struct.unpack_from(f"{_order(body)}{'H' if kind == 3 else 'I'}", body, entry + 8)[0])


def exif_of_tiff(path: Path) -> bytes | None:
    """The EXIF block of a TIFF file's first picture; None where it says nothing, or is damaged."""
    with suppress(Exception), path.open("rb") as file:  # tifftools raises all kinds of errors for damaged files
        return _block(read_tables(file)["ifds"][0])
    return None


def is_camera_raw(path: Path) -> bool:
    """Whether a TIFF file is what a camera's sensor saw, of which the first picture is a small copy, or no picture yet.

    Source: Adobe, "Digital Negative Specification" 1.7 (DNG, as NEF and ARW have it); CR2 has its name at byte 8.
    """
    with suppress(Exception), path.open("rb") as file:  # damaged, or of more than there is room for
        if file.read(10)[8:] == b"CR":
            return True
        first, *others = read_tables(file)["ifds"]
        tags = first["tags"]
        kind, colours = (tags[tag]["data"][0] if tag in tags else 0 for tag in (_SUBFILE, _PHOTOMETRIC))
        is_copy = bool(kind & 1) and (bool(others) or _SUB_TABLES in tags)
        return _DNG_VERSION in tags or is_copy or colours in _OF_SENSORS
    return False


def has_place(exif: bytes) -> bool:
    """Whether an EXIF block came from a GeoTIFF, of whose tags other formats keep none."""
    return not _table_of(exif).get("tags", {}).keys().isdisjoint(_PLACE)


def can_go_into_tiff(exif: bytes) -> bool:
    """Whether `add_to_tiff` will understand a block."""
    with suppress(Exception):  # what can be read may still lack values that would have to be written
        table = _table_of(exif)
        _block(table)
        return "tags" in table
    return False


def iptc_of_tiff(path: Path) -> bytes:
    """What the tag of IPTC holds in a TIFF file's first picture; libvips takes a fourth of it."""
    with suppress(Exception), path.open("rb") as file:
        tiff = read_tables(file)
        data = tiff["ifds"][0]["tags"][_IPTC]["data"]
        if isinstance(data, bytes):
            return data
        is_long = tiff["ifds"][0]["tags"][_IPTC]["datatype"] == _LONG  # which is how most programs write it
        return struct.pack(f"{tiff['endianPack']}{len(data)}{'I' if is_long else 'B'}", *data)
    return b""


def add_to_tiff(path: Path, exif: bytes, iptc: bytes) -> None:
    """Puts an EXIF block and records of IPTC among the tags of a TIFF file's first picture; it is written anew."""
    import tifftools

    tiff = tifftools.read_tiff(str(path))
    tiff["ifds"][0]["tags"].update(_told(_table_of(exif)))
    if iptc:
        tiff["ifds"][0]["tags"][_IPTC] = {"datatype": _UNDEFINED, "count": len(iptc), "data": iptc}
    with atomic_path(path) as aside:
        tifftools.write_tiff(tiff, str(aside), allowExisting=True)


def _table_of(exif: bytes) -> dict[str, Any]:
    """The first table of a block, as tifftools has it; empty where it is damaged."""
    with suppress(Exception):
        table: dict[str, Any] = read_tables(io.BytesIO(exif.removeprefix(_START)))["ifds"][0]
        return table
    return {}


def read_tables(file: BinaryIO) -> dict[str, Any]:
    """The tables of an open TIFF file or EXIF block, as tifftools has them, which raises all kinds of errors."""
    import tifftools

    tables: dict[str, Any] = tifftools.read_tiff(_Guarded(file))
    return tables


class _Guarded:
    """A file that refuses to be read at one place again and again: a table may link to itself, for ever."""

    MOST_VISITS = 1000  # pages may share a table

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.read, self.tell = file, file.read, file.tell
        self.seekable, self.truncate = file.seekable, file.truncate  # without which tifftools takes a copy
        self._visits: Counter[int] = Counter()

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._visits[place] += 1
        if self._visits[place] > self.MOST_VISITS:
            raise ValueError("tables that link in a circle")
        return self._file.seek(place, whence)


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
