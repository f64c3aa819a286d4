"""Pictures that somebody saved again as a fine JPEG, and what lies beneath it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..codecs import Codec, crop_to_multiple, get_codec
from ..codecs.coarseness import FAMILIES, coarseness
from ..images import RGB
from .pairs import PairInfo, PairSet

ORIGINALS = ("originals", 0)
"""The kind of pictures beneath which there is nothing."""

_PX, _QF, _SHARE_420 = 640, (70, 98), 0.7
"""Side of the pictures at most, and how they are saved."""

_ORIGINAL, _ENLARGED = 0.35, 0.1
"""Shares of originals, and of pictures that were enlarged before, whose blocks are no longer what networks know."""

_NOISY, _NOISE, _COLOURED, _GRAINY = 0.25, (1, 10), 0.4, 0.5
"""Share of the pictures that get noise before they are compressed, its standard deviation in levels, and how often it
is coloured, and coarser than a pixel."""

_UNSHARP, _BLUR_PX = 0.3, (0.5, 3)
"""Share of the originals that are blurred or enlarged, and by how much they are blurred."""

_SCALED, _SMALLER, _LARGER = 0.4, (0.5, 0.95), (1.3, 2.2)
"""How often a JPEG is scaled down, and by how much pictures are scaled."""


class Coded(NamedTuple):
    """A compressed picture, and what an estimator is to say of it.

    Attributes:
        rgb: uint8, (H, W, 3).
        truth: coarseness, (K,); 0 where there is nothing that could be told.
        kind: what it is counted among.
    """

    rgb: RGB
    truth: tuple[float, ...]
    kind: tuple[str, int]


def saved_again(pairs: PairSet, index: int, num: int, rng: np.random.Generator) -> Coded | None:
    """A part of an original, compressed as the pair was and saved again as JPEG at a quality that is drawn.

    Some originals get noise first, as of cameras and film; some are not compressed before they are saved. JPEGs are cut
    at odd places, or scaled down: then they count as finer, by half of what their blocks lost.

    Args:
        pairs: where from.
        index: of the pair.
        num: of how many of `FAMILIES` the coarseness is told.
        rng: draws everything.
    Returns:
        With the coarseness of what compressed it first, counted by codec and level, or among `ORIGINALS`; None where
        nobody knows how the pair was compressed.
    """
    info = pairs.infos[index]
    truth = list(coarseness(info.codec, info.level, num, info.chroma))
    if math.isnan(truth[0]):
        return None
    top, left = (int(rng.integers(0, max(side - _PX, 0) + 1)) for side in (info.height, info.width))
    _, gt = pairs.crop(index, top, left, min(_PX, info.height), min(_PX, info.width))
    rgb = crop_to_multiple(_noisy(gt, rng) if rng.random() < _NOISY else gt, 8)
    kind = (f"{info.codec} {info.chroma}".strip(), info.level)
    drawn = rng.random()
    if drawn >= _ORIGINAL:
        rgb = _codec_of(info).code(rgb, info.level).rgb
    elif rng.random() < _UNSHARP:
        rgb = _unsharp(rgb, rng)
    if drawn < _ORIGINAL + _ENLARGED:
        truth, kind = [0.0] * num, ORIGINALS
        if drawn >= _ORIGINAL:
            rgb = _scaled(rgb, rng.uniform(*_LARGER))
    elif info.codec == "jpeg" and rng.random() < _SCALED:
        scale = rng.uniform(*_SMALLER)
        place = FAMILIES.index("jpeg")
        rgb, truth[place] = _scaled(rgb, scale), max(truth[place] + math.log2(scale) / 2, 0.0)
        kind = (f"{kind[0]} scaled", info.level)
    elif info.codec == "jpeg":
        row, col = rng.integers(0, 8, 2)
        rgb = np.ascontiguousarray(rgb[row:, col:])
    jpeg = get_codec("jpeg", chroma="420" if rng.random() < _SHARE_420 else "444")
    return Coded(jpeg.code(rgb, int(rng.integers(_QF[0], _QF[1] + 1))).rgb, tuple(truth), kind)


def _codec_of(info: PairInfo) -> Codec:
    """The codec of a pair; libx265 stands for HM."""
    chroma = {} if info.codec == "webp" else {"chroma": info.chroma or None}
    return get_codec("hevc" if info.codec == "hm" else info.codec, **chroma)


def _noisy(rgb: RGB, rng: np.random.Generator) -> RGB:
    """With noise, gray or coloured, of pixels or of grains."""
    from PIL import Image

    height, width = rgb.shape[:2]
    noise = rng.normal(0, 1, (height, width, 3 if rng.random() < _COLOURED else 1)).astype(np.float32)
    if rng.random() < _GRAINY:
        part = (0, 0, 0.6 * width, 0.6 * height)
        large = [
            Image.fromarray(noise[..., k]).resize((width, height), Image.Resampling.BILINEAR, part)
            for k in range(noise.shape[2])
        ]
        noise = np.stack([np.asarray(band) for band in large], axis=-1)
        noise /= noise.std()
    return np.clip(np.rint(rgb + rng.uniform(*_NOISE) * noise), 0, 255).astype(np.uint8)


def _unsharp(rgb: RGB, rng: np.random.Generator) -> RGB:
    """Out of focus, or enlarged."""
    from PIL import Image, ImageFilter

    if rng.random() < 0.5:
        return _scaled(rgb, rng.uniform(*_LARGER))
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(rng.uniform(*_BLUR_PX))))


def _scaled(rgb: RGB, scale: float) -> RGB:
    """Scaled (bicubic); the first `_PX` rows and columns of it."""
    from PIL import Image

    height, width = (round(side * scale) for side in rgb.shape[:2])
    large = Image.fromarray(np.ascontiguousarray(rgb)).resize((width, height), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(large)[:_PX, :_PX])
