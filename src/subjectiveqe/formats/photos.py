"""People's picture files: read in strips, with everything kept that is not a pixel; `saving` writes them again.

`images` hands whole 8-bit RGB arrays around, as metrics and training want them. A photo is more: a profile, EXIF,
alpha, 16 bits, one channel, and perhaps more pixels than memory. Here it goes through as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError, first_line
from ..images import CODE_POINTS, check_frames, open_picture, sniff_format, vips_name, vips_profile
from .apng import STILL_PICTURE_LOST, count_frames, read_frames
from .carried import BARE, attached_of, carried_by, said_of_lost, texts_of
from .density import read_density
from .exif import orientation_of, read_tables
from .pngchunks import read_behind_pixels, read_chunk, read_gamma, read_primaries
from .rows import Pixels, reader, with_seen_colours

if TYPE_CHECKING:
    import pyvips

FORMATS: Mapping[str, tuple[str, ...]] = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "webp": (".webp",),
    "avif": (".avif",),
    "heic": (".heic", ".heif"),
    "tiff": (".tif", ".tiff"),
    "gif": (".gif",),
    "bmp": (".bmp",),
}
"""What can be written, and by which extensions of a file it is asked for."""

_PAGED = ("webp", "tiff", "gif")
_ANIMATED = ("webp", "gif", "png")
TURNED_BY_VIEWERS = ("jpeg", "tiff", "webp")
"""Formats whose EXIF orientation is obeyed everywhere."""
_WITHOUT_GRAY = ("webp", "avif", "heic")  # it is written as RGB, to which a profile of gray says nothing
_OF_10_BITS = ("avif", "heic")
_WITHOUT_ALPHA = ("jpeg", "bmp")


@dataclass(frozen=True)
class Photo:
    """A picture file, opened for reading once from top to bottom; of formats with strips nothing is decoded yet.

    Attributes:
        height: in px, of all pages (or frames) one below the other.
        width: in px.
        page_height: of one page in px; `height` where there is but one.
        bands: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
        read: gives the next n rows, (n, width, bands), in the colours of the file's own profile (ImageError where the
            file is damaged). With alpha, the colours follow a second time, for the network to see, and there pixels
            that are fully transparent have the colour of the visible ones around: a hidden colour cannot bleed out.
        close: ends reading; to be called by the thread that has read.
        attached: ICC profile, EXIF, XMP and IPTC by libvips' names, as the bytes they are and the result has them: EXIF
            with the orientation below and without thumbnail, IPTC in Photoshop's blocks for a JPEG and bare for a TIFF.
        texts: what a PNG says in words, chunk by chunk, or a JPEG in comments and further segments of XMP; none for a
            result of another format.
        code_points: of its colours by ITU-T H.273, which say what no profile can: primaries, transfer, matrix.
        timing: how long each frame is shown and how often all are, by libvips' names.
        density: pixels per millimetre across and down; 1 where the file does not say.
        orientation: EXIF tag 1..8 that viewers still have to obey; 1 where pixels are upright.
        warnings: what of the file is not kept, one sentence each.
    """

    height: int
    width: int
    page_height: int
    bands: int
    dtype: type[np.uint8] | type[np.uint16]
    read: Callable[[int], Pixels]
    close: Callable[[], None]
    attached: Mapping[str, bytes] = field(default_factory=dict)
    texts: tuple[bytes, ...] = ()
    code_points: tuple[int, ...] = ()
    timing: Mapping[str, Any] = field(default_factory=dict)
    density: tuple[float, float] = (1.0, 1.0)
    orientation: int = 1
    warnings: tuple[str, ...] = ()

    @property
    def is_gray(self) -> bool:
        """One channel of colour."""
        return self.bands < 3

    @property
    def has_alpha(self) -> bool:
        """The last channel is alpha."""
        return self.bands in (2, 4)


def open_photo(path: Path, format_out: str) -> Photo:
    """Opens a picture with everything that a changed copy of it has to keep.

    Colours stay in the file's own RGB or gray profile; CMYK and Lab become sRGB, tagged so, with a warning. All pages
    come along if both formats have several; else the first, with a warning. Pixels stay as they lie in the file with
    their EXIF orientation, so that a tall picture needs no more memory than a wide one, unless viewers of the format it
    is going to do not obey the tag.

    Args:
        path: of any format of `FORMATS`, or PPM.
        format_out: key of `FORMATS` it will be written in.
    Raises:
        ImageError: the file is missing, damaged, too large, or no picture.
    """
    import pyvips

    kind, image = sniff_format(path), open_picture(path)
    try:
        number = count_pages(path, image)
        density = read_density(path, kind, image)
        lost: tuple[str, ...] = ()
        if number > 1 and kind == "png" and format_out in (*_PAGED, "png"):
            is_deep = image.format == "ushort"
            image, has_still = read_frames(path, image)
            lost = (STILL_PICTURE_LOST,) if has_still else ()
            lost += ("what frames have beyond 8 bits",) if is_deep else ()
        elif number > 1 and kind in _PAGED and (format_out in _PAGED or {kind, format_out} <= set(_ANIMATED)):
            with suppress(pyvips.Error):  # pages of several sizes: the first is taken
                image = pyvips.Image.new_from_file(vips_name(path), access="sequential", fail_on="error", n=-1)
                check_frames(path, kind, image.height // image.get_page_height(), image.width, image.get_page_height())
        return _describe(path, image, kind, format_out, number, lost, density)
    except pyvips.Error as error:
        raise ImageError(f"{path}: cannot be decoded ({first_line(error)})") from None


def count_pages(path: Path, image: pyvips.Image) -> int:
    """How many pages or frames a file has, of which `image` is the first as `open_picture` gives it."""
    if sniff_format(path) == "png":
        return count_frames(path)
    return image.get("n-pages") if image.get_typeof("n-pages") else 1


def _describe(
    path: Path,
    image: pyvips.Image,
    kind: str,
    format_out: str,
    pages: int,
    lost: tuple[str, ...],
    density: tuple[float, float],
) -> Photo:
    """What there is to know of a picture; `pages` and `density` are the file's, `lost` what is left out already."""
    behind = read_behind_pixels(path) if kind == "png" else {}
    attached, further_xmp, said_of_attached = attached_of(path, image, kind, format_out, behind)
    texts, said_of_texts = texts_of(path, kind, format_out)
    warnings = [*said_of_lost(path, image, kind, lost), *said_of_texts, *said_of_attached]
    if kind == "png" and "icc-profile-data" not in attached and read_chunk(path, b"cICP") is None:
        if gamma := read_gamma(path):
            warnings.append(f"its gamma ({gamma:g}) is not kept")
        if read_primaries(path):
            warnings.append("its primaries (cHRM) are not kept")
    orientation = image.get("orientation") if image.get_typeof("orientation") else 1
    if "exif-data" in behind and not image.get_typeof("exif-data"):
        orientation = orientation_of(behind["exif-data"])
    code_points = _code_points(path, image, format_out)
    timing = {name: image.get(name) for name in ("delay", "loop") if image.get_typeof(name)}
    image, profile, said_of_colours = _plain(path, image, kind, format_out)
    warnings += said_of_colours
    page_height, bands = image.get_page_height(), image.bands
    if pages > image.height // page_height:
        warnings.append("only the first page is kept")
    if format_out == "gif" != kind:
        warnings.append("gif has 256 colours, and pixels that are seen or not")
    if bands in (2, 4) and format_out in _WITHOUT_ALPHA:
        warnings.append(f"alpha is laid over white, {format_out} has none")
    is_turned = orientation > 1 and format_out not in TURNED_BY_VIEWERS
    changes_sides = is_turned and orientation > 4
    if is_turned:
        image, page_height = _upright(image, page_height)
        orientation = 1
    attached, said_of_carried = carried_by(attached, profile, format_out, orientation, changes_sides)
    return Photo(
        image.height,
        image.width,
        page_height,
        bands,
        np.uint16 if image.format == "ushort" else np.uint8,
        *reader(path, with_seen_colours(image) if bands in (2, 4) else image),
        attached,
        texts + further_xmp,
        code_points,
        timing=timing,
        density=density[::-1] if changes_sides else density,
        orientation=orientation,
        warnings=(*warnings, *said_of_carried),
    )


def _code_points(path: Path, image: pyvips.Image, format_out: str) -> tuple[int, ...]:
    """Those of HDR or BT.2020, which HEIC alone takes here; ImageError where the result is another format."""
    if not image.get_typeof(CODE_POINTS):
        return ()
    said: str = image.get(CODE_POINTS)
    if format_out != "heic":
        raise ImageError(
            f"{path}: its colours are HDR or BT.2020 (code points {said}), "
            "which are written as HEIC alone here; add --format heic"
        )
    return tuple(map(int, said.split("/")))


def _plain(path: Path, image: pyvips.Image, kind: str, format_out: str) -> tuple[pyvips.Image, bytes | None, list[str]]:
    """A picture as RGB or gray of 8 or 16 bits, with or without alpha; its profile then, and what is to be said."""
    said = []
    profile = bytes(image.get("icc-profile-data")) if image.get_typeof("icc-profile-data") else None
    is_deep = image.format == "ushort"
    if image.interpretation == "multiband":
        raise ImageError(f"{path}: its colours are of a kind that is not known here; save it as RGB first")
    if image.interpretation not in ("srgb", "rgb", "b-w", "rgb16", "grey16", "scrgb"):
        said.append(f"{image.interpretation} colours become sRGB")
        if profile and image.interpretation == "cmyk":
            image = image.icc_transform("srgb", embedded=True, depth=16 if is_deep else 8)
        else:
            image = image.colourspace("rgb16" if is_deep else "srgb")
        profile = vips_profile("srgb")
    elif image.format not in ("uchar", "ushort"):
        raise ImageError(f"{path}: its samples are of type {image.format}; save it with 8 or 16 bits a channel first")
    colours = 1 if image.interpretation in ("b-w", "grey16") else 3
    bands = colours + (image.bands > colours and (kind != "tiff" or _has_alpha(path)))
    if bands < image.bands:
        said.append(f"channels beside the colours ({image.bands - bands}) are not kept")
        image = image[0] if bands == 1 else image[:bands]
    if becomes_srgb(image, format_out):
        image, profile = _in_srgb(image), None
    if image.format == "ushort" and format_out in _OF_10_BITS and kind not in _OF_10_BITS:
        said.append(f"16-bit channels become 10-bit, {format_out} has no more here")
    if image.format == "ushort" and format_out not in ("png", "tiff", *_OF_10_BITS):
        said.append(f"16-bit channels become 8-bit, {format_out} has no more")
        image = (image / 257).rint().cast("uchar").copy(interpretation="b-w" if image.bands < 3 else "srgb")
    depth, space = ("ushort", ("rgb16", "grey16")) if image.format == "ushort" else ("uchar", ("srgb", "b-w"))
    return image.colourspace(space[image.bands < 3]).cast(depth), profile, said


def becomes_srgb(image: pyvips.Image, format_out: str) -> bool:
    """Whether a format does not take a picture's profile, so that its numbers change for its look to stay."""
    is_taken = format_out not in (*BARE, *(_WITHOUT_GRAY if image.bands < 3 else ()))
    return bool(image.get_typeof("icc-profile-data")) and not is_taken


def _in_srgb(image: pyvips.Image) -> pyvips.Image:
    """Pixels as they look through their profile; as they are where that is damaged."""
    import pyvips

    try:
        seen = image.icc_transform("srgb", embedded=True, depth=16 if image.format == "ushort" else 8)
    except pyvips.Error:
        return image
    if image.bands > 2:
        return seen
    gray = seen[1].copy(interpretation=image.interpretation)  # as red and blue are
    return gray.bandjoin(seen[3]) if seen.bands > 3 else gray


def _has_alpha(path: Path) -> bool:
    """Whether a TIFF file with more channels than colours says that the first of these is alpha, or nothing."""
    with suppress(Exception), path.open("rb") as file:
        return read_tables(file)["ifds"][0]["tags"][_EXTRA_SAMPLES]["data"][0] in (1, 2)
    return True


_EXTRA_SAMPLES = 338


def _upright(image: pyvips.Image, page_height: int) -> tuple[pyvips.Image, int]:
    """Turns each page as its orientation says; gives the pages below each other, and the height of one."""
    import pyvips

    image = image.copy_memory()
    tops = range(0, image.height, page_height)
    pages = [image.crop(0, top, image.width, page_height).autorot() for top in tops]
    return pyvips.Image.arrayjoin(pages, across=1), pages[0].height
