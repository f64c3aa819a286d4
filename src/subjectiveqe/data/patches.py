"""Random patches for training, each a pure function of a seed and its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..codecs.coarseness import FAMILIES, coarseness
from ..errors import ConfigError
from ..images import RGB
from .pairs import GRID_PX, PairSet

ALIGN_PX = 2 * GRID_PX
"""Grid of 4:2:0 chroma; a corner on it lies on the 8-px grid of luma as well."""


class Patch(NamedTuple):
    """One training sample.

    Args:
        lq: uint8, (patch_px, patch_px, 3), contiguous and writable.
        gt: the same place of the original.
        grid: (top, left), 0..7: rows y with (y - top) % 8 == 0 and columns x with (x - left) % 8 == 0 start a block.
        coarseness: see `codecs.coarseness`.
        number: which of the sets it comes from.
    """

    lq: RGB
    gt: RGB
    grid: tuple[int, int]
    coarseness: tuple[float, ...]
    number: int


class Patches:
    """Deterministic random access: patch k is a pure function of (seed, k), whoever reads it and in which order.

    Each patch takes a pair (all equally likely), a place, and one of the eight flips and quarter turns at random. There
    is no end: any k >= 0 is a patch.

    Args:
        sets: where the pairs come from; LMDB stores, unless speed is no matter.
        patch_px: height and width of a patch.
        seed: >= 0.
        aligned: share of patches, 0..1, whose corner lies on the codec's 16-px grid; the rest lie anywhere.
        coarseness_noise: standard deviation of what is added to the coarseness, for networks that are told an estimate.
        num_coarseness: of how many families the coarseness is told, see `codecs.coarseness`.
    Raises:
        ConfigError: no pair is large enough, or an argument is out of range.
    """

    def __init__(
        self,
        sets: Sequence[PairSet],
        patch_px: int,
        seed: int,
        aligned: float = 0.0,
        coarseness_noise: float = 0.0,
        num_coarseness: int = len(FAMILIES),
    ) -> None:
        if patch_px < 1 or seed < 0 or not 0 <= aligned <= 1:
            expected = "patch_px >= 1, seed >= 0 and aligned in 0..1"
            raise ConfigError(f"expected {expected}, got {patch_px}, {seed} and {aligned}")
        self.patch_px, self.seed, self.aligned, self.coarseness_noise = patch_px, seed, aligned, coarseness_noise
        self.num_coarseness = num_coarseness
        self._sets = tuple(sets)
        self._usable = np.array(
            [
                (number, index)
                for number, pairs in enumerate(self._sets)
                for index, info in enumerate(pairs.infos)
                if min(info.height, info.width) >= patch_px
            ],
            np.int32,
        )
        if not len(self._usable):
            total = sum(map(len, self._sets))
            raise ConfigError(f"none of {total} pairs is {patch_px} px high and wide; take a smaller patch_px")

    def __getitem__(self, k: int) -> Patch:
        """Reads patch k, k >= 0."""
        # A generator per patch costs 15 us; PCG64 by name, because what default_rng takes may change.
        rng = np.random.Generator(np.random.PCG64((self.seed, k)))
        size = self.patch_px
        number, index = self._usable[rng.integers(len(self._usable))]
        info = self._sets[number].infos[index]
        unit = ALIGN_PX if rng.random() < self.aligned else 1
        top, left = (unit * int(rng.integers((side - size) // unit + 1)) for side in (info.height, info.width))
        lq, gt = self._sets[number].crop(int(index), top, left, size, size)
        grid = (-top % GRID_PX, -left % GRID_PX)
        flip_rows, flip_columns, transpose = rng.random(3) < 0.5
        lq, gt = (_augment(picture, flip_rows, flip_columns, transpose) for picture in (lq, gt))
        grid = _augment_grid(grid, size, flip_rows, flip_columns, transpose)
        noise = self.coarseness_noise * rng.standard_normal(self.num_coarseness)
        known = coarseness(info.codec, info.level, self.num_coarseness, info.chroma)
        return Patch(lq, gt, grid, tuple(np.add(known, noise).tolist()), int(number))


def _augment(picture: RGB, flip_rows: bool, flip_columns: bool, transpose: bool) -> RGB:
    view = picture[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return np.array(view.transpose(1, 0, 2) if transpose else view, order="C")


def _augment_grid(
    grid: tuple[int, int], size: int, flip_rows: bool, flip_columns: bool, transpose: bool
) -> tuple[int, int]:
    top, left = grid
    # A border lies before row y; flipped, it lies before row size - y.
    top = (size - top) % GRID_PX if flip_rows else top
    left = (size - left) % GRID_PX if flip_columns else left
    return (left, top) if transpose else (top, left)
