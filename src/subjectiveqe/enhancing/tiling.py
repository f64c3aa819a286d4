"""Cutting a picture into overlapping tiles of one shape, so that memory is bounded and no edge can be seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..formats.rows import Pixels

LEAST_OVERLAPS = 5
"""How many overlaps a tile is high at least: of five, two are for its neighbours."""

_WRITTEN_ROWS = 64
"""How many rows of a tile are put in their place at a time: the floats of all would be a second output in memory."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in px: what the network reads, what of it is kept, how much of that fades in."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int
    fade_px: int


@dataclass(frozen=True)
class Tile:
    """One tile of a picture: its rows and its columns."""

    rows: Span
    cols: Span

    def read(self, strip: Pixels) -> NDArray[np.float32]:
        """The tile as the network takes it: float32 (1, 3, h, w) in [0, 1]; the last pixels go on past the picture.

        Args:
            strip: the picture's rows from `rows.start` on, to `rows.stop` or the picture's end; uint8 or uint16,
                (h, W, 3).
        """
        part = strip[:, self.cols.start : self.cols.stop]
        missing = (self.rows.stop - self.rows.start - part.shape[0], self.cols.stop - self.cols.start - part.shape[1])
        if any(missing):
            part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        lq = np.ascontiguousarray(part.transpose(2, 0, 1)[None], np.float32)
        lq /= np.iinfo(strip.dtype).max
        return lq

    def write(self, out: NDArray[np.float32], strip: NDArray[np.uint16]) -> None:
        """Puts the kept part of the network's output, rounded and clipped, into a strip of the result.

        Args:
            out: float32, (1, 3, h, w), in [0, 1] or a little beyond.
            strip: the result's rows from `rows.keep_start` on, (h, W, 3), 65535 for white. What fades in meets there
                what the tiles before have left.
        """
        rows, cols = self.rows, self.cols
        peak = np.iinfo(strip.dtype).max
        inner = out[0, :, rows.keep_start - rows.start :, cols.keep_start - cols.start :]
        place = strip[:, cols.keep_start : cols.keep_stop]
        fades = bool(rows.fade_px or cols.fade_px)
        down, across = _ramp(len(place), rows.fade_px), _ramp(place.shape[1], cols.fade_px)
        for top in range(0, len(place), _WRITTEN_ROWS):
            some = place[top : top + _WRITTEN_ROWS]
            levels = inner[:, top : top + len(some), : some.shape[1]].transpose(1, 2, 0) * np.float32(peak)
            if fades:
                levels -= some
                levels *= (down[top : top + len(some), None] * across)[..., None]
                levels += some
            np.rint(levels, out=levels)
            np.clip(levels, 0, peak, out=levels)
            some[...] = levels


def plan_tiles(
    height: int,
    width: int,
    *,
    overlap_px: int,
    stride_px: int,
    tile_px: int | None,
    max_area: int,
    max_rows: int | None = None,
) -> list[Tile]:
    """Cuts a picture into tiles that all have the same shape and start on multiples of the stride.

    One shape lets the runtime plan its memory once; starts on the stride keep the codec's grid where the network saw
    it. At the picture's own border there is no overlap, so that a tile sees it as a whole picture would show it.

    Args:
        height: of the picture, in px.
        width: of the picture, in px.
        overlap_px: how far from an output pixel an input pixel may still count; two neighbours share twice that.
        stride_px: of the network.
        tile_px: side of what is kept of an inner tile; 0 for the whole picture at once; None for as few pixels in all
            as `max_area` allows.
        max_area: largest tile in px, with its overlap. Where it leaves no room for the overlap, that is cut to a
            quarter of the tile and neighbours fade into each other.
        max_rows: tallest tile in px where several rows of tiles are needed, but never less than `LEAST_OVERLAPS`.
    """
    cells = tuple(-(-side // stride_px) for side in (height, width))  # the picture in cells of the stride
    overlap, fade = -(-overlap_px // stride_px), 0
    if tile_px is not None:
        tile = -(-tile_px // stride_px) + 2 * overlap if tile_px else max(cells)
        counts = [_fewest(side, tile, overlap) for side in cells]
    else:
        area = max(max_area // stride_px**2, 1)
        side = math.isqrt(area)
        if cells[0] * cells[1] > area and side < 4 * overlap:
            overlap = max(side // 4, 1)
            fade = overlap * stride_px
        tallest = cells[0] if max_rows is None else max(max_rows // stride_px, LEAST_OVERLAPS * overlap)
        counts = _cheapest(cells, area, overlap, tallest)
    rows, cols = (list(_spans(c, n, overlap, stride_px, fade)) for c, n in zip(cells, counts, strict=True))
    return [Tile(row, col) for row in rows for col in cols]


def _length(cells: int, count: int, overlap: int) -> int:
    """Cells a tile is long when `count` of them, two overlaps shared between neighbours, cover `cells`."""
    return -(-(cells + 2 * overlap * (count - 1)) // count)


def _fewest(cells: int, tile: int, overlap: int) -> int:
    """The fewest tiles no longer than `tile`."""
    return 1 if cells <= tile else -(-(cells - 2 * overlap) // (tile - 2 * overlap))


def _cheapest(cells: tuple[int, ...], area: int, overlap: int, tallest: int) -> list[int]:
    """Counts of rows and columns of tiles, none above `area` or `tallest`, that together read the fewest cells."""
    best: tuple[int, list[int]] | None = None
    for rows in range(1, cells[0] + 1):
        tall = _length(cells[0], rows, overlap)
        if rows > 1 and tall <= 2 * overlap:  # more rows do not make a tile shorter than its overlap
            break
        if tall > tallest:
            continue
        wide = area // tall
        if wide >= cells[1] or wide > 2 * overlap:
            cols = _fewest(cells[1], wide, overlap)
            cost = rows * cols * tall * _length(cells[1], cols, overlap)
            if best is None or cost < best[0]:
                best = (cost, [rows, cols])
    return best[1] if best else [_fewest(side, 2 * overlap + 1, overlap) for side in cells]


def _spans(cells: int, count: int, overlap: int, stride_px: int, fade_px: int) -> Iterator[Span]:
    tile = _length(cells, count, overlap)
    starts = [min(k * (tile - 2 * overlap), cells - tile) for k in range(count)]
    for k, start in enumerate(starts):
        # Neighbours meet one overlap away from their own edges, or fade over the middle half of what they share.
        keep_start = (start + overlap) * stride_px - fade_px // 2 if k else 0
        keep_stop = (
            (starts[k + 1] + overlap) * stride_px - fade_px // 2 + fade_px if k + 1 < count else cells * stride_px
        )
        yield Span(start * stride_px, (start + tile) * stride_px, keep_start, keep_stop, fade_px if k else 0)


def _ramp(length: int, fade_px: int) -> NDArray[np.float32]:
    """Weights that rise over the first `fade_px` pixels and stay at one."""
    ramp = np.ones(length, np.float32)
    fade = min(fade_px, length)
    ramp[:fade] = (np.arange(fade, dtype=np.float32) + 0.5) / max(fade_px, 1)
    return ramp
