"""The chunks of a WebP file.

Source: Google, "WebP Container Specification".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..files import atomic_path

_HEADER_BYTES = 12
"""Of the file: RIFF, its length and WEBP."""

_FRAME_HEADER_BYTES = 16
"""Of an animation's frame, behind which its own chunks stand."""


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and length of what is in each chunk, with the file at that, those within frames among them.

    Callers may read on; the file goes to the next chunk from where this one began.
    """
    place = _HEADER_BYTES
    file.seek(place)
    while len(head := file.read(8)) == 8:
        name, length = head[:4], int.from_bytes(head[4:], "little")
        yield name, length
        place += 8 + (_FRAME_HEADER_BYTES if name == b"ANMF" else length + length % 2)
        file.seek(place)


def replace_chunk(path: Path, name: bytes, content: bytes) -> None:
    """Puts something in the place of the first chunk of a name; the file is written anew, or stays if it has none."""
    with path.open("rb") as file:
        place, end = next(
            ((file.tell() - 8, file.tell() + length) for kind, length in chunks(file) if kind == name), (0, 0)
        )
    if not end:
        return
    old = path.read_bytes()
    chunk = name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    body = old[8:place] + chunk + old[end + end % 2 :]
    with atomic_path(path) as aside:
        aside.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
