"""RGB and YCbCr BT.601 in limited range, rounded to 8 bits as the seed does it (MATLAB `rgb2ycbcr`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .images import RGB

# Source: ITU-R BT.601-7, table 3, scaled to 8 bits: Y in 16..235, Cb and Cr in 16..240.
LUMA = _KR, _KG, _KB = 0.299, 0.587, 0.114
"""What R, G and B count in luma."""

_TO_YCBCR = (
    np.array(
        [
            [219 * _KR, 219 * _KG, 219 * _KB],
            [-112 * _KR / (1 - _KB), -112 * _KG / (1 - _KB), 112.0],
            [112.0, -112 * _KG / (1 - _KR), -112 * _KB / (1 - _KR)],
        ]
    )
    / 255
).astype(np.float32)
_OFFSET = np.array([16, 128, 128], np.float32)
_TO_RGB = np.linalg.inv(_TO_YCBCR.astype(np.float64)).astype(np.float32)


def rgb_to_ycbcr(rgb: RGB) -> RGB:
    """Converts to 8-bit YCbCr 4:4:4, rounded.

    Args:
        rgb: uint8, (H, W, 3).
    Returns:
        uint8, (H, W, 3): Y in 16..235, Cb and Cr in 16..240.
    Example:
        >>> rgb_to_ycbcr(np.array([[[255, 255, 255]]], np.uint8)).tolist()
        [[[235, 128, 128]]]
    """
    return _round(rgb.astype(np.float32) @ _TO_YCBCR.T + _OFFSET)


def ycbcr_to_rgb(ycbcr: RGB) -> RGB:
    """Converts back from `rgb_to_ycbcr`, rounded and clipped; the round trip is off by at most 2 levels.

    Args:
        ycbcr: uint8, (H, W, 3), limited range.
    Returns:
        uint8, (H, W, 3).
    """
    return _round((ycbcr.astype(np.float32) - _OFFSET) @ _TO_RGB.T)


def luma(rgb: NDArray[np.generic]) -> NDArray[np.float32]:
    """BT.601 luma in full range, 0..255, not rounded: what blockiness is measured on.

    Args:
        rgb: (H, W, 3), 0..255.
    Returns:
        float32, (H, W).
    """
    return rgb.astype(np.float32) @ np.array(LUMA, np.float32)


def _round(values: NDArray[np.floating]) -> RGB:
    rounded: RGB = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
