"""Results that a JPEG file does not contradict: what it says of luma is kept to the last coefficient.

A JPEG file gives each DCT coefficient as a multiple of a step, and thereby an interval it was in before it was rounded.
An enhanced picture whose coefficients lie in these intervals could have been the original, for all the file knows.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..color import LUMA
from ..errors import PICTURE_FAILED, ConfigError, ImageError, first_line
from ..formats.photos import TURNED_BY_VIEWERS, becomes_srgb
from ..formats.rows import Pixels
from ..images import open_picture, sniff_format
from .blocks import BLOCK_PX, dct, inverse_dct, to_blocks, to_plane
from .network import Floats

_JUDGED_PX = 512
"""Side of the picture's middle that LPIPS is taken of."""

_LUMA = np.array(LUMA, np.float32)

_MARGINS = np.geomspace(0.8, 5, 16)
"""How far inside its interval a coefficient is put, in each round, since rounding the pixels moves it again, with a
standard deviation of 0.29. What is outside after that gets the next, wider margin."""

_WIDEST_MARGIN = 0.45
"""In steps: fine quantisers leave no room for more."""


def check_jpeglib() -> None:
    """Raises ConfigError where what reads the coefficients is not installed."""
    if importlib.util.find_spec("jpeglib") is None:
        raise ConfigError('--faithful needs jpeglib; run: pip install "subjectiveqe[faithful]"')


@dataclass
class Faithfulness:
    """What it took to keep to a file, and whether it worked.

    Attributes:
        coefficients: of luma in the file.
        moved: of these, how many the network had put outside their intervals.
        missed: how many still are; they are off by one step, where colours at the end of their range leave no room.
        lpips: between the result without and with that, of the picture's middle; None for pictures too small to tell.
    """

    coefficients: int = 0
    moved: int = 0
    missed: int = 0
    lpips: float | None = None

    def __str__(self) -> str:
        """One line."""
        moved, kept = (100 * part / max(self.coefficients, 1) for part in (self.moved, self.coefficients - self.missed))
        looks = "" if self.lpips is None else f", LPIPS to the result without is {self.lpips:.4f}"
        counts = f"{self.moved} of {self.coefficients} luma coefficients ({moved:.2f} %) were moved back"
        return f"{counts}, {kept:.3f} % agree with the file{looks}"


class LumaIntervals:
    """The intervals of a JPEG file's luma coefficients, 2 bytes in memory for each.

    Args:
        path: of the file; gray, or YCbCr as JFIF has it.
        format_out: what the result will be written in.
    Raises:
        ConfigError: jpeglib is not installed.
        ImageError: no such file, or its pixels do not lie in the result as they do in the file.
    """

    def __init__(self, path: Path, format_out: str) -> None:
        if sniff_format(path) != "jpeg":
            raise ImageError(f"{path}: is no JPEG, there are no coefficients to be faithful to")
        check_jpeglib()
        import jpeglib

        image = open_picture(path)
        turned = image.get("orientation") if image.get_typeof("orientation") else 1
        if turned > 1 and format_out not in TURNED_BY_VIEWERS:
            raise ImageError(
                f"{path}: lies turned in its file and would be upright in {format_out}; take --format jpeg"
            )
        if becomes_srgb(image, format_out):
            raise ImageError(
                f"{path}: {format_out} does not take its profile and gets other colours; take --format png"
            )
        try:
            jpeg = jpeglib.read_dct(str(path))
        except OSError as error:
            raise ImageError(f"{path}: its coefficients cannot be read ({first_line(error)})") from None
        if jpeg.jpeg_color_space.name not in ("JCS_YCbCr", "JCS_GRAYSCALE"):
            raise ImageError(f"{path}: has no luma ({jpeg.jpeg_color_space.name}); leave --faithful away")
        blocks = (-(-image.height // BLOCK_PX), -(-image.width // BLOCK_PX))
        if any(there < needed for there, needed in zip(jpeg.Y.shape, blocks, strict=False)):
            raise ImageError(f"{path}: holds luma at a lower resolution than colours; leave --faithful away")
        self._levels = jpeg.Y
        self._middle = tuple(_middle(side) for side in (image.height, image.width))
        self._steps = jpeg.get_component_qt(0).astype(np.float32)

    def keep(self, strips: Iterable[Pixels], report: Faithfulness) -> Iterator[Pixels]:
        """Moves the luma of a result into the intervals; its chroma stays.

        Args:
            strips: uint8, (n, W, 1) or (n, W, 3), from top to bottom of the picture.
            report: what happens is added to it.
        Yields:
            The same rows, in strips of their own.
        """
        waiting: list[Pixels] = []
        block_row = 0
        compared: tuple[list[Pixels], list[Pixels]] = ([], [])
        strips = iter(strips)
        strip: Pixels | None = next(strips)
        while strip is not None:
            waiting.append(strip)
            strip = next(strips, None)
            rows = np.concatenate(waiting)
            whole = len(rows) if strip is None else len(rows) // BLOCK_PX * BLOCK_PX
            waiting = [rows[whole:]]
            blocks = -(-whole // BLOCK_PX)
            levels = self._levels[block_row : block_row + blocks]
            if whole:
                projected = self._project(rows[:whole], levels, report)
                for pieces, piece in zip(compared, (rows[:whole], projected), strict=True):
                    pieces.append(self._of_middle(piece, block_row * BLOCK_PX))
                yield projected
            block_row += blocks
        with suppress(*PICTURE_FAILED):  # the picture is finished, and does not depend on the judge
            report.lpips = _distance(*map(np.concatenate, compared))

    def _of_middle(self, rows: Pixels, top: int) -> Pixels:
        """What of rows, of which the first is number `top`, belongs to the picture's middle."""
        middle, cols = self._middle
        return rows[max(middle.start - top, 0) : max(middle.stop - top, 0), cols].copy()

    def _project(self, rows: Pixels, levels: NDArray[np.int16], report: Faithfulness) -> Pixels:
        luma = rows @ _LUMA if rows.shape[2] == 3 else rows[..., 0].astype(np.float32)
        height, width = luma.shape
        blocks = to_blocks(luma)
        wanted = levels[:, : math.ceil(width / BLOCK_PX)].reshape(blocks.shape).astype(np.float32)
        outside = self._outside(blocks, wanted)
        report.coefficients += wanted.size
        report.moved += int(outside.sum())
        bad = np.flatnonzero(outside.any((1, 2)))
        for margin in _MARGINS:
            if not len(bad):
                break
            middle = wanted[bad] * self._steps
            room = 0.5 * self._steps - np.minimum(margin, _WIDEST_MARGIN * self._steps)
            blocks[bad] = inverse_dct(np.clip(dct(blocks[bad]), middle - room, middle + room)).clip(0, 255)
            if height % BLOCK_PX or width % BLOCK_PX:
                blocks = to_blocks(_tie_ends(to_plane(blocks, width), height, width))
            bad = bad[self._outside(blocks[bad], wanted[bad]).any((1, 2))]
        report.missed += int(self._outside(blocks[bad], wanted[bad]).sum())
        target = np.rint(to_plane(blocks, width)[:height, :width])
        changed = target != np.rint(luma)
        result = rows.copy()
        result[changed] = _recolour(rows[changed], luma[changed], target[changed])
        return result

    def _outside(self, blocks: Floats, wanted: Floats) -> NDArray[np.bool_]:
        outside: NDArray[np.bool_] = np.rint(dct(np.rint(blocks)) / self._steps) != wanted
        return outside


def _middle(side: int) -> slice:
    first = max(side - _JUDGED_PX, 0) // 2
    return slice(first, first + _JUDGED_PX)


def _distance(before: Pixels, after: Pixels) -> float | None:
    """LPIPS between two pictures, (H, W, 1 or 3)."""
    from ..metrics import LPIPS_MIN_PX, lpips  # which a start without --faithful need not wait for

    if min(before.shape[:2]) < LPIPS_MIN_PX:
        return None
    first, second = (np.broadcast_to(rows, (*rows.shape[:2], 3)) for rows in (before, after))
    return lpips(first, second)


def _recolour(pixels: Pixels, luma: Floats, target: Floats) -> Pixels:
    """Gives pixels another luma, to a tenth of a level, so that a JPEG encoder rounds it to what it was meant to be.

    Args:
        pixels: uint8, (n, 1) or (n, 3).
        luma: theirs, (n,).
        target: whole levels, (n,).
    Returns:
        uint8 of the same shape. Chroma stays, but for what does not fit into 0..255 and a level of rounding.
    """
    if pixels.shape[1] == 1:
        return target.astype(np.uint8)[:, None]
    chroma = pixels - luma[:, None]
    room = np.where(chroma > 0, 255 - target[:, None], target[:, None])
    share = np.min(room / np.maximum(np.abs(chroma), 1e-3), axis=1).clip(0, 1)
    colours = np.floor(target[:, None] + share[:, None] * chroma)
    missing = target - colours @ _LUMA
    nearest = np.searchsorted((_SUMS[1:] + _SUMS[:-1]) / 2, missing)
    recoloured: Pixels = np.clip(colours + _STEPS_UP[nearest], 0, 255).astype(np.uint8)
    return recoloured


_STEPS_UP = np.array([[n & 1, n >> 1 & 1, n >> 2 & 1] for n in range(8)], np.float32)
_STEPS_UP = _STEPS_UP[np.argsort(_STEPS_UP @ _LUMA)]
"""Which channels go up by one level, by how much luma that adds."""
_SUMS = _STEPS_UP @ _LUMA


def _tie_ends(plane: Floats, height: int, width: int) -> Floats:
    """The nearest plane whose rows and columns past the picture's end equal its last ones."""
    plane = plane.copy()
    plane[:, width - 1 :] = plane[:, width - 1 :].mean(1, keepdims=True)
    plane[height - 1 :] = plane[height - 1 :].mean(0, keepdims=True)
    return plane
