"""The only place where pictures are read from and written to files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import ImageError
from .files import atomic_path

if TYPE_CHECKING:
    import pyvips

RGB: TypeAlias = NDArray[np.uint8]
"""A picture as the whole package hands it around: uint8, (H, W, 3), sRGB."""

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm", ".gif"})


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """Paths of the picture files in a folder, by extension, sorted by name; hidden files are left out."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(p for p in found if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".") and p.is_file())


def open_picture(path: Path) -> pyvips.Image:
    """Opens a picture upright, for reading once from top to bottom; no pixel is decoded yet.

    Raises:
        ImageError: the file is missing, empty or of no format known here.
    """
    import pyvips

    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    try:
        return pyvips.Image.new_from_file(str(path), access="sequential", fail_on="error").autorot()
    except pyvips.Error as error:
        raise ImageError(f"{path}: cannot be read as a picture ({first_line(error)})") from None


def read_rgb(path: Path) -> RGB:
    """Reads any picture as 8-bit sRGB, upright; alpha is laid over white, extra pages are ignored.

    Returns:
        uint8, (H, W, 3).
    Raises:
        ImageError: the file is missing, damaged, cut short or no picture.
    """
    import pyvips

    picture = open_picture(path)
    try:
        if picture.hasalpha():
            white = 255 if picture.format == "uchar" else 65535
            picture = picture.flatten(background=white)
        pixels: RGB = picture.colourspace("srgb").cast("uchar").numpy()
    except pyvips.Error as error:
        raise ImageError(f"{path}: cannot be decoded ({first_line(error)})") from None
    return np.ascontiguousarray(pixels[..., :3])


def write_png(path: Path, rgb: RGB) -> None:
    """Writes a lossless PNG; the final name appears only when the file is complete.

    Args:
        path: where to; an existing file is replaced.
        rgb: uint8, (H, W, 3).
    """
    import pyvips

    with atomic_path(path) as aside:
        try:
            pyvips.Image.new_from_array(np.ascontiguousarray(rgb), interpretation="srgb").pngsave(str(aside), compression=4)
        except pyvips.Error as error:
            raise ImageError(f"{path}: cannot be written ({first_line(error)}); is the disk full?") from None


def first_line(error: Exception) -> str:
    """The first line of a library's message, which is the one that names the cause."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
