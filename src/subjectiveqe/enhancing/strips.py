"""Pictures that come in strips: `read(n)` gives the next n rows, (n, W, 3), and is asked for no more than there are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..formats.rows import Pixels
from .look import LOOK_PX, look_places
from .tells import is_gray

PASSING_ROWS = 64
"""How many rows are read at a time: those of a whole row of tiles would be held twice."""


def reader(image: Pixels) -> Callable[[int], Pixels]:
    """A function that gives the next n rows of a picture."""
    taken = 0

    def read(count: int) -> Pixels:
        nonlocal taken
        taken += count
        return image[taken - count : taken]

    return read


def read_on(seen: Pixels, read: Callable[[int], Pixels], count: int) -> Pixels:
    """The first `count` rows from the first of `seen` on, as a new array; little more memory is held on the way."""
    rows = np.empty((count, *seen.shape[1:]), seen.dtype)
    rows[: len(seen)] = seen
    for top in range(len(seen), count, PASSING_ROWS):
        stop = min(top + PASSING_ROWS, count)
        rows[top:stop] = read(stop - top)
    return rows


def patches_of(read: Callable[[int], Pixels], height: int, width: int) -> tuple[list[Pixels], bool]:
    """Patches from all over a picture that comes in strips, and whether all of it is gray."""
    patches = []
    seen, top, gray = read(0), 0, True
    for row in look_places(height):
        stop = min(row + LOOK_PX, height)
        while top + len(seen) < stop:  # in small strips, since most rows are passed over
            rows = read(min(PASSING_ROWS, stop - top - len(seen)))
            gray = gray and is_gray(rows)
            kept = seen[max(row - top, 0) :]
            top += len(seen) - len(kept)
            seen = np.concatenate((kept, rows))
        patch = seen[row - top : stop - top]
        patches += [patch[:, col : col + LOOK_PX].copy() for col in look_places(width)]
    if gray and (rest := height - top - len(seen)):  # at most 15 rows: patches begin on multiples of 16
        gray = is_gray(read(rest))
    return patches, gray


def beginning_earlier(read: Callable[[int], Pixels], top: int, left: int) -> Callable[[int], Pixels]:
    """A picture with its first row and column repeated before it."""
    missing = top

    def read_earlier(count: int) -> Pixels:
        nonlocal missing
        rows = read(max(count - missing, 1 if missing and count else 0))
        if missing and count:
            rows, missing = np.concatenate((np.repeat(rows[:1], missing, axis=0), rows)), 0
        return np.pad(rows, ((0, 0), (left, 0), (0, 0)), mode="edge")

    return read_earlier
