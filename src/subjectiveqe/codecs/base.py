"""What every codec of this package can do: take a picture and a level, give the decoded picture and its exact size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from ..errors import CodecError, ShapeError
from ..images import RGB

CHROMA = {"444": (1, 1), "422": (1, 2), "420": (2, 2)}
"""Chroma subsampling by name: luma rows and columns for each chroma sample."""


@dataclass(frozen=True)
class Coded:
    """A picture after the codec.

    Args:
        rgb: the decoded picture, uint8, (H, W, 3).
        num_bytes: exact size of the coded picture.
    """

    rgb: RGB
    num_bytes: int

    @property
    def bpp(self) -> float:
        """Bits per pixel."""
        height, width = self.rgb.shape[:2]
        return 8 * self.num_bytes / (int(height) * int(width))


class Codec(ABC):
    """One codec with its options; a value that can be pickled into a worker process.

    Attributes:
        name: key in `CODECS`.
        level_name: "qp", of a quantiser, higher is coarser; or "qf", of a quality factor, lower is coarser.
        level_range: lowest and highest level, both allowed.
    """

    name: ClassVar[str]
    level_name: ClassVar[str]
    level_range: ClassVar[tuple[int, int]]

    @abstractmethod
    def code(self, rgb: RGB, level: int) -> Coded:
        """Encodes and decodes one picture.

        Args:
            rgb: uint8, (H, W, 3).
            level: within `level_range`.
        Raises:
            CodecError: the level is out of range, or the encoder is missing or failed.
            ShapeError: the picture is of a size or type the codec cannot take.
        """

    def settings(self) -> dict[str, str]:
        """Everything beside the level that decides about the decoded picture, so that stores can be told apart."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    def check(self, rgb: RGB, level: int) -> None:
        """Refuses a level out of range (CodecError) and an array that is no picture (ShapeError)."""
        low, high = self.level_range
        if not low <= level <= high:
            raise CodecError(f"{self.name}: {self.level_name} must be {low}..{high}, got {level}")
        if int(level) != level:
            raise CodecError(f"{self.name}: {self.level_name} must be a whole number, got {level}")
        check_rgb(rgb, self.name)

    def check_levels(self, levels: Sequence[int]) -> None:
        """Refuses levels out of range, and an encoder that is missing or fails (CodecError), by coding a small picture.

        So that it is said once, before any work, and not of every picture.
        """
        trial = np.full((64, 64, 3), 128, np.uint8)
        for level in levels:
            self.check(trial, level)
        self.code(trial, levels[0])


class InMemoryCodec(Codec):
    """A codec whose coded picture is a string of bytes in memory."""

    @abstractmethod
    def encode(self, rgb: RGB, level: int) -> bytes:
        """Gives the coded picture; arguments and errors as of `code`."""

    @abstractmethod
    def decode(self, data: bytes) -> RGB:
        """Decodes what `encode` gave; CodecError where the data is damaged."""

    def code(self, rgb: RGB, level: int) -> Coded:
        """Encodes and decodes one picture, see `Codec.code`."""
        data = self.encode(rgb, level)
        return Coded(self.decode(data), len(data))


def crop_to_multiple(rgb: RGB, multiple: int = 8) -> RGB:
    """Cuts the bottom and the right so that both sides are multiples; a view, no copy.

    Raises:
        ShapeError: a side is shorter than `multiple`, so nothing would be left.
    Example:
        >>> crop_to_multiple(np.zeros((17, 24, 3), np.uint8)).shape
        (16, 24, 3)
    """
    height, width = (side // multiple * multiple for side in rgb.shape[:2])
    if not height or not width:
        raise ShapeError(f"picture of at least {multiple}x{multiple} px expected, got {rgb.shape[1]}x{rgb.shape[0]}")
    return rgb[:height, :width]


def check_rgb(rgb: RGB, where: str) -> None:
    """Refuses an array that is not uint8, (H, W, 3), with at least one pixel (ShapeError)."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ShapeError(f"{where}: uint8 picture (H, W, 3) expected, got {rgb.dtype} {rgb.shape}")


def check_multiple(rgb: RGB, multiple: int, where: str) -> None:
    """Refuses a picture whose sides are not multiples of the codec's unit (ShapeError)."""
    height, width = rgb.shape[:2]
    if height % multiple or width % multiple:
        raise ShapeError(
            f"{where}: sides that are multiples of {multiple} px expected, got {width}x{height}; "
            f"crop with crop_to_multiple(rgb, {multiple}) first"
        )
