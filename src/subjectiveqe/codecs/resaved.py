"""Pictures as they go around: a JPEG that somebody has cropped or scaled down, and saved again."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..images import RGB
from .base import InMemoryCodec
from .still import Jpeg, WebP

_LAST = {"jpeg": Jpeg(), "webp": WebP()}
_FIRST_QF = (20, 90)
_SHARE_SCALED, _SCALES = 0.5, (1.25, 2.0)
"""How often the first JPEG was larger, and how much."""


@dataclass(frozen=True)
class Resaved(InMemoryCodec):
    """JPEG at a hidden quality, phase of the grid and, for half the pictures, larger scale; then JPEG or WebP.

    What is hidden is drawn from the picture and the level, so equal inputs give equal bits: a quality of 20..90, a
    phase of 0..7 px along both axes, a scale of 1.25..2. The larger picture is interpolated (Lanczos), so it holds no
    more than the original.

    Args:
        last: "jpeg" or "webp", whose quality factor the level is.
    """

    name = "resaved"
    level_name = "qf"
    level_range = (1, 100)
    last: str = "jpeg"

    def __post_init__(self) -> None:
        if self.last not in _LAST:
            raise ConfigError(f'codec "{self.name}": last must be one of {", ".join(_LAST)}, got "{self.last}"')

    def encode(self, rgb: RGB, level: int) -> bytes:
        """Gives the bytes of the last file."""
        self.check(rgb, level)
        rng = np.random.default_rng((zlib.crc32(np.ascontiguousarray(rgb).data), level))
        return _LAST[self.last].encode(_worn(rgb, rng), level)

    def decode(self, data: bytes) -> RGB:
        """Decodes the last file."""
        return _LAST[self.last].decode(data)


def _worn(rgb: RGB, rng: np.random.Generator) -> RGB:
    """What is left of a picture after the first JPEG."""
    height, width = rgb.shape[:2]
    scale = rng.uniform(*_SCALES) if rng.random() < _SHARE_SCALED else 1.0
    large = _resize(rgb, max(round(height * scale), 1), max(round(width * scale), 1))
    top, left = rng.integers(0, 8, 2)
    padded = np.pad(large, ((top, 0), (left, 0), (0, 0)), mode="edge")
    coded = Jpeg().code(padded, int(rng.integers(_FIRST_QF[0], _FIRST_QF[1] + 1))).rgb[top:, left:]
    return _resize(coded, height, width)


def _resize(rgb: RGB, height: int, width: int) -> RGB:
    from PIL import Image

    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize((width, height), Image.Resampling.LANCZOS))
