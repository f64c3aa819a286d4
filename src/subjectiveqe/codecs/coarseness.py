"""How coarsely a picture was quantised, in numbers that a network can be told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from . import CODECS

FAMILIES = ("hevc", "jpeg", "webp", "avif", "hevc-420")
"""Whose coarseness a network can be told, in this order; a family added later goes to the end.

HEVC in 4:2:0 is one of its own: its colours want sharpening that those of 4:4:4 at the same QP are spoilt by.
"""

PARENTS = {"hevc-420": "hevc"}
"""What a network knows of a family that it has not been told of before: as much as of this one."""


def coarseness(codec: str, level: float, num: int = len(FAMILIES), chroma: str = "") -> tuple[float, ...]:
    """The quantiser's step on a logarithmic scale, at the place of the codec's family, and 0 for all others.

    Args:
        codec: key of `CODECS`, or "unknown".
        level: QP or QF.
        num: how many of `FAMILIES` a network is told; it knows nothing of those behind.
        chroma: "444", "422", "420", or "" where it is not known.
    Returns:
        `num` numbers: log2 of the step over 8, about 0.3 for what is hardly seen and 1 for the worst, and above 0 for
        the finest. All are NaN where the codec belongs to none of these families.
    Example:
        >>> coarseness("hevc", 37, 2), coarseness("jpeg", 10, 2)
        ((0.6875, 0.0), (0.0, 1.0213188794145875))
    """
    family = "hevc" if codec == "hm" else codec
    if (family, chroma) == ("hevc", "420") and "hevc-420" in FAMILIES[:num]:
        family = "hevc-420"
    if family not in FAMILIES[:num]:
        return (math.nan,) * num
    return of_family(family, _STEPS[family](level), num)


def of_family(family: str, step: float, num: int = len(FAMILIES)) -> tuple[float, ...]:
    """Such a step of one family, none of the others, as networks are told it."""
    return tuple(on_scale(step) if name == family else 0.0 for name in FAMILIES[:num])


_FINEST = 1e-6
"""Of the finest step there is: next to nothing, and still what the largest number tells the family by."""


def on_scale(step: float) -> float:
    """A step of 1 or more as networks are told it, above 0."""
    return max(math.log2(step) / 8, _FINEST)


def _hevc_step(qp: float) -> float:
    return max(1.0, float(2 ** ((qp - 4) / 6)))


def hevc_qp(step: float) -> float:
    """HEVC's QP of a step."""
    return 4 + 6 * math.log2(step)


def _jpeg_step(qf: float) -> float:
    """Mean of the luma table that libjpeg makes for a quality factor, before it is rounded; at least 1."""
    percent = 5000 / qf if qf < 50 else 200 - 2 * qf
    return max(1.0, 57.625 * percent / 100)  # the mean of the standard's example table (ITU-T T.81, table K.1)


def jpeg_steps(at_50: NDArray[np.integer], qf: int) -> NDArray[np.integer]:
    """What libjpeg makes of steps at QF 50 for another quality factor."""
    percent = 5000 // qf if qf < 50 else 200 - 2 * qf
    return np.clip((at_50.astype(np.int64) * percent + 50) // 100, 1, 255)


def _webp_step(qf: float) -> float:
    """What libwebp makes of a quality factor before it looks at the picture: an index, and its step."""
    share = qf / 100 * 2 / 3 if qf < 75 else 2 * qf / 100 - 1
    return vp8_step(127 * (1 - np.cbrt(share)))


def vp8_step(index: float) -> float:
    """VP8's AC step for an index 0..127."""
    # The table of RFC 6386, section 14.1, consists of these pieces.
    return float(np.interp(index, (0, 54, 83, 102, 116, 127), (4, 58, 116, 173, 229, 284)))


def _avif_step(qf: float) -> float:
    """What libavif and libaom make of a quality factor: a quantiser of 64, and its index of 256."""
    return avif_step(4 * round((100 - qf) * 63 / 100))


def avif_step(index: float) -> float:
    """The AC step of AV1 for an index 0..255, at least 1.

    Steps are those of 8-bit pictures over 8, since coefficients are 8 times as large as those of an orthonormal
    transform.
    """
    places = (0, 1, 95, 120, 137, 150, 160, 188, 222, 255)  # of the table in section 7.12.2 of the AV1 specification
    logs = np.log2((4, 8, 102, 152, 203, 255, 305, 510, 969, 1828))
    return max(1.0, float(2 ** np.interp(index, places, logs)) / 8)


_STEPS = {"hevc": _hevc_step, "jpeg": _jpeg_step, "webp": _webp_step, "avif": _avif_step, "hevc-420": _hevc_step}


_LEVELS = {
    family: range(low, high + 1)
    for family in FAMILIES
    for low, high in [CODECS[PARENTS.get(family, family)].level_range]
}
"""The QPs or QFs that there are."""

_LEAST = 0.1
"""What is less coarse than this, as JPEG at QF 99 is, is next to nothing."""


def read_assumed(text: str) -> tuple[float, ...]:
    """Reads FAMILY:LEVEL, as jpeg:30 or hevc-420:37, into what `coarseness` gives; ConfigError says what is wrong."""
    family, _, number = text.partition(":")
    level = int(number) if number.isdecimal() else -1
    if family not in FAMILIES or level not in _LEVELS[family]:
        known = ", ".join(f"{name}:{levels[0]} to {levels[-1]}" for name, levels in _LEVELS.items())
        raise ConfigError(f'"{text}" is nothing that can be assumed; known are {known}')
    return of_family(family, _STEPS[family](level))


def as_assumed(values: Sequence[float]) -> str | None:
    """What `read_assumed` would take for this, the nearest; None where there is next to nothing.

    Args:
        values: one of each family, the first ones of `FAMILIES`.
    """
    value, family = max(zip(values, FAMILIES, strict=False))
    if value < _LEAST:
        return None
    return f"{family}:{min(_LEVELS[family], key=lambda level: abs(on_scale(_STEPS[family](level)) - value))}"


Less = Mapping[str, Sequence[tuple[float, float]]]
"""How much less than the truth to tell of a family: (coarseness, less) at some places, straight lines between them, and
beyond them as at the last one."""

TOLD_LESS = "told_less"
"""Key of a model's header: what `read_less` reads, with blanks between."""


def read_less(points: Sequence[str]) -> Less:
    """Reads "family:coarseness:less", any number of each family; ConfigError names what is none."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for text in points:
        family, *numbers = text.split(":")
        try:
            place, less = map(float, numbers)
        except ValueError:
            place = less = math.nan
        if family not in FAMILIES or text.split() != [text] or not (0 <= place <= 2 and abs(less) < 1):
            known = ", ".join(FAMILIES)
            raise ConfigError(
                f'--less "{text}": expected family:coarseness:less, as webp:0.6:0.1; families are {known}'
            )
        curve = curves.setdefault(family, [])
        if any(place == other for other, _ in curve):
            raise ConfigError(f'--less "{text}": says another thing of the same place; leave one out')
        curve.append((place, less))
    return {family: sorted(curve) for family, curve in curves.items()}


def told(coarseness: NDArray[np.float32], less: Less, strength: float) -> NDArray[np.float32]:
    """What a network is told of a picture; most of it is `less` at strength 1, and at 0 there is none.

    Args:
        coarseness: of the picture, (K,).
        less: how much less to tell.
        strength: the dial, 0..1.
    """
    values = coarseness.copy()
    for family, curve in less.items():
        if (place := FAMILIES.index(family)) < len(values):
            values[place] -= strength * np.interp(values[place], *np.transpose(curve))
    return np.maximum(values, np.minimum(coarseness, 0))
