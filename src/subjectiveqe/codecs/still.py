"""JPEG, WebP and AVIF through Pillow, in memory."""

from __future__ import annotations

import io
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import CodecError, ConfigError, first_line
from ..images import RGB
from .base import CHROMA, InMemoryCodec

_PILLOW_NAME = {"444": "4:4:4", "422": "4:2:2", "420": "4:2:0"}


class _Still(InMemoryCodec):
    """A format of Pillow; qf 1..100, higher is finer; any size of picture."""

    level_name = "qf"
    level_range = (1, 100)
    pillow_format: ClassVar[str]

    @abstractmethod
    def save_options(self) -> dict[str, Any]:
        """Options for Pillow's `Image.save` beside the quality."""

    def encode(self, rgb: RGB, level: int) -> bytes:
        """Gives the bytes of a file in this format."""
        from PIL import Image

        self.check(rgb, level)
        file = io.BytesIO()
        try:
            Image.fromarray(rgb).save(file, self.pillow_format, quality=int(level), **self.save_options())
        except (OSError, ValueError, KeyError, RuntimeError) as error:  # KeyError: Pillow was built without it
            raise CodecError(
                f"{self.name}: Pillow cannot encode {rgb.shape[1]}x{rgb.shape[0]} px ({first_line(error)}); "
                f'"python -m PIL.features" says whether this Pillow has {self.pillow_format}'
            ) from None
        return file.getvalue()

    def decode(self, data: bytes) -> RGB:
        """Decodes a file of this format."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data), formats=[self.pillow_format]) as picture:
                return np.array(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError, KeyError, RuntimeError, Image.DecompressionBombError) as error:
            raise CodecError(f"{self.name}: cannot decode {len(data)} bytes ({first_line(error)})") from None


@dataclass(frozen=True)
class Jpeg(_Still):
    """Baseline JPEG of libjpeg-turbo with its standard tables.

    Args:
        chroma: "420", "422" or "444".
    """

    name = "jpeg"
    pillow_format = "JPEG"
    chroma: str = "420"

    def __post_init__(self) -> None:
        check_chroma(self.name, self.chroma, list(CHROMA))

    def save_options(self) -> dict[str, Any]:
        """Chroma subsampling."""
        return {"subsampling": _PILLOW_NAME[self.chroma]}


@dataclass(frozen=True)
class WebP(_Still):
    """Lossy WebP, always 4:2:0: the format has nothing else."""

    name = "webp"
    pillow_format = "WEBP"

    def save_options(self) -> dict[str, Any]:
        """None but the default effort, 4 of 6."""
        return {"method": 4}


@dataclass(frozen=True)
class Avif(_Still):
    """AVIF still picture (AV1).

    Args:
        chroma: "420", "422" or "444".
    """

    name = "avif"
    pillow_format = "AVIF"
    chroma: str = "420"

    def __post_init__(self) -> None:
        check_chroma(self.name, self.chroma, list(CHROMA))

    def save_options(self) -> dict[str, Any]:
        """Chroma subsampling; one thread, since `prepare` runs one process per core."""
        return {"subsampling": _PILLOW_NAME[self.chroma], "max_threads": 1}


def check_chroma(codec: str, chroma: str, known: list[str]) -> None:
    """Refuses a chroma subsampling that the codec does not have (ConfigError)."""
    if chroma not in known:
        raise ConfigError(f'codec "{codec}": chroma must be one of {", ".join(known)}, got "{chroma}"')
