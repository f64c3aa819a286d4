"""Pictures that somebody saved again as a fine JPEG, and what lies beneath it."""

from __future__ import annotations

import io
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

_PHOTOSHOP, _PRESETS = 0.15, ("web_medium", "web_high", "web_very_high", "web_maximum", "high", "maximum")
"""Share that is saved with tables of Photoshop's instead, and with which."""

_ORIGINAL, _ENLARGED = 0.35, 0.1
"""Shares of originals, and of pictures that were enlarged before, whose blocks are no longer what networks know."""

_NOISY, _NOISE, _COLOURED, _GRAINY = 0.25, (1, 10), 0.4, 0.5
"""Share of the pictures that get noise before they are compressed, its standard deviation in levels, and how often it
is coloured, and coarser than a pixel."""

_CHANGED, _CHANGES = 0.5, ("enlarged", "reduced", "blurred", "sharpened")
"""Share of the originals that are changed before they are saved, and how."""

_BLUR_PX, _SHARP_PX, _SHARP = (0.5, 3), (0.5, 2.5), (50, 150)
"""How far pictures are blurred, and sharpened, by how many per cent."""

_SCALED, _SMALLER, _LARGER = 0.4, (0.5, 0.95), (1.3, 2.2)
"""How often a JPEG is scaled down, and by how much pictures are scaled."""


class SavedAgain(NamedTuple):
    """A compressed picture, and what an estimator is to say of it.

    Attributes:
        rgb: uint8, (H, W, 3).
        truth: coarseness, (K,); 0 where there is nothing that could be told.
        kind: what it is counted among.
    """

    rgb: RGB
    truth: tuple[float, ...]
    kind: tuple[str, int]


def saved_again(pairs: PairSet, index: int, num: int, rng: np.random.Generator) -> SavedAgain | None:
    """A part of an original, compressed as one of the pairs was and saved again as JPEG at a quality that is drawn.

    Some originals get noise first, as of cameras and film; some are not compressed before they are saved, but changed.
    JPEGs are cut at odd places, or scaled down: then they count as finer, by half of what their blocks lost.

    Args:
        pairs: where from.
        index: of the original's pair.
        num: of how many of `FAMILIES` the coarseness is told.
        rng: draws everything.
    Returns:
        With the coarseness of what compressed it first, counted by codec and level, or among `ORIGINALS`; None where
        nobody knows how the pair that was drawn was compressed.
    """
    info = pairs.infos[int(rng.integers(len(pairs.infos)))]
    truth = list(coarseness(info.codec, info.level, num, info.chroma))
    if math.isnan(truth[0]):
        return None
    kind = (f"{info.codec} {info.chroma}".strip(), info.level)
    drawn = rng.random()
    how = str(rng.choice(_CHANGES)) if drawn < _ORIGINAL and rng.random() < _CHANGED else ""
    rgb = _original(pairs, index, rng.uniform(*_SMALLER) if how == "reduced" else 1.0, rng)
    rgb = crop_to_multiple(_noisy(rgb, rng) if rng.random() < _NOISY else rgb, 8)
    rgb = _codec_of(info).code(rgb, info.level).rgb if drawn >= _ORIGINAL else _changed(rgb, how, rng)
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
    return SavedAgain(_saved(rgb, rng), tuple(truth), kind)


def _original(pairs: PairSet, index: int, scale: float, rng: np.random.Generator) -> RGB:
    """A part of it, scaled down to `_PX` at most."""
    size, px = pairs.infos[index], round(_PX / scale)
    top, left = (int(rng.integers(0, max(side - px, 0) + 1)) for side in (size.height, size.width))
    _, gt = pairs.crop(index, top, left, min(px, size.height), min(px, size.width))
    return gt if scale == 1 else _scaled(gt, scale)


def _codec_of(info: PairInfo) -> Codec:
    """The codec of a pair; libx265 stands for HM."""
    chroma = {} if info.codec == "webp" else {"chroma": info.chroma or None}
    return get_codec("hevc" if info.codec == "hm" else info.codec, **chroma)


def _saved(rgb: RGB, rng: np.random.Generator) -> RGB:
    """As JPEG, by libjpeg's tables or Photoshop's."""
    from PIL import Image, JpegPresets

    chroma = "420" if rng.random() < _SHARE_420 else "444"
    if rng.random() >= _PHOTOSHOP:
        return get_codec("jpeg", chroma=chroma).code(rgb, int(rng.integers(_QF[0], _QF[1] + 1))).rgb
    file, tables = io.BytesIO(), JpegPresets.presets[str(rng.choice(_PRESETS))]["quantization"]
    Image.fromarray(rgb).save(file, "JPEG", qtables=tables, subsampling=":".join(chroma))
    return np.asarray(Image.open(file).convert("RGB"))


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


def _changed(rgb: RGB, how: str, rng: np.random.Generator) -> RGB:
    """Enlarged, out of focus or sharpened; else as it is."""
    from PIL import Image, ImageFilter

    if how == "enlarged":
        return _scaled(rgb, rng.uniform(*_LARGER))
    if how == "blurred":
        return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(rng.uniform(*_BLUR_PX))))
    if how == "sharpened":
        sharpen = ImageFilter.UnsharpMask(rng.uniform(*_SHARP_PX), round(rng.uniform(*_SHARP)), 2)
        return np.asarray(Image.fromarray(rgb).filter(sharpen))
    return rgb


def _scaled(rgb: RGB, scale: float) -> RGB:
    """Scaled (bicubic); the first `_PX` rows and columns of it."""
    from PIL import Image

    height, width = (round(side * scale) for side in rgb.shape[:2])
    large = Image.fromarray(np.ascontiguousarray(rgb)).resize((width, height), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(large)[:_PX, :_PX])
