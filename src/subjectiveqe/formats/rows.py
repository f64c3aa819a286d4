"""Rows of a picture as they are read from its file, with the colours that are seen of what is transparent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, first_line
from ..processes import check_vips

if TYPE_CHECKING:
    import pyvips

Pixels: TypeAlias = NDArray[Any]
"""Rows of a picture, uint8 or uint16, (H, W, C): C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha."""

_ROWS, _LEAST_ROWS, _READ_PX = 64, 8, 2**18
"""Rows that are read at a time, fewer of wide pictures: libvips holds dozens of copies of what it is asked for."""

_HIDDEN_SIGMA_PX = 4


def with_seen_colours(image: pyvips.Image) -> pyvips.Image:
    """Adds the colours once more, where hidden ones are a mean of the visible ones around, weighted by alpha."""
    # The blur looks back and ahead by less than _ROWS; a file is read once from top to bottom.
    image = image.tilecache(tile_width=image.width, tile_height=_ROWS, max_tiles=4, access="sequential")
    colours, alpha = image[: image.bands - 1], image[image.bands - 1]
    weight = alpha / (65535 if image.format == "ushort" else 255)
    around = (colours * weight).gaussblur(_HIDDEN_SIGMA_PX) / (weight.gaussblur(_HIDDEN_SIGMA_PX) + 1e-6)
    return image.bandjoin((alpha > 0).ifthenelse(colours, around.rint().cast(image.format)))


def seen_colours(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours of a picture as an `Enhancer` takes them: what nobody sees does not bleed into what is seen.

    Args:
        rgba: uint8, (H, W, 4).
    Returns:
        uint8, (H, W, 3); where alpha is 0, a mean of what is visible around.
    """
    import pyvips

    check_vips()
    image = pyvips.Image.new_from_array(np.ascontiguousarray(rgba), interpretation="srgb")
    return np.ascontiguousarray(with_seen_colours(image).numpy()[..., 4:])


def reader(path: Path, image: pyvips.Image) -> tuple[Callable[[int], Pixels], Callable[[], None]]:
    """The function that gives the next rows of a picture, and the one that ends reading.

    A region of libvips belongs to the thread that made it and holds memory of that thread's: it is made by the first
    call and has to be gone before its thread is, or the process crashes.
    """
    import pyvips

    region: list[pyvips.Region] = []
    unread = [image]  # until reading ends: it keeps the file open
    del image
    height, width, bands = unread[0].height, unread[0].width, unread[0].bands
    dtype = np.uint16 if unread[0].format == "ushort" else np.uint8
    top = 0

    def read(count: int) -> Pixels:
        nonlocal top
        if not region and unread:
            region.append(pyvips.Region.new(unread[0]))
        strips = []
        most = max(min(_READ_PX // width, _ROWS), _LEAST_ROWS)
        stop = min(top + count, height)
        while top < stop:
            rows = min(most, stop - top)
            try:
                data = region[0].fetch(0, top, width, rows)
            except pyvips.Error as error:
                raise ImageError(f"{path}: cannot be decoded ({first_line(error)})") from None
            strips.append(np.frombuffer(bytes(data), dtype).reshape(rows, width, bands))
            top += rows
        return np.concatenate(strips) if strips else np.empty((0, width, bands), dtype)

    def close() -> None:
        region.clear()
        unread.clear()

    return read, close
