"""The only place where pictures are read from and written to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import ImageError, ShapeError
from .files import atomic_path

if TYPE_CHECKING:
    import pyvips

RGB: TypeAlias = NDArray[np.uint8]
"""A picture as the whole package hands it around: uint8, (H, W, 3), sRGB."""

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm", ".gif"})

_CARRIED = {"icc-profile-data": "icc", "exif-data": "exif", "xmp-data": "xmp", "iptc-data": "iptc"}
"""libvips' names of what a file says beside its pixels, and of the flags to save it; kept as the bytes they are."""


@dataclass(frozen=True)
class Picture:
    """A picture file's pixels in the colours of its own profile, upright, and what has to come along into the result.

    Attributes:
        rgb: uint8, (H, W, 3); three equal channels where the file is gray.
        alpha: uint8, (H, W), as the file has it; None where it has none.
        is_gray: the file has one channel of colour.
        attached: ICC profile, EXIF, XMP and IPTC as the bytes they are, by libvips' names.
        density: pixels per millimetre across and down; 1 where the file does not say.
        warnings: what of the file is not kept, one sentence each.
    """

    rgb: RGB
    alpha: NDArray[np.uint8] | None = None
    is_gray: bool = False
    attached: Mapping[str, bytes] = field(default_factory=dict)
    density: tuple[float, float] = (1.0, 1.0)
    warnings: tuple[str, ...] = ()


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """Paths of the picture files in a folder, by extension, sorted by name; hidden files are left out."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(p for p in found if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".") and p.is_file())


def open_picture(path: Path) -> pyvips.Image:
    """Opens a picture upright, for reading once from top to bottom; no pixel is decoded yet.

    Raises:
        ImageError: the file is missing, empty or of no format known here.
    """
    import pyvips

    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    try:
        return pyvips.Image.new_from_file(str(path), access="sequential", fail_on="error").autorot()
    except pyvips.Error as error:
        raise ImageError(f"{path}: cannot be read as a picture ({first_line(error)})") from None


def read_rgb(path: Path) -> RGB:
    """Reads any picture as 8-bit sRGB, upright; alpha is laid over white, extra pages are ignored.

    Returns:
        uint8, (H, W, 3).
    Raises:
        ImageError: the file is missing, damaged, cut short or no picture.
    """
    import pyvips

    picture = open_picture(path)
    try:
        picture = _to_8_bits(picture)
        if picture.hasalpha():
            white = 65535 if picture.format == "ushort" else 255
            picture = picture.flatten(background=white)
        pixels: RGB = picture.colourspace("srgb").cast("uchar").numpy()
    except pyvips.Error as error:
        raise ImageError(f"{path}: cannot be decoded ({first_line(error)})") from None
    return np.ascontiguousarray(pixels[..., :3])


def read_picture(path: Path) -> Picture:
    """Reads a picture with everything that a changed copy of it has to keep.

    Colours stay in the file's own RGB or gray profile. CMYK and Lab become sRGB, since PNG holds neither; 16-bit
    channels become 8-bit; of several pages the first is taken; each of these is a warning.

    Raises:
        ImageError: the file is missing, damaged, cut short or no picture.
    """
    import pyvips

    source = open_picture(path)
    attached = {name: bytes(source.get(name)) for name in _CARRIED if source.get_typeof(name)}
    density = (source.xres, source.yres)
    warnings = []
    try:
        if source.get_typeof("n-pages") and source.get("n-pages") > 1:
            warnings.append("only the first page is kept")
        if source.format != "uchar":
            warnings.append(f"{_DEPTHS.get(source.format, source.format)} become 8-bit")
        if source.interpretation not in _KEPT_COLOURS:
            warnings.append(f"{source.interpretation} colours become sRGB")
            if "icc-profile-data" in attached and source.interpretation == "cmyk":
                source = source.icc_transform("srgb", embedded=True)
            attached.pop("icc-profile-data", None)
        source = _to_8_bits(source)
        is_gray = source.interpretation == "b-w"
        pixels: NDArray[np.uint8] = source.colourspace("b-w" if is_gray else "srgb").cast("uchar").numpy()
    except pyvips.Error as error:
        raise ImageError(f"{path}: cannot be decoded ({first_line(error)})") from None
    pixels = pixels.reshape(*pixels.shape[:2], -1)  # libvips gives one channel without its axis
    colours = 1 if is_gray else 3
    rgb = pixels[..., :colours]
    alpha = np.ascontiguousarray(pixels[..., colours]) if pixels.shape[2] > colours else None
    rgb = np.repeat(rgb, 3, axis=2) if is_gray else np.ascontiguousarray(rgb)
    return Picture(rgb, alpha, is_gray, attached, density, tuple(warnings))


def write_png(path: Path, picture: RGB | Picture) -> None:
    """Writes a lossless PNG; the final name appears only when the file is complete.

    Args:
        path: where to; an existing file is replaced.
        picture: uint8 (H, W, 3), or one with alpha and all that is attached; a gray one is the mean of its channels.
    Raises:
        ImageError: the folder or the disk does not take it.
        ShapeError: an array that is no such picture.
    """
    import pyvips

    whole = picture if isinstance(picture, Picture) else Picture(picture)
    if whole.rgb.dtype != np.uint8 or whole.rgb.ndim != 3 or whole.rgb.shape[2] != 3:
        raise ShapeError(f"{path}: expected a picture of uint8 (H, W, 3), got {whole.rgb.dtype} {whole.rgb.shape}")
    colours: NDArray[np.uint8] = whole.rgb
    if whole.is_gray:
        colours = ((whole.rgb.sum(axis=2, dtype=np.uint16) + 1) // 3).astype(np.uint8)
    interpretation = "b-w" if whole.is_gray else "srgb"
    out = pyvips.Image.new_from_array(np.ascontiguousarray(colours), interpretation=interpretation)
    if whole.alpha is not None:
        out = out.bandjoin(pyvips.Image.new_from_array(whole.alpha, interpretation="b-w"))
    out = out.copy(interpretation=interpretation, xres=whole.density[0], yres=whole.density[1])
    for name, content in whole.attached.items():
        out.set_type(pyvips.GValue.blob_type, name, content)
    keep = "|".join(_CARRIED[name] for name in whole.attached) or "none"  # else libvips makes up an EXIF block
    out.set_type(pyvips.GValue.gint_type, "orientation", 1)  # pixels are upright; the attached EXIF may say otherwise
    try:
        with atomic_path(path) as aside:
            # Level 4 with the "sub" filter, on photographs: 18 MP/s, 1 % larger than all filters at level 6.
            out.pngsave(str(aside), compression=4, filter="sub", keep=keep)
    except (pyvips.Error, OSError) as error:
        raise ImageError(f"{path}: cannot be written ({first_line(error)}); is the disk full?") from None


def first_line(error: Exception) -> str:
    """The first line of a library's message that names the cause."""
    # pyvips says first which of its own calls failed, and why in the detail.
    lines = (getattr(error, "detail", "") or str(error)).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _to_8_bits(picture: pyvips.Image) -> pyvips.Image:
    """Rounds 16-bit RGB or gray to 8 bits, alpha too; libvips' own conversion of gray is up to a level too dark."""
    eight = {"rgb16": "srgb", "grey16": "b-w"}.get(picture.interpretation)
    if eight is None or picture.format != "ushort":
        return picture
    return (picture / 257).rint().cast("uchar").copy(interpretation=eight)


_DEPTHS = {"ushort": "16-bit channels", "float": "floating-point channels"}
_KEPT_COLOURS = ("srgb", "rgb", "b-w", "rgb16", "grey16")
