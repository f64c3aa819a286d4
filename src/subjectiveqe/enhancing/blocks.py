"""Blocks of 8x8 px, as JPEG cuts a picture, and their DCT."""

from __future__ import annotations

import math

import numpy as np

from ..color import luma
from .network import Floats

BLOCK_PX = 8


def busiest_luma(patches: Floats, count: int) -> Floats:
    """Luma in whole levels of those patches that have most in them, (count or less, H, W).

    Args:
        patches: RGB, (N, 3, H, W), in [0, 1].
        count: of patches at most.
    """
    y = np.stack([luma(np.rint(patch.transpose(1, 2, 0) * 255).astype(np.uint8)) for patch in patches])
    return y[np.argsort(-np.abs(np.diff(y)).mean((1, 2)))[:count]].astype(np.float32)


def to_blocks(plane: Floats) -> Floats:
    """(H, W) -> (n, 8, 8) row by row; past the end the last row and column go on, as encoders have it."""
    padded = np.pad(plane, [(0, -side % BLOCK_PX) for side in plane.shape], mode="edge")
    rows, cols = (side // BLOCK_PX for side in padded.shape)
    blocks = padded.reshape(rows, BLOCK_PX, cols, BLOCK_PX).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(blocks).reshape(-1, BLOCK_PX, BLOCK_PX)


def to_plane(blocks: Floats, width: int) -> Floats:
    """(n, 8, 8) -> whole blocks that cover a picture of this width."""
    cols = -(-width // BLOCK_PX)
    plane = blocks.reshape(-1, cols, BLOCK_PX, BLOCK_PX).transpose(0, 2, 1, 3)
    return plane.reshape(-1, cols * BLOCK_PX)


def dct(blocks: Floats) -> Floats:
    """(n, 8, 8) levels 0..255 -> coefficients, scaled as JPEG has them."""
    return _both_sides(blocks - np.float32(128), BASIS)


def inverse_dct(coefficients: Floats) -> Floats:
    """The levels that `dct` makes such coefficients of."""
    return _both_sides(coefficients, np.ascontiguousarray(BASIS.T)) + np.float32(128)


def _basis() -> Floats:
    """Orthonormal DCT-II, (8, 8)."""
    frequency, place = np.mgrid[:BLOCK_PX, :BLOCK_PX]
    rows = np.cos(np.pi * (2 * place + 1) * frequency / (2 * BLOCK_PX)) * math.sqrt(2 / BLOCK_PX)
    rows[0] /= math.sqrt(2)
    return np.asarray(rows, np.float32)


BASIS = _basis()
"""Rows are frequencies, columns places."""


def _both_sides(blocks: Floats, basis: Floats) -> Floats:
    """Gives basis @ block @ basis.T, in two large products, several times as fast as many small ones."""
    right = _times(blocks.reshape(-1, BLOCK_PX), basis.T).reshape(blocks.shape).transpose(0, 2, 1)
    both = _times(np.ascontiguousarray(right).reshape(-1, BLOCK_PX), basis.T).reshape(blocks.shape)
    return both.transpose(0, 2, 1)


_ROWS = 4096
"""In one product: beyond that OpenBLAS, which NumPy comes with, wakes a thread for every core of the machine. They wait
for each other by spinning: beside another process a picture of 640x512 px was looked at in 0.70 s so, in 0.23 s without
(medians of five, two cores with AVX2, 2026-12-01)."""


def _times(rows: Floats, matrix: Floats) -> Floats:
    """The product of (n, 8) and (8, 8), in pieces."""
    product = np.empty_like(rows)
    for first in range(0, len(rows), _ROWS):
        np.matmul(rows[first : first + _ROWS], matrix, out=product[first : first + _ROWS])
    return product
