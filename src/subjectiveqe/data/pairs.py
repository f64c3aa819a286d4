"""Pairs of a decoded picture and its original: what all sets of them can do, and those in two plain folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import ConfigError, ImageError, StoreError, first_line
from ..images import RGB, list_images, open_picture, read_rgb

GRID_PX = 8
"""Pictures are cropped to multiples of it before they are coded: the smallest coding unit of HEVC."""


@dataclass(frozen=True)
class PairInfo:
    """What is known of one pair without reading its pixels.

    Args:
        name: file name of the clean picture, without its folder.
        codec: key of `CODECS`, or "unknown".
        level: QP or QF the picture was coded with, -1 where unknown.
        num_bytes: exact size of the coded picture.
        height: rows of both pictures.
        width: columns of both pictures.
        chroma: "444", "422" or "420" as it was coded, "" where unknown.
    """

    name: str
    codec: str
    level: int
    num_bytes: int
    height: int
    width: int
    chroma: str = ""

    @property
    def bpp(self) -> float:
        """Bits of the coded picture per pixel."""
        return 8 * self.num_bytes / (self.height * self.width)


class PairSet(Protocol):
    """Pairs by number, whatever they are stored in; picklable."""

    @property
    def infos(self) -> Sequence[PairInfo]:
        """One entry per pair, in the order of the pairs."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[RGB, RGB]:
        """The whole pictures `lq` and `gt` of one pair, uint8, (H, W, 3)."""

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> tuple[RGB, RGB]:
        """The same rectangle of `lq` and `gt`, read-only; on LMDB two views on the memory map, without a copy."""


def rectangle(pair: tuple[RGB, RGB], top: int, left: int, height: int, width: int) -> tuple[RGB, RGB]:
    """Views on the same part of both."""
    lq, gt = pair
    rows, columns = slice(top, top + height), slice(left, left + width)
    return lq[rows, columns], gt[rows, columns]


def centre(pairs: PairSet, index: int, crop_px: int | None) -> tuple[RGB, RGB]:
    """The middle of a compressed picture and of its original, on the codec's grid, as a whole file would be.

    Args:
        pairs: where from.
        index: 0..len(pairs) - 1.
        crop_px: largest height and width; None for the whole picture.
    """
    info = pairs.infos[index]
    height, width = (min(crop_px or side, side) for side in (info.height, info.width))
    top, left = ((info.height - height) // 2 // 16 * 16, (info.width - width) // 2 // 16 * 16)
    lq, gt = pairs.crop(index, top, left, height, width)
    return np.array(lq), np.array(gt)


def pair_folders(lq: Path, gt: Path, *, keeps_unread: bool = False) -> PairSet:
    """Pairs the pictures of two folders by file name without extension, e.g. pictures decoded by a program of your own.

    Originals without a partner are left out. An original that is up to 7 px higher or wider is cropped at the bottom
    and right, as it was before it was coded. Codec and level are unknown; `num_bytes` is the size of the lq file.

    Args:
        lq: folder of compressed pictures.
        gt: folder of their originals.
        keeps_unread: a pair of which a picture cannot be read is taken in with 0x0 px, and fails when it is read.
    Raises:
        ConfigError: there is no picture in `lq`, two have one name, or one has no original or one of another size.
        ImageError: one cannot be read, unless `keeps_unread`.
    """
    for folder in (lq, gt):
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; expected one with pictures")
    originals, compressed = _by_stem(gt), _by_stem(lq)
    files: list[tuple[Path, Path]] = []
    infos: list[PairInfo] = []
    unread: dict[int, str] = {}
    for stem, lq_path in compressed.items():
        gt_path = originals.get(stem)
        if gt_path is None:
            raise ConfigError(f'{lq_path}: no picture named "{lq_path.stem}" in {gt}; remove it or add its original')
        try:
            shape, gt_shape = _size_of(lq_path), _size_of(gt_path)
        except ImageError as error:
            if not keeps_unread:
                raise
            shape = gt_shape = (0, 0)
            unread[len(files)] = str(error)
        if not all(0 <= original - ours < GRID_PX for ours, original in zip(shape, gt_shape, strict=True)):
            raise ConfigError(
                f"{lq_path}: {shape[1]}x{shape[0]} px, but its original {gt_path} has {gt_shape[1]}x{gt_shape[0]}; "
                f"expected the same size, or up to {GRID_PX - 1} px cropped at the bottom and right"
            )
        files.append((lq_path, gt_path))
        infos.append(PairInfo(gt_path.name, "unknown", -1, lq_path.stat().st_size, *shape))
    if not files:
        raise ConfigError(f"{lq}: no pictures in this folder; expected one per pair")
    return FilePairs(tuple(files), tuple(infos), unread)


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in found:
            raise ConfigError(
                f"{path}: pictures are paired by name, and {found[path.stem].name} has the same; keep one of each name"
            )
        found[path.stem] = path
    return found


class FilePairs:
    """Pairs in picture files; every crop decodes two whole pictures, which LMDB spares.

    Safe after a fork for 8-bit RGB PNG files without transparency, which is what `prepare` writes.
    """

    def __init__(
        self, files: Sequence[tuple[Path, Path]], infos: Sequence[PairInfo], unread: Mapping[int, str] | None = None
    ) -> None:
        self.infos = infos
        self.files = files
        self._unread = unread or {}

    def __len__(self) -> int:
        return len(self.infos)

    def read(self, index: int) -> tuple[RGB, RGB]:
        """Reads the whole pictures `lq` and `gt`, uint8, (H, W, 3).

        Raises:
            ImageError: one of the files is damaged.
            StoreError: one is smaller than the index says.
        """
        if index in self._unread:
            raise ImageError(self._unread[index])
        info, paths = self.infos[index], self.files[index]
        lq, gt = (_read_file(path)[: info.height, : info.width] for path in paths)
        for path, picture in zip(paths, (lq, gt), strict=True):
            if picture.shape[:2] != (info.height, info.width):
                raise StoreError(f"{path}: smaller than {info.width}x{info.height} px; make the store again")
        return lq, gt

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> tuple[RGB, RGB]:
        """Reads both pictures and gives the same rectangle of `lq` and `gt`."""
        return rectangle(self.read(index), top, left, height, width)


def _read_file(path: Path) -> RGB:
    """Reads a picture with Pillow where it gives the same pixels: libvips is not for a forked worker process."""
    from PIL import ExifTags, Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            # Pillow calls 16 bits RGB too and cuts the lower 8 off; what lies in the file its tiles tell.
            is_plain = [tile[3] for tile in picture.tile] == ["RGB"] and "transparency" not in picture.info
            if is_plain and picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
                return np.array(picture)
    except UnidentifiedImageError:
        pass
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be decoded ({first_line(error)})") from None
    return read_rgb(path)


def _size_of(path: Path) -> tuple[int, int]:
    picture = open_picture(path).autorot()
    return picture.height, picture.width
