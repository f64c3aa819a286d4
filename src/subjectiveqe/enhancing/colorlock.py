"""Keeping the colours of a picture: seen from afar, the result is the input.

Compression takes detail and leaves the broad colours as they are, so whatever a network changes of those is its own
mistake: a tint, or a sky a level brighter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.rows import Pixels

_WHITE = np.iinfo(np.uint16).max

_CELL_PX, _HALF_PX = 8, 4
"""Side of the cells in which the drift is measured, and of half of one."""

_SIGMA, _RADIUS = 3.15, 9
"""Of the Gaussian, in cells: slightly narrower than the one (sigma 32 px) behind which colours are promised to be kept;
what a network changes over fewer pixels is mostly a correction."""

_STEPS = (1.0, 1.8, 2.4, 2.0, 1.4)
"""How much of the drift that is left is taken out each time. All of it once, or some of a tint would be left; then more
than all: behind the Gaussian what changes along the picture looks smaller than it is."""

_LEFT = 0.185 * 257
"""Drift that is left where it is, of 65535 (0.185 of an 8-bit level): the promise is a quarter of a level."""

_ROOM = (385, 1285)
"""How far pixels can become brighter, or darker, is counted up to these, of 65535: 1.5 and 5 levels of 8 bits."""

_REACH = len(_STEPS) * _RADIUS + 1
"""How many rows of cells below a row have a say in its correction."""


class ColorLock:
    """Takes out of a result what differs from the input over tens of pixels, strip by strip; no tile can be seen in it.

    The drift is blurred (sigma 25 px), and subtracted but for 0.185 of a level. The same is done to what is left of it,
    four times more: nearly white pixels cannot become much brighter, and white ones darker only by whole levels, so
    others have to make up for them. Results wait for the 376 rows below them.

    Args:
        height: of the picture, in px.
        dtype: of the rows that are given back, uint8 or uint16.
    """

    def __init__(self, height: int, dtype: np.dtype) -> None:
        self._missing = height
        self._overhang = -height % _CELL_PX
        """How far the last row of cells reaches beyond the picture, in px."""
        self._dtype = dtype
        self._level = _WHITE // np.iinfo(dtype).max
        self._unmeasured: tuple[Pixels, Pixels] | None = None
        """Rows of the input and the result that make no whole cell yet."""
        self._halves: NDArray[np.float32] | None = None
        """Rows of sums over halves of cells that the next row of cells is made of too."""
        self._rows = np.zeros((0, 0, 3), np.uint16)
        """Of the result, waiting to be given back."""
        self._drift = np.zeros((0, 0, 22), np.float32)
        """In cells, from `_above` rows of cells above the first of `_rows`: sums over a cell's pixels of input minus
        result, and how far they can become brighter, and darker, up to either of `_ROOM`; how many are black, white, in
        the picture."""
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
        self._measure(lq, out)
        self._rows = np.concatenate((self._rows.reshape(-1, *out.shape[1:]), out))
        cells = len(self._drift)
        measured = cells * _CELL_PX
        if self._missing:
            cells = max(cells - _REACH, self._above)
        else:
            measured -= self._overhang
        correction = _smooth(self._drift, (measured, lq.shape[1]), self._level)[max(self._above - 1, 0) : cells + 1]
        rows = self._rows[: (cells - self._above) * _CELL_PX]
        self._rows = self._rows[len(rows) :].copy()  # a view would keep all of them
        done = _add(rows, correction, first=min(self._above, 1), dtype=self._dtype)
        kept = min(cells, _REACH)
        self._drift, self._above = self._drift[cells - kept :].copy(), kept
        return done

    def _measure(self, lq: Pixels, out: NDArray[np.uint16]) -> None:
        """Adds the drift of all rows of cells that are complete."""
        if self._unmeasured is not None and len(self._unmeasured[0]):
            lq, out = (np.concatenate(rows) for rows in zip(self._unmeasured, (lq, out), strict=True))
        whole = len(lq) if self._missing == 0 else len(lq) // _CELL_PX * _CELL_PX
        self._unmeasured = (lq[whole:].copy(), out[whole:].copy())
        if not whole:
            return
        lq, out = lq[:whole], out[:whole]
        drift = _sums(lq).astype(np.float32) * self._level - _sums(out)  # whole numbers below 2^24
        room = [_sums(np.minimum(far, most), np.uint16) for far in (_WHITE - out, out) for most in _ROOM]
        pixels = np.multiply.outer(*map(_lengths, lq.shape[:2]))[..., None]
        counts = [_sums(out == 0), _sums(out == _WHITE), pixels]
        sums = np.concatenate((drift, *room, *counts), axis=2, dtype=np.float32)
        sums = _to_cells(_ended(np.concatenate((sums[:, :1], sums), axis=1).swapaxes(0, 1))).swapaxes(0, 1)
        halves = np.concatenate((sums[:1] if self._halves is None else self._halves, sums))
        cells = _to_cells(halves if self._missing else _ended(halves))
        self._halves = halves[2 * len(cells) :].copy()
        self._drift = np.concatenate((self._drift.reshape(-1, *sums.shape[1:]), cells))


def _sums(rows: Pixels | NDArray[np.bool_], kind: type[np.unsignedinteger] | None = None) -> NDArray[Any]:
    """(H, W, C) -> sums over squares of half a cell; the last of a row and of a column may be small.

    Args:
        rows: bool, uint8 or uint16.
        kind: type that holds all sums, if a smaller one does than for any rows of their type.
    """
    height, width, channels = rows.shape
    type_of_sums = kind or {"?": np.uint8, "B": np.uint16, "H": np.uint32}[rows.dtype.char]
    whole = height // _HALF_PX * _HALF_PX
    sums = rows[:whole].reshape(-1, _HALF_PX, width * channels).sum(1, dtype=type_of_sums)
    if whole < height:
        sums = np.concatenate((sums, rows[whole:].reshape(1, -1, width * channels).sum(1, dtype=type_of_sums)))
    sums = np.pad(sums.reshape(-1, width, channels), ((0, 0), (0, -width % _HALF_PX), (0, 0)))
    parts = [sums[:, first::_HALF_PX] for first in range(_HALF_PX)]
    # One channel at a time, since NumPy is slow where its innermost loop is over three numbers.
    return np.stack([sum(part[..., channel] for part in parts) for channel in range(channels)], axis=-1)


def _lengths(side: int) -> NDArray[np.uint8]:
    """In px, of the halves of cells along a side."""
    return np.minimum(_HALF_PX, side - np.arange(0, side, _HALF_PX)).astype(np.uint8)


def _ended(halves: NDArray[np.float32]) -> NDArray[np.float32]:
    """Halves of whole cells after the first, which is of the one before, and behind them the image of the last one."""
    if len(halves) % 2 == 0:
        return np.concatenate((halves, np.zeros((2, *halves.shape[1:]), halves.dtype)))
    return np.concatenate((halves, halves[-1:]))


def _to_cells(halves: NDArray[np.float32]) -> NDArray[np.float32]:
    """Makes cells of their halves: each half counts for the two cells that it lies between, for its own one more.

    So where a pixel lies is kept, which whole cells would lose: a drift that rises within each cell and falls back at
    its end, as between the blocks of a JPEG, would be none to them, and is one at the picture's border.

    Args:
        halves: those of all cells, one before the first and one behind the last, along the first axis.
    """
    count = (len(halves) - 2) // 2
    before, first, second, behind = (halves[k : k + 2 * count : 2] for k in range(4))
    cells, farther = first + second, before + behind
    cells *= 0.375
    farther *= 0.125
    cells += farther
    return cells


def _smooth(cells: NDArray[np.float32], size: tuple[int, int], level: int) -> NDArray[np.float32]:
    """Sums as `ColorLock` has them -> the correction of each cell, (rows, columns, 3).

    Args:
        cells: (rows, columns, 22).
        size: height and width in px of what was measured.
        level: to which the corrected pixels will be rounded, of 65535.
    """
    parts = np.split(cells, (3, 9, 15, 18, 21), axis=2)
    drift, brighter, darker, black, white, pixels = map(np.ascontiguousarray, parts)
    total = _blur(pixels, size)
    (near_up, far_up), (near_down, far_down) = _shares(brighter), _shares(darker)
    correction = np.zeros_like(drift)
    for step in _STEPS:
        up = correction > 0
        near = np.clip(correction, -_ROOM[0], _ROOM[0])
        done = near * np.where(up, near_up, near_down)
        done += (correction - near) * np.where(up, far_up, far_down)
        done += (_rounded(correction, level) - correction) * np.where(up, black, white)
        left = _blur(drift - done, size) / total
        correction += step * (left - np.clip(left, -_LEFT, _LEFT))
    return correction


def _shares(room: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How many pixels of each cell move with a correction up to the first of `_ROOM`, and from there on.

    Args:
        room: sums of how far they can, up to the first of `_ROOM` and up to the second, (rows, columns, 6).
    """
    near, far = map(np.float32, _ROOM)
    return room[..., :3] / near, (room[..., 3:] - room[..., :3]) / (far - near)


def _rounded(correction: NDArray[np.float32], level: int) -> NDArray[np.float32]:
    """What rounding leaves of the correction of a pixel of whole levels; less suddenly than it does, to settle."""
    size = np.abs(correction)
    return np.where(size < 0.6 * level, np.sign(correction) * np.maximum(3 * size - 1.2 * level, 0), correction)


def _blur(cells: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Gaussian over rows and columns, mirrored at the borders, the last of which may lie within the last cell."""
    taps = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2).astype(np.float32)
    taps /= taps.sum()
    for axis in (0, 1):
        if length := cells.shape[axis]:
            wide = _mirrored(cells, size[axis], axis)
            cells, share = np.zeros_like(cells), np.empty_like(cells)
            for first, tap in enumerate(taps):
                cells += np.multiply(
                    tap, wide[:, first : first + length] if axis else wide[first : first + length], out=share
                )
    return cells


def _mirrored(cells: NDArray[np.float32], size: int, axis: int) -> NDArray[np.float32]:
    """With `_RADIUS` more cells at both ends of the axis, along which `size` px lie in the picture."""
    length, more = cells.shape[axis], 2  # the border may lie within the last cell, and the image then begins before it
    pad = [(_RADIUS, _RADIUS + more) if axis == number else (0, 0) for number in range(3)]
    wide = np.pad(cells, pad, mode="symmetric")
    ends = np.moveaxis(wide, axis, 0)
    image = ends[_RADIUS + length :].copy()
    ends[_RADIUS + length :] = 0
    first, beyond = divmod(2 * size - length * _CELL_PX, _CELL_PX)
    share = np.float32(beyond / _CELL_PX)
    for start, part in ((_RADIUS + first, 1 - share), (_RADIUS + first + 1, share)):
        ends[start : start + len(image)] += (part * image)[: len(ends) - start]
    return wide


def _add(rows: NDArray[np.uint16], correction: NDArray[np.float32], first: int, dtype: np.dtype) -> Pixels:
    """Rows plus the correction, interpolated between the middles of cells and rounded to levels of `dtype`.

    Args:
        rows: (n, W, 3).
        correction: of the cells from `first` rows of cells above `rows` to one below, if there is one.
        first: 0 at the picture's top, else 1.
        dtype: uint8 or uint16.
    """
    height, width, _ = rows.shape
    scale = _WHITE // np.iinfo(dtype).max
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
