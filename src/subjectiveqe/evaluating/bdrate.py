"""Bjøntegaard's measure: how many bits one curve of rate and quality needs more or fewer than another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Doubles: TypeAlias = NDArray[np.float64]


def bd_rate(
    rate_a: Sequence[float], quality_a: Sequence[float], rate_b: Sequence[float], quality_b: Sequence[float]
) -> float:
    """Mean difference of rate at equal quality, over the range of quality that both curves reach.

    The logarithm of rate is interpolated over quality by monotone cubic pieces, since one polynomial through all points
    swings where levels lie far apart. Works for measures that fall as quality rises, too.

    Source: Bjøntegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001; the pieces are
    those of Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5, 1984, as in JCT-VC's tables.

    Args:
        rate_a: of the curve to compare with, any unit above 0; two points or more, in any order.
        quality_a: at these rates.
        rate_b: of the other curve, in the same unit.
        quality_b: at these rates, in the same unit.
    Returns:
        Per cent; negative if b needs fewer bits. NaN where the curves share no range of quality, a value is not finite,
        or two points of a curve are equal in quality or swap places.
    Example:
        >>> round(bd_rate([1, 2, 4, 8], [30, 33, 36, 39], [0.5, 1, 2, 4], [30, 33, 36, 39]), 6)
        -50.0
    """
    if find_fault(rate_a, quality_a, rate_b, quality_b):
        return math.nan
    (quality_1, log_1), (quality_2, log_2) = _sorted(rate_a, quality_a), _sorted(rate_b, quality_b)
    low, high = max(quality_1[0], quality_2[0]), min(quality_1[-1], quality_2[-1])
    difference = _integral(quality_2, log_2, low, high) - _integral(quality_1, log_1, low, high)
    return 100 * math.expm1(difference / (high - low))


def find_fault(
    rate_a: Sequence[float], quality_a: Sequence[float], rate_b: Sequence[float], quality_b: Sequence[float]
) -> str:
    """Says why two curves have no BD-rate, in the words of a footnote; "" where they have one.

    Example:
        >>> find_fault([1, 2], [30, 33], [1, 2], [34, 35])
        'the curves share no range of quality'
    """
    directions = set()
    for rate, quality in ((rate_a, quality_a), (rate_b, quality_b)):
        if len(rate) != len(quality) or len(rate) < 2:
            return "a curve has fewer than two points"
        if not (np.isfinite(quality).all() and np.isfinite(rate).all() and (np.asarray(rate) > 0).all()):
            return "a value is not finite"
        qualities, logs = _sorted(rate, quality)
        rises = np.diff(logs)
        if (np.diff(qualities) <= 0).any() or not ((rises > 0).all() or (rises < 0).all()):
            return "the quality along a curve does not change with the rate in one direction"
        directions.add(bool(rises[0] > 0))
    if len(directions) > 1:
        return "the quality rises with the rate along one curve and falls along the other"
    return "" if overlap(quality_a, quality_b) > 0 else "the curves share no range of quality"


def overlap(quality_a: Sequence[float], quality_b: Sequence[float]) -> float:
    """Range of quality that both curves reach, as a share of the range that they reach together, 0..1.

    Example:
        >>> overlap([30, 35, 40], [31, 36, 42])
        0.75
    """
    low, high = max(min(quality_a), min(quality_b)), min(max(quality_a), max(quality_b))
    if not low < high:
        return 0.0
    return (high - low) / (max(*quality_a, *quality_b) - min(*quality_a, *quality_b))


def _sorted(rate: Sequence[float], quality: Sequence[float]) -> tuple[Doubles, Doubles]:
    """A curve by rising quality, with the logarithm of its rate."""
    order = np.argsort(quality)
    return np.asarray(quality, float)[order], np.log(np.asarray(rate, float)[order])


def _integral(x: Doubles, y: Doubles, low: float, high: float) -> float:
    """Of the monotone cubic pieces through the points, between two places within them."""
    slopes = _slopes(x, y)
    total = 0.0
    for k in range(len(x) - 1):
        start, stop = max(x[k], low), min(x[k + 1], high)
        if start < stop:
            # Gauss-Legendre by two points is exact for cubics.
            places = (start + stop) / 2 + (stop - start) / 2 * np.array([-1, 1]) / math.sqrt(3)
            width = x[k + 1] - x[k]
            t = (places - x[k]) / width
            values = (
                y[k] * (1 + 2 * t) * (1 - t) ** 2
                + y[k + 1] * t**2 * (3 - 2 * t)
                + width * t * (1 - t) * (slopes[k] * (1 - t) - slopes[k + 1] * t)
            )
            total += (stop - start) * float(values.mean())
    return total


def _slopes(x: Doubles, y: Doubles) -> Doubles:
    """Slopes at the points that keep the pieces between them monotone: weighted harmonic means of the neighbours'."""
    widths, secants = np.diff(x), np.diff(y) / np.diff(x)
    if len(secants) == 1:
        return np.repeat(secants, 2)
    left, right = 2 * widths[1:] + widths[:-1], widths[1:] + 2 * widths[:-1]
    inner = (left + right) / (left / secants[:-1] + right / secants[1:])
    ends = [
        _end_slope(widths[0], widths[1], secants[0], secants[1]),
        _end_slope(widths[-1], widths[-2], secants[-1], secants[-2]),
    ]
    return np.array([ends[0], *inner, ends[1]])


def _end_slope(near: float, far: float, secant: float, next_secant: float) -> float:
    """By three points, no steeper than three secants and never the other way."""
    slope = ((2 * near + far) * secant - near * next_secant) / (near + far)
    return 0.0 if slope * secant < 0 else slope if abs(slope) <= 3 * abs(secant) else 3 * secant
