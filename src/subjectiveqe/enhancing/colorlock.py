"""Keeping the colours of a picture: seen from afar, the result is the input.

Compression takes detail and leaves the broad colours as they are, so whatever a network changes of those is its own
mistake: a tint, or a sky a level brighter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..photos import Pixels

_CELL_PX = 8
"""Side of the cells in which the drift is measured."""

_SIGMA, _RADIUS = 2.55, 8
"""Of the Gaussian, in cells: narrower than the one behind which colours are promised to be kept, and not much, since
what a network changes over fewer pixels is mostly a correction."""

_STEPS = (1.25, 1.25, 1.0)
"""How much of the drift that is left is taken out each time. More than all of it at first: behind the Gaussian it looks
smaller than it is. Of any drift less than a fiftieth is then left behind the wider one, and none of a tint."""

_LEFT = 0.18 * 257
"""Drift that is left where it is, of 65535 (0.18 of an 8-bit level): the promise is a quarter of a level."""

_ROOM = 340
"""How far from white, or black, a pixel has to be that can become brighter, or darker."""

_REACH = len(_STEPS) * _RADIUS + 1
"""How many rows of cells below a row have a say in its correction."""


class ColorLock:
    """Takes out of a result what differs from the input over tens of pixels, strip by strip; no tile can be seen in it.

    The correction is the drift behind a Gaussian of sigma 20 px, but for 0.18 of a level, and what that leaves of
    it twice more: white pixels cannot become brighter and black ones not darker, so others have to make up for them.
    Results wait for the 200 rows below them.

    Args:
        height: of the picture, in px.
        dtype: of the rows that are given back, uint8 or uint16.
    """

    def __init__(self, height: int, dtype: np.dtype) -> None:
        self._missing = height
        self._dtype = dtype
        self._unmeasured: tuple[Pixels, Pixels] | None = None
        """Rows of the input and the result that make no whole cell yet."""
        self._rows = np.zeros((0, 0, 3), np.uint16)
        """Of the result, waiting to be given back."""
        self._drift = np.zeros((0, 0, 10), np.float32)
        """In cells, from `_above` rows of cells above the first of `_rows`: input minus result, the shares of pixels
        that can become brighter and darker, and how much of the cell lies in the picture."""
        self._above = 0

    def __call__(self, lq: Pixels, out: NDArray[np.uint16]) -> Pixels:
        """Takes the next rows and gives back those that are done; all are when the last have come.

        Args:
            lq: rows of the input, (n, W, 3).
            out: the same rows of the result, 65535 for white whatever the input's type.
        Returns:
            (m, W, 3), corrected and rounded.
        """
        self._missing -= len(out)
        self._rows = np.concatenate((self._rows.reshape(-1, *out.shape[1:]), out))
        self._measure(lq, out)
        cells = len(self._drift) if self._missing == 0 else max(len(self._drift) - _REACH, self._above)
        correction = _smooth(self._drift)[max(self._above - 1, 0) : cells + 1]
        rows = self._rows[: (cells - self._above) * _CELL_PX]
        self._rows = self._rows[len(rows) :].copy()  # a view would keep all of them
        done = _add(rows, correction, first=min(self._above, 1), dtype=self._dtype)
        kept = min(cells, _REACH)
        self._drift, self._above = self._drift[cells - kept :], kept
        return done

    def _measure(self, lq: Pixels, out: NDArray[np.uint16]) -> None:
        """Adds the drift of all rows of cells that are complete."""
        lq, out = (
            np.concatenate((old, new))
            for old, new in zip(self._unmeasured or (lq[:0], out[:0]), (lq, out), strict=True)
        )
        whole = len(lq) if self._missing == 0 else len(lq) // _CELL_PX * _CELL_PX
        self._unmeasured = (lq[whole:].copy(), out[whole:].copy())
        scale = np.iinfo(np.uint16).max // np.iinfo(lq.dtype).max
        means = _cell_means(lq[:whole]) * scale - _cell_means(out[:whole])
        white = np.iinfo(np.uint16).max
        room = [_cell_means(can_move) for can_move in (out[:whole] < white - _ROOM, out[:whole] > _ROOM)]
        drift = np.concatenate((means, *room, _inside(whole, lq.shape[1])), axis=2).astype(np.float32)
        self._drift = np.concatenate((self._drift.reshape(-1, *drift.shape[1:]), drift))


def _cell_means(rows: Pixels) -> NDArray[np.float64]:
    """(H, W, 3) -> (cells, cells, 3); the last cell of a row and of a column may be small."""
    height, width, _ = rows.shape
    whole = height // _CELL_PX * _CELL_PX
    type_of_sums = {1: np.uint16, 2: np.uint32}[rows.itemsize]  # the narrower, the faster
    sums = rows[:whole].reshape(-1, _CELL_PX, width * 3).sum(1, dtype=type_of_sums)  # eight times as fast as reduceat
    if whole < height:
        sums = np.concatenate((sums, rows[whole:].reshape(1, -1, width * 3).sum(1, dtype=type_of_sums)))
    starts = np.arange(0, width, _CELL_PX)
    sums = np.add.reduceat(sums.reshape(-1, width, 3), starts, axis=1, dtype=np.uint32)
    means: NDArray[np.float64] = sums / (_inside(height, width) * _CELL_PX**2)
    return means


def _inside(height: int, width: int) -> NDArray[np.float64]:
    """(cells, cells, 1), how much of each cell lies in the picture."""
    tall, wide = (np.minimum(1, side / _CELL_PX - np.arange(-(-side // _CELL_PX))) for side in (height, width))
    shares: NDArray[np.float64] = np.outer(tall, wide)[..., None]
    return shares


def _smooth(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """(rows, columns, 10) as `ColorLock` has them -> the correction, (rows, columns, 3)."""
    drift, brighter, darker, inside = np.split(cells, (3, 6, 9), axis=2)
    total = _blur(inside)
    correction = np.zeros_like(drift)
    for step in _STEPS:
        done = correction * np.where(correction > 0, brighter, darker)
        left = _blur((drift - done) * inside) / total
        correction += step * (left - np.clip(left, -_LEFT, _LEFT))
    return correction


def _blur(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gaussian over rows and columns, mirrored at the borders."""
    taps = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2).astype(np.float32)
    taps /= taps.sum()
    for axis in (0, 1):
        if length := cells.shape[axis]:
            pad = [(_RADIUS, _RADIUS) if axis == number else (0, 0) for number in range(3)]
            wide = np.pad(cells, pad, mode="symmetric")
            cells, share = np.zeros_like(cells), np.empty_like(cells)
            for first, tap in enumerate(taps):
                cells += np.multiply(
                    tap, wide[:, first : first + length] if axis else wide[first : first + length], out=share
                )
    return cells


def _add(rows: NDArray[np.uint16], correction: NDArray[np.float32], first: int, dtype: np.dtype) -> Pixels:
    """Rows plus the correction, interpolated between the middles of cells and rounded to levels of `dtype`.

    Args:
        rows: (n, W, 3).
        correction: of the cells from `first` rows of cells above `rows` to one below, if there is one.
        first: 0 at the picture's top, else 1.
        dtype: uint8 or uint16.
    """
    height, width, _ = rows.shape
    scale = np.iinfo(np.uint16).max // np.iinfo(dtype).max
    done = np.empty(rows.shape, dtype)
    if not height:
        return done
    upper, lower, down = _between(height, first, len(correction))
    left, right, across = _between(width, 0, correction.shape[1])
    correction = correction / np.float32(scale)
    wide, at_left = correction.take(right, axis=1), correction.take(left, axis=1)
    wide -= at_left
    wide *= np.repeat(across, 3).reshape(width, 3)
    wide += at_left
    ends = [*np.flatnonzero(np.diff(upper)) + 1, height]
    tallest = np.diff([0, *ends]).max()
    buffers = np.empty((2, tallest, width, 3), np.float32)  # new ones for each few rows would take most of the time
    for top, end in zip([0, *ends[:-1]], ends, strict=True):  # rows between the same two cells
        start, slope = wide[upper[top]], wide[lower[top]] - wide[upper[top]]
        values, levels = buffers[:, : end - top]
        np.multiply(slope, down[top:end, None, None], out=values)
        values += start
        values += np.multiply(rows[top:end], np.float32(1 / scale), out=levels)
        np.rint(values, out=values)
        done[top:end] = np.clip(values, 0, np.iinfo(dtype).max, out=values)
    return done


def _between(length: int, first: int, cells: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each pixel the cells before and behind it, and how far it is on the way between their middles, 0..1."""
    place = (np.arange(length) + 0.5) / _CELL_PX - 0.5 + first
    place = np.clip(place, 0, cells - 1)
    before = place.astype(np.intp)
    return before, np.minimum(before + 1, cells - 1), (place - before).astype(np.float32)
