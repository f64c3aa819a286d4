"""Reading pictures as RGB arrays, telling formats apart, and writing PNG."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .color import LUMA, luma
from .errors import ImageError, ShapeError, first_line, not_written
from .files import atomic_path, list_files, why_no_file
from .formats.pngchunks import read_chunk
from .processes import check_vips

if TYPE_CHECKING:
    import pyvips
    from PIL.ImageFile import ImageFile

RGB: TypeAlias = NDArray[np.uint8]
"""A picture as the whole package hands it around: uint8, (H, W, 3), sRGB."""

LARGEST_PX = 4_000_000_000
"""Pictures beyond it are taken for bombs: a few bytes that would unpack to hours of work."""

LARGEST_WHOLE_PX = 300_000_000
"""The same for formats that cannot be read in strips and have to lie in memory as a whole.

What Pillow reads (HEIC, BMP, PPM, and AVIF of 8 bits) may have no more than it takes: 178 megapixels, unless
`PIL.Image.MAX_IMAGE_PIXELS` was changed.
"""

IN_STRIPS = ("jpeg", "png", "tiff")

PNG_EFFORT: dict[str, Any] = {"compression": 4, "filter": "sub"}
"""On photographs: 18 MP/s, 1 % larger than all filters at level 6."""

EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".bmp"}
    | {".ppm", ".pgm", ".gif"}
)

CODE_POINTS = "code-points"
"""Metadata of an opened picture whose colours no profile here stands for: primaries/transfer/matrix by ITU-T H.273."""

LEFT_OUT = "left-out"
"""Metadata of an opened picture: what of the file is not read, separated by commas."""

_P3, _BT2020, _SRGB = 12, 9, (1, 13)
_HDR_TRANSFERS = (16, 18)  # PQ and HLG

_READ_BY_PILLOW = ("heic", "bmp", "ppm")  # pyvips-binary has no decoder for them


def list_images(folder: Path, recursive: bool = False, unread: Callable[[OSError], object] | None = None) -> list[Path]:
    """Paths of the picture files in a folder, by extension, sorted by name; see `files.list_files`."""
    return list_files(folder, EXTENSIONS, recursive, unread)


def check_name(path: Path) -> None:
    """Raises ImageError for a path that is not UTF-8: libraries that read and write pictures take no other."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ImageError(f"{path}: its name is not UTF-8; rename it") from None


def vips_name(path: Path) -> str:
    """The name of a file as libvips reads it, which takes what is in brackets at the end of others for options."""
    return f"{path}[]" if path.name.endswith("]") else str(path)


def sniff_format(path: Path) -> str:
    """Tells a picture's format by its first bytes, whatever its name says.

    Raises:
        ImageError: the file is missing, empty or of no format known here, or nobody may read it.
    """
    check_name(path)
    try:
        if not path.is_file():
            raise ImageError(f"{path}: {'is a folder' if path.is_dir() else why_no_file(path)}")
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not head:
        raise ImageError(f"{path}: is empty")
    if head[4:8] == b"ftyp":
        if head[8:12] == b"avis":
            raise ImageError(f"{path}: is an animated AVIF, which cannot be read; save it as GIF, WebP or PNG first")
        brands = {head[k : k + 4] for k in range(8, len(head), 4)}
        if brands & {b"avif", b"avis"}:
            return "avif"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "heic"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    for start, name in _STARTS.items():
        if head.startswith(start):
            return name
    known = ", ".join(sorted({*_STARTS.values(), "webp", "avif", "heic"}))
    raise ImageError(f"{path}: cannot be read as a picture (it is none of {known})")


_STARTS = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"P5": "ppm",
    b"P6": "ppm",
}


def open_picture(path: Path) -> pyvips.Image:
    """Opens a picture for reading once from top to bottom; of most formats no pixel is decoded yet.

    Raises:
        ImageError: the file is missing, empty, too large or of no format known here.
    """
    import pyvips

    from .formats.exif import is_camera_raw

    check_vips()
    # What libvips remembers of a picture keeps its file open, and Windows replaces no open file.
    pyvips.cache_set_max(0)
    kind = sniff_format(path)
    most = _largest_px(kind)
    if kind == "tiff" and is_camera_raw(path):
        raise ImageError(f"{path}: is a camera's raw file, of which the sensor's picture is not read; develop it first")
    try:
        if kind in _READ_BY_PILLOW:
            image = _open_by_pillow(path, kind)
        else:
            image = pyvips.Image.new_from_file(vips_name(path), access="sequential", fail_on="error")
        is_small = image.width * image.height <= most
        if kind == "avif" and is_small:
            deep = image.format == "ushort"  # of which Pillow would make 8 bits
            bits = image.get("bits-per-sample")
            image = _full_scale(image.copy_memory(), bits) if deep else _open_avif(path, image)
        if kind in ("avif", "heic") and is_small and _has_doubled_chroma(image):
            image = _with_smooth_chroma(image)
        # Of a PNG they count more than a profile, which is for those who do not know them; elsewhere less.
        if kind == "png" or (kind in ("avif", "heic") and is_small and not image.get_typeof("icc-profile-data")):
            image = _with_colours(image, _code_points(path, kind))
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise SyntaxError, RuntimeError and more for damaged files
        raise ImageError(f"{path}: cannot be read as a picture ({first_line(error)})") from None
    if not is_small:
        size = f"{image.width}x{image.height} px"
        raise ImageError(f"{path}: {size} are more than the {most // 10**6} megapixels that a {kind} may have here")
    return image


def check_frames(path: Path, kind: str, number: int, width: int, height: int) -> None:
    """Raises ImageError where the pages or frames of a file, of that size each, are too much together."""
    most = _largest_px(kind)
    if number * width * height > most:
        size = f"{number} frames of {width}x{height} px"
        raise ImageError(f"{path}: {size} are more than the {most // 10**6} megapixels that frames of {kind} may have")


def _largest_px(kind: str) -> int:
    return LARGEST_PX if kind in IN_STRIPS else LARGEST_WHOLE_PX


def _open_avif(path: Path, image: pyvips.Image) -> pyvips.Image:
    """As Pillow reads it, upright, but for what the file says beside its pixels, which Pillow writes anew.

    Where Pillow refuses the file for its EXIF, it is libvips' `image`.
    """
    import pyvips

    try:
        better = _open_by_pillow(path, "avif")
    except Exception as error:  # of the decoder, which has no class for it
        if "Exif" not in str(error):
            raise
        return image.copy_memory()
    for name in ("exif-data", "xmp-data"):
        if image.get_typeof(name):
            better.set_type(pyvips.GValue.blob_type, name, bytes(image.get(name)))
    better.set_type(pyvips.GValue.gint_type, "orientation", 1)
    return better


def _open_by_pillow(path: Path, kind: str) -> pyvips.Image:
    """Reads a picture that libvips has no decoder for, or a worse one; it lies in memory as a whole, upright."""
    import pyvips
    from PIL import Image, ImageOps

    if kind == "heic":
        import pillow_heif

        pillow_heif.register_heif_opener()
    bits = 8
    try:
        opened = Image.open(path)
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ImageError(f"{path}: has more than the {most // 10**6} megapixels that a {kind} may have here") from None
    with opened:
        pages = getattr(opened, "n_frames", 1)
        picture = ImageOps.exif_transpose(opened) if kind == "avif" else opened
        info = dict(picture.info)
        is_plain = picture.mode in ("L", "LA", "RGB", "RGBA", "I;16")
        is_deep_gray = kind == "ppm" and picture.mode == "I"  # 16 bits of gray, in 32
        if kind == "heic" and info["bit_depth"] > 8:  # of which Pillow would make 8
            heif = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)  # whose memory an array of it would look at
            bits, pixels = info["bit_depth"], np.array(heif)
        elif is_deep_gray:
            pixels = np.asarray(picture).astype(np.uint16)
        elif kind == "ppm" and picture.mode == "RGB" and (colours := _deep_colours(path, opened)) is not None:
            pixels = colours
        else:
            pixels = np.asarray(picture if is_plain else picture.convert("RGBA" if "transparency" in info else "RGB"))
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    deep = pixels.dtype == np.uint16
    gray = image.bands < 3
    image = image.copy(interpretation={(0, 0): "srgb", (0, 1): "b-w", (1, 0): "rgb16", (1, 1): "grey16"}[deep, gray])
    for name, key in (("icc-profile-data", "icc_profile"), ("exif-data", "exif"), ("xmp-data", "xmp")):
        if info.get(key):
            image.set_type(pyvips.GValue.blob_type, name, bytes(info[key]))
    if kind == "bmp" and min(info.get("dpi", (0, 0))) > 0:
        image = image.copy(xres=info["dpi"][0] / 25.4, yres=info["dpi"][1] / 25.4)
        image.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
    if pages > 1:
        image.set_type(pyvips.GValue.gint_type, "n-pages", pages)
    if lost := _left_out(info):
        image.set_type(pyvips.GValue.gstr_type, LEFT_OUT, ", ".join(lost))
    return _full_scale(image, bits) if bits > 8 else image


def _deep_colours(path: Path, picture: ImageFile) -> NDArray[np.uint16] | None:
    """Samples of a PPM file that has more than 8 bits, of which Pillow would make 8; None where it has not."""
    [(_, _, offset, arguments)] = picture.tile
    white = arguments[1] if isinstance(arguments, tuple) else 255
    if white <= 255:
        return None
    shape = (picture.height, picture.width, 3)
    samples = np.fromfile(path, ">u2", picture.height * picture.width * 3, offset=offset).reshape(shape)
    return np.minimum(np.rint(samples * (65535 / white)), 65535).astype(np.uint16)


def _left_out(info: Mapping[Any, Any]) -> list[str]:
    """Names the pictures beside the picture that a HEIC file has, by what `pillow_heif` says of it."""
    kinds = [str(kind) for kind in info.get("aux") or ()]
    depth = bool(info.get("depth_images")) or any("depth" in kind for kind in kinds)
    gain = any("gainmap" in kind for kind in kinds)
    others = any("gainmap" not in kind and "depth" not in kind for kind in kinds)
    names = {"its HDR gain map": gain, "its depth map": depth, "what else lies beside it (mattes)": others}
    return [name for name, is_there in names.items() if is_there]


def _code_points(path: Path, kind: str) -> tuple[int, ...]:
    """Primaries, transfer and matrix that a HEIF or PNG file tells by ITU-T H.273; empty where it does not.

    Source: ISO/IEC 14496-12, "colr" box, and PNG, third edition, "cICP"; no decoder here gives them for all files.
    """
    if kind == "png":
        told = read_chunk(path, b"cICP") or b""
        return tuple(told[:3]) if len(told) >= 3 else ()
    with path.open("rb") as file:
        _, mark, rest = file.read(1 << 16).partition(b"colrnclx")
    return struct.unpack(">3H", rest[:6]) if mark and len(rest) >= 6 else ()


def _with_colours(image: pyvips.Image, code_points: tuple[int, ...]) -> pyvips.Image:
    """Says what colours a picture without a profile has: by a profile, which all formats carry, where there is one."""
    import pyvips

    if not code_points:
        return image
    primaries, transfer, _ = code_points
    image = image.copy()
    if transfer in _HDR_TRANSFERS or primaries == _BT2020:
        image.set_type(pyvips.GValue.gstr_type, CODE_POINTS, "/".join(map(str, code_points)))
    elif primaries == _P3:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", vips_profile("p3"))
    elif (primaries, transfer) == _SRGB and image.get_typeof("icc-profile-data"):
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", vips_profile("srgb"))
    return image


def vips_profile(name: str) -> bytes:
    """An ICC profile that libvips brings along: "srgb" or "p3" (Display P3)."""
    import pyvips

    return bytes(pyvips.Operation.call("profile_load", name))


def _full_scale(image: pyvips.Image, bits: int) -> pyvips.Image:
    """Stretches samples that lie in the upper `bits` of 16, as HEIF libraries give them, so that white is 65535."""
    return (image * (65535 / (65536 - 2 ** (16 - bits)))).rint().cast("ushort")


_LOOKED_AT, _MOST_UNEVEN = 64, 1 / 512
"""Pairs of rows, and by how much the chroma of 2x2 pixels may differ on the mean, as a share of the range."""


def _has_doubled_chroma(image: pyvips.Image) -> bool:
    """Whether the chroma of each 2x2 pixels is one and the same, as libheif leaves 4:2:0, by rows from all over."""
    width = image.width // 2 * 2
    if image.bands < 3 or not width or image.height < 2:
        return False
    uneven = []
    for top in np.linspace(0, image.height - 2, _LOOKED_AT).astype(int) // 2 * 2:
        rgb = image.crop(0, int(top), width, 2).numpy()[..., :3].astype(np.float32)
        chroma = (rgb - luma(rgb)[..., None]).reshape(2, width // 2, 2, 3)
        uneven.append(np.abs(chroma - chroma.mean(axis=(0, 2), keepdims=True)).mean())
    return bool(np.mean(uneven) < _MOST_UNEVEN * (65535 if image.format == "ushort" else 255))


def _with_smooth_chroma(image: pyvips.Image) -> pyvips.Image:
    """Interpolates chroma (linearly, 3:1) where each sample was repeated for 2x2 pixels.

    It is what browsers show, and what training pictures went through: repeated samples make steps two pixels apart.
    """
    import pyvips

    width, height = (side + side % 2 for side in (image.width, image.height))
    even = image[:3].embed(0, 0, width, height, extend="copy")
    y = even.cast("float").recomb([list(LUMA)])  # of BT.601; other weights would do nearly as well here
    chroma = (even - y).shrink(2, 2)
    smooth = chroma.affine(
        [2, 0, 0, 2],
        interpolate=pyvips.Interpolate.new("bilinear"),
        idx=0.25,  # the middle of a sample is that of its 2x2 pixels
        idy=0.25,
        oarea=[0, 0, width, height],
        extend="copy",
    )
    rgb = (y + smooth).crop(0, 0, image.width, image.height).rint().cast(image.format)
    whole = rgb.bandjoin(image[3:]) if image.hasalpha() else rgb
    return whole.copy(interpretation=image.interpretation)


def read_rgb(path: Path) -> RGB:
    """Reads any picture as 8-bit RGB, upright; alpha is laid over white, extra pages are ignored.

    Colours are those of the file's own RGB or gray profile, which is not looked at; CMYK and Lab become sRGB.

    Returns:
        uint8, (H, W, 3).
    Raises:
        ImageError: the file is missing, damaged, cut short or no picture.
    """
    import pyvips

    picture = open_picture(path)
    try:
        picture = _to_8_bits(picture.autorot()).colourspace("srgb")
        if picture.hasalpha():
            picture = picture.flatten(background=255)
        pixels: RGB = picture.cast("uchar").numpy()
    except pyvips.Error as error:
        raise ImageError(f"{path}: cannot be decoded ({first_line(error)})") from None
    return np.ascontiguousarray(pixels[..., :3])


def middle(rgb: RGB, most_px: int) -> RGB:
    """The middle of a picture, at most so many pixels a side; a view."""
    top, left = (max(side - most_px, 0) // 2 for side in rgb.shape[:2])
    return rgb[top : top + most_px, left : left + most_px]


def write_png(path: Path, rgb: RGB) -> None:
    """Writes a lossless PNG; the final name appears only when the file is complete.

    Args:
        path: where to; an existing file is replaced.
        rgb: uint8 (H, W, 3).
    Raises:
        ImageError: the folder or the disk does not take it.
        ShapeError: an array that is no such picture.
    """
    import pyvips

    check_name(path)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ShapeError(f"{path}: expected a picture of uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    check_vips()
    image = pyvips.Image.new_from_array(np.ascontiguousarray(rgb), interpretation="srgb")
    try:
        with atomic_path(path) as aside:
            image.pngsave(str(aside), keep="none", **PNG_EFFORT)
    except (pyvips.Error, OSError) as error:
        raise ImageError(not_written(path, error)) from None


def _to_8_bits(picture: pyvips.Image) -> pyvips.Image:
    """Rounds 16-bit RGB or gray to 8 bits, alpha too; libvips' own conversion of gray is up to a level too dark."""
    eight = {"rgb16": "srgb", "grey16": "b-w"}.get(picture.interpretation)
    if eight is None or picture.format != "ushort":
        return picture
    return (picture / 257).rint().cast("uchar").copy(interpretation=eight)
