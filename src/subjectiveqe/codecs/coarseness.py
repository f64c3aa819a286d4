"""How coarsely a picture was quantised, in numbers that a network can be told."""

from __future__ import annotations

import math

FAMILIES = ("hevc", "jpeg")
"""Whose coarseness a network is told, in this order; a family added later goes to the end."""


def coarseness(codec: str, level: int) -> tuple[float, ...]:
    """The quantiser's step on a logarithmic scale, at the place of the codec's family, and 0 for all others.

    Args:
        codec: key of `CODECS`, or "unknown".
        level: QP or QF.
    Returns:
        One number per family: log2 of the step over 8, about 0.3 for what is hardly seen and 1 for the worst. All are
        NaN where the codec belongs to no family here.
    Example:
        >>> coarseness("hevc", 37), coarseness("jpeg", 10)
        ((0.6875, 0.0), (0.0, 1.0213188794145875))
    """
    family = "hevc" if codec == "hm" else codec
    if family not in FAMILIES:
        return (math.nan,) * len(FAMILIES)
    step = 2 ** ((level - 4) / 6) if family == "hevc" else _mean_luma_step(level)
    return tuple(math.log2(step) / 8 if name == family else 0.0 for name in FAMILIES)


def _mean_luma_step(quality: int) -> float:
    """Mean of the luma table that libjpeg makes for a quality factor, before it is rounded; at least 1."""
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    return max(1.0, 57.625 * percent / 100)  # the mean of the standard's example table (ITU-T T.81, table K.1)
