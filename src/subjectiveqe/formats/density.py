"""Print resolution: whether a file tells it, and how a file leaves it untold; libvips makes up 72 or 25.4 dpi."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from .exif import density_of
from .jpegsegments import read_application
from .pngchunks import read_chunk, replace_chunk

if TYPE_CHECKING:
    import pyvips

UNTOLD = (1.0, 1.0)
"""Pixels per millimetre across and down where a file does not tell them, as libvips has it of most formats."""

_LEAST, _MOST = 0.01, 10_000
"""What is beyond is damage, and no format's number is too small for what is between."""

_PER_METRE = 1
_PER_UNIT = {1: 25.4, 2: 10.0}
"""Millimetres in an inch and a centimetre, by JFIF's numbers for them."""


def read_density(path: Path, kind: str, image: pyvips.Image) -> tuple[float, float]:
    """Pixels per millimetre across and down, as a file tells them in its format's way or else by EXIF."""
    exif = bytes(image.get("exif-data")) if image.get_typeof("exif-data") else b""
    if kind == "png":
        told = _of_png(path)
    elif kind == "jpeg":
        told = _of_jpeg(path)
    else:
        told = (image.xres, image.yres) if image.get_typeof("resolution-unit") and not exif else None
    for density in (told, density_of(exif)):
        if density and density != UNTOLD and all(_LEAST <= per_mm <= _MOST for per_mm in density):
            return density
    return UNTOLD


def _of_png(path: Path) -> tuple[float, float] | None:
    content = read_chunk(path, b"pHYs") or b""
    if len(content) != 9 or content[8] != _PER_METRE:
        return None
    across, down = struct.unpack(">II", content[:8])
    return across / 1000, down / 1000


def _of_jpeg(path: Path) -> tuple[float, float] | None:
    content = next(iter(read_application(path, 0, b"JFIF\0")), b"")
    if len(content) < 7 or content[2] not in _PER_UNIT:
        return None
    across, down = struct.unpack(">HH", content[3:7])
    return across / _PER_UNIT[content[2]], down / _PER_UNIT[content[2]]


def leave_untold(path: Path, format_out: str) -> None:
    """Makes a PNG or TIFF file that libvips has written say that its pixels are square, and no more."""
    if format_out == "png":
        replace_chunk(path, b"pHYs", struct.pack(">IIB", 1, 1, 0))
    if format_out == "tiff":
        import tifftools

        tiff = tifftools.read_tiff(str(path))
        with path.open("rb+") as file:
            for table in tiff["ifds"]:
                file.seek(table["tags"][0x0128]["datapos"])
                file.write(struct.pack(f"{tiff['endianPack']}H", 1))
