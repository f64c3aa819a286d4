"""Keeping what rests in a video at rest: a network makes little changes of its input larger, and they flicker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..files import atomic_path
from ..formats.rows import Pixels

_REACH_PX = 2
"""How far around a pixel the input's change is averaged."""

_MOTION = 3.0
"""Change of the input, in levels of 8 bits, from which on things move and the result is left alone. By no more the
result lies outside of the input and what the network made of it, or thin strokes that faded would still be seen."""


class Steadier:
    """Lets a result change from frame to frame by no more than its input does, where that changes little.

    The limit at a pixel is the mean change of the input around it; towards `_MOTION` it grows beyond all bounds, so
    that nothing trails behind what moves. Over what rests, the mean change of the result is then that of the input at
    most. The result is kept in parts of levels: a slow change is not lost by rounding.
    """

    def __init__(self) -> None:
        self._lq: Pixels | None = None
        self._state = np.zeros(0, np.float32)

    def __call__(self, lq: Pixels, out: Pixels) -> Pixels:
        """Gives the steadied result of the next frame.

        Args:
            lq: the input, uint8 or uint16, (H, W, 3).
            out: the network's result, the same type and shape.
        """
        if self._lq is None or self._lq.shape != lq.shape or self._lq.dtype != lq.dtype:
            self._state = out.astype(np.float32)
        else:
            level = np.iinfo(lq.dtype).max / 255
            change = np.abs(lq.astype(np.float32) - self._lq).mean(2)
            change = _box_mean(change) / np.float32(level)
            limit = level * change / np.maximum(1 - change / _MOTION, 1e-6)
            self._state += np.clip(out - self._state, -limit[..., None], limit[..., None])
            most = np.float32(level * _MOTION)
            np.clip(self._state, np.minimum(lq, out) - most, np.maximum(lq, out) + most, out=self._state)
        self._lq = lq
        steadied: Pixels = np.rint(self._state).astype(out.dtype)
        return steadied

    def save(self, path: Path) -> None:
        """Writes what the next frame depends on."""
        if self._lq is not None:
            with atomic_path(path) as part, part.open("wb") as file:
                np.savez(file, lq=self._lq, state=self._state)

    def load(self, path: Path) -> None:
        """Goes on after the frame that `save` was called behind."""
        with np.load(path) as saved:
            self._lq, self._state = saved["lq"], saved["state"]


def _box_mean(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over a square around each pixel; past the border the picture is mirrored, so that the mean of all stays."""
    side = 2 * _REACH_PX + 1
    for _ in range(2):  # rows, and then columns
        padded = np.pad(plane, ((_REACH_PX, _REACH_PX), (0, 0)), mode="symmetric")
        total = padded[: len(plane)].copy()
        for shift in range(1, side):
            total += padded[shift : shift + len(plane)]
        plane = (total / np.float32(side)).T
    return plane
