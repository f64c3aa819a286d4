"""Segments of a JPEG file that are carried as the bytes they are; libvips neither reads nor writes most of them."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..files import atomic_path

_START, _COMMENT, _TABLES, _SCAN = b"\xff\xd8", 0xFE, 0xDB, 0xDA
_APPLICATION = range(0xE0, 0xF0)
"""Markers of JFIF, EXIF, XMP and profiles, which readers want first."""

MOST_BYTES = 65533
"""Of one segment: its length has 16 bits and counts itself."""

GAIN_MAP = "its HDR gain map"
_ISO_GAIN_MAP, _PICTURES = b"urn:iso:std:iso:ts:21496", b"MPF\0"
_TABLE_OF_PICTURES = 0xB002
_PREVIEW = 0x01


def read_comments(path: Path) -> tuple[bytes, ...]:
    """The comment segments of a JPEG file, each whole; those before what is damaged."""
    with path.open("rb") as file:
        return tuple(segment for segment in _segments(file) if segment[1] == _COMMENT)


def read_application(path: Path, number: int, name: bytes) -> tuple[bytes, ...]:
    """What segments APP0 to APP15 of a JPEG file that begin with a name say after it."""
    with path.open("rb") as file:
        contents = [segment[4:] for segment in _segments(file) if segment[1] == _APPLICATION[number]]
    return tuple(content[len(name) :] for content in contents if content.startswith(name))


def quantisers(file: BinaryIO) -> dict[int, bytes]:
    """The quantisation tables of a JPEG file by their numbers, each as its bytes; those before what is damaged.

    Source: ITU-T T.81, section B.2.4.1.
    """
    tables = {}
    for content in (segment[4:] for segment in _segments(file) if segment[1] == _TABLES):
        place = 0
        while place < len(content):
            wide, number = divmod(content[place], 16)
            end = place + 1 + 64 * (1 + wide)
            tables[number] = content[place + 1 : end]
            place = end
    return tables


def segment(marker: int, content: bytes) -> bytes:
    """A segment of at most `MOST_BYTES`."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def application(number: int, content: bytes) -> bytes:
    """A segment APP0 to APP15."""
    return segment(_APPLICATION[number], content)


def jfif(density: tuple[float, float]) -> bytes:
    """The segment that says how many pixels there are in a millimetre across and down, by whole dots per inch."""
    dpi = (min(max(round(per_mm * 25.4), 1), 65535) for per_mm in density)
    return application(0, b"JFIF\0" + struct.pack(">BBBHHBB", 1, 1, 1, *dpi, 0, 0))


def add_segments(path: Path, first: Iterable[bytes], comments: Iterable[bytes]) -> None:
    """Puts segments into a JPEG file at its start and behind those of applications; it is written anew."""
    with atomic_path(path) as aside, path.open("rb") as old, aside.open("wb") as new:
        new.write(_START)
        new.writelines(first)
        end = len(_START)
        for one in _segments(old):
            if one[1] not in _APPLICATION:
                break
            new.write(one)
            end += len(one)
        new.writelines(comments)
        old.seek(end)
        shutil.copyfileobj(old, new, 2**20)


def other_pictures(path: Path) -> tuple[str, ...]:
    """Names what a JPEG file has behind its picture, where it says so outside of XMP; previews are no matter.

    Source: ISO 21496-1 (gain maps); CIPA DC-007, "Multi-Picture Format", sec. 5.2.3.
    """
    if read_application(path, 2, _ISO_GAIN_MAP):
        return (GAIN_MAP,)
    for table in read_application(path, 2, _PICTURES):
        with suppress(struct.error, IndexError):  # damaged; viewers will not find them either
            if set(_kinds_of_pictures(table)[1:]) - {_PREVIEW}:
                return ("its second picture (MPO)",)
    return ()


def _kinds_of_pictures(table: bytes) -> list[int]:
    """For each picture of a multi-picture file what it is for; the first is the one that is shown."""
    order = ">" if table[:2] == b"MM" else "<"
    (place,) = struct.unpack_from(f"{order}I", table, 4)
    (count,) = struct.unpack_from(f"{order}H", table, place)
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, _, size, start = struct.unpack_from(f"{order}HHII", table, entry)
        if tag == _TABLE_OF_PICTURES:
            attributes = [struct.unpack_from(f"{order}I", table, start + 16 * k)[0] for k in range(size // 16)]
            return [attribute >> 16 & 0xFF for attribute in attributes]
    return []


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
