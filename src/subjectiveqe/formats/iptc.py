"""What agencies say of a picture (IPTC): bare records in a TIFF file, one of Photoshop's blocks in a JPEG file.

Source: IPTC, "Information Interchange Model" 4.2; Adobe, "Photoshop File Formats", image resource blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

_NAME, _BLOCK, _RECORD = b"Photoshop 3.0\0", b"8BIM", b"\x1c"
_IPTC = 0x0404
_THUMBNAILS = (0x0409, 0x040C)


def iptc_of_jpeg(segments: Iterable[bytes]) -> bytes:
    """Photoshop's blocks of a JPEG file, which go on from segment to segment, as one; of what follows their name."""
    content = b"".join(segments)
    return _NAME + content if content else b""


def photoshop_segments(data: bytes, most_bytes: int) -> list[bytes]:
    """The same the other way round: blocks as segments, of which none is cut that fits into one.

    Args:
        data: blocks with their name, as `iptc_for` gives them.
        most_bytes: of one segment, with the name that each has.
    """
    room = most_bytes - len(_NAME)
    blocks = [block for _, block, _ in _blocks(data)]
    blocks.append(data[len(_NAME) + sum(map(len, blocks)) :])  # what is damaged
    segments, last = [], b""
    for block in blocks:
        if len(last) + len(block) > room:
            segments.append(last)
            last = b""
        last += block
        while len(last) > room:
            segments.append(last[:room])
            last = last[room:]
    return [_NAME + part for part in (*segments, last) if part]


def iptc_records(data: bytes) -> bytes:
    """The bare records in what a JPEG or TIFF file holds of IPTC; none where it holds something else."""
    if data.startswith(_NAME):
        data = b"".join(content for number, _, content in _blocks(data) if number == _IPTC)
    return data if data.startswith(_RECORD) else b""


def iptc_for(data: bytes, format_out: str) -> bytes:
    """What a JPEG or TIFF file holds of IPTC, as another of the two does; nothing for formats without.

    A JPEG file's other blocks stay in a JPEG file, but for the small copy of the old pixels.
    """
    if format_out == "jpeg" and data.startswith(_NAME):
        for number, block, _ in _blocks(data):
            if number in _THUMBNAILS:
                data = data.replace(block, b"", 1)
        return data
    records = iptc_records(data)
    if format_out == "jpeg" and records:
        head = _BLOCK + struct.pack(">HHI", _IPTC, 0, len(records))  # the name between is empty
        return _NAME + head + records + b"\0" * (len(records) % 2)
    return records if format_out == "tiff" else b""


def _blocks(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, all bytes and content of each block before what is damaged."""
    place = len(_NAME)
    while data[place : place + 4] == _BLOCK and len(data) > place + 6:
        (number,) = struct.unpack_from(">H", data, place + 4)
        start = place + 6 + (data[place + 6] + 2) // 2 * 2  # the name's length counts neither itself nor its padding
        size = int.from_bytes(data[start : start + 4], "big")
        content = data[start + 4 : start + 4 + size]
        if len(content) < size or len(data) < start + 4:
            return
        end = start + 4 + (size + 1) // 2 * 2
        yield number, data[place:end], content
        place = end
