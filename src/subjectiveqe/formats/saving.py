"""Writing people's picture files while their rows are made, with everything kept that is not a pixel."""

from __future__ import annotations

import queue
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ImageError, not_written, unknown
from ..files import atomic_path
from ..images import PNG_EFFORT, check_name
from .apng import write_frames
from .carried import CARRIED
from .density import UNTOLD, leave_untold
from .exif import add_to_tiff, bare_exif, exif_of_jpeg, with_density, with_orientation
from .heif import replace_exif
from .iptc import photoshop_segments
from .jpegsegments import MOST_BYTES, add_segments, application, jfif
from .jpegxmp import xmp_segments
from .photos import FORMATS, Photo
from .pngchunks import add_chunks, png_chunk
from .rows import Pixels
from .webpchunks import replace_chunk

if TYPE_CHECKING:
    import pyvips

_QUALITY = {"jpeg": 95, "webp": 92, "avif": 85, "heic": 90}
_LOSSLESS = ("png", "tiff", "bmp")

LOSSY = ("jpeg", "gif")
"""Formats that are not lossless here, whatever is asked for; GIF has 255 colours."""
_WRITTEN_BY_PILLOW = ("heic", "bmp")  # pyvips-binary has no encoder for either
_OWN = {"jpeg": ("exif-data", "xmp-data", "iptc-data"), "png": ("exif-data",), "tiff": ("iptc-data",)}
"""What libvips would change, cut or lose, so `_add_own` writes the file's own bytes; in WebP and AVIF it puts those of
EXIF in the place of what libvips has written."""
_DENSITY_BY_EXIF = ("webp", "avif", "heic")
"""Formats that have no other place for print resolution."""

_SIDE_LIMIT_PX = {"jpeg": 65535, "webp": 16383, "avif": 65536, "heic": 65536}

_HELD_PX = 2**24
"""JPEG files of larger pictures get the standard's Huffman tables: for better ones, which save 3 % of their bytes,
libjpeg holds all coefficients, 6 bytes a pixel."""

_ROWS = 64
"""Rows that are handed over at a time."""


@dataclass(frozen=True)
class Saving:
    """How a picture is written.

    Attributes:
        format: a key of `FORMATS`; None for that of the source.
        quality: 1..100 for JPEG, WebP, AVIF and HEIC; None for 95, 92, 85 and 90.
        chroma: "444" or "420", for JPEG, AVIF and HEIC; what is lossless has 444.
        lossless: for WebP, AVIF and HEIC; PNG, TIFF and BMP always are, JPEG and GIF never.
        strip: drop EXIF, XMP, IPTC and print resolution; the profile stays, since colours depend on it.
    """

    format: str | None = None
    quality: int | None = None
    chroma: str = "444"
    lossless: bool = False
    strip: bool = False

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise unknown("format", self.format, FORMATS)
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ConfigError(f"quality {self.quality} is out of range, expected 1 to 100")
        if self.chroma not in ("444", "420"):
            raise ConfigError(f'chroma "{self.chroma}" is unknown, expected 444 or 420')
        if self.lossless and self.format in LOSSY:
            raise ConfigError(f"{self.format.upper()} has no lossless mode here; take png, webp, avif, heic or tiff")
        if self.lossless and self.quality is not None:
            raise ConfigError("what is lossless has no quality; leave one of the two out")

    def useless_for(self, format_out: str) -> list[str]:
        """The options that are given and that files of a format have no use for."""
        with_chroma = ("jpeg", "webp", "avif", "heic")  # WebP always has 420
        useless = {
            "--quality": self.quality is not None and format_out not in _QUALITY,
            "--chroma": self.chroma != "444" and format_out not in with_chroma,
        }
        return [name for name, is_useless in useless.items() if is_useless]

    def is_lossless(self, format_out: str) -> bool:
        """Whether a result of that format has the very pixels that were made."""
        return self.lossless or format_out in _LOSSLESS

    def format_for(self, source_format: str) -> str:
        """The format asked for, or the source's; PNG for what is read and not written (PPM)."""
        return self.format or (source_format if source_format in FORMATS else "png")


def write_photo(path: Path, photo: Photo, rows: Iterator[Pixels], saving: Saving, format_out: str) -> None:
    """Writes a changed copy of a photo; the final name appears only when the file is complete.

    JPEG, PNG and TIFF are written while the rows come; WebP, AVIF, HEIC and BMP hold the whole picture.

    Args:
        path: where to; an existing file is replaced.
        photo: what the pixels belong to.
        rows: from top to bottom, each (n, width, bands) of the photo's type; consumed in a thread of its own.
        saving: how; see `Saving`.
        format_out: key of `FORMATS`.
    Raises:
        ImageError: the format does not take such a picture, or the folder or disk does not take the file.
    """
    import pyvips

    check_name(path)
    limit = _SIDE_LIMIT_PX.get(format_out)
    if limit and max(photo.height, photo.width) > limit:
        raise ImageError(
            f"{path}: {photo.width}x{photo.height} px are more than the {limit} px a side that {format_out} can hold; "
            "choose png or tiff"
        )
    with _as_image(photo, rows) as (image, failure):
        attached = {
            name: content for name, content in photo.attached.items() if not saving.strip or name == "icc-profile-data"
        }
        if photo.orientation > 1 and format_out in ("jpeg", "webp") and "exif-data" not in attached:
            attached["exif-data"] = with_orientation(b"", photo.orientation)
        if photo.density != UNTOLD and format_out in _DENSITY_BY_EXIF and not saving.strip:
            attached["exif-data"] = with_density(attached.get("exif-data", b""), photo.density)
        image = image.copy()
        for name, content in attached.items():
            image.set_type(pyvips.GValue.blob_type, name, content)
        across, down = UNTOLD if saving.strip else photo.density
        image = image.copy(xres=across, yres=down)  # by then: libvips takes them from EXIF, whatever is told there
        if not saving.strip or photo.orientation > 1:  # else a stripped picture would lie on its side
            image.set_type(pyvips.GValue.gint_type, "orientation", photo.orientation)
        # Nothing attached must mean nothing written: libvips would make up an EXIF block.
        keep = "|".join(CARRIED[name] for name in attached if name not in _OWN.get(format_out, ())) or "none"
        if photo.orientation > 1 and format_out == "tiff":
            keep += "|exif"
        if photo.page_height < photo.height:
            image.set_type(pyvips.GValue.gint_type, "page-height", photo.page_height)
            for name, value in photo.timing.items():
                image.set_type(
                    pyvips.GValue.array_int_type if name == "delay" else pyvips.GValue.gint_type, name, value
                )
            keep += "|other"
        try:
            with atomic_path(path) as aside:
                if format_out == "png" and photo.page_height < photo.height:
                    write_frames(aside, image, photo.page_height, photo.timing, attached)
                elif format_out in _WRITTEN_BY_PILLOW:
                    _save_by_pillow(aside, image, attached, photo.code_points, saving, format_out)
                else:
                    _save(aside, image, keep, saving, format_out)
                _add_own(aside, attached, () if saving.strip else photo.texts, (image.xres, image.yres), format_out)
        except (pyvips.Error, OSError, ValueError) as error:
            if failure:  # the rows ended early, of which the encoder knows only that they did
                raise failure[0] from None
            raise ImageError(not_written(path, error)) from None


def _save(aside: Path, image: pyvips.Image, keep: str, saving: Saving, format_out: str) -> None:
    quality = saving.quality or _QUALITY.get(format_out, 0)
    full_chroma = "off" if saving.chroma == "444" else "on"
    if format_out == "jpeg":
        if image.hasalpha():
            image = image.flatten(background=255)
        is_held = image.width * image.height <= _HELD_PX
        image.jpegsave(str(aside), Q=quality, subsample_mode=full_chroma, optimize_coding=is_held, keep=keep)
    elif format_out == "png":
        image.pngsave(str(aside), keep=keep, **PNG_EFFORT)
    elif format_out == "webp":
        image.webpsave(
            str(aside), Q=quality, lossless=saving.lossless, exact=True, smart_subsample=True, alpha_q=100, keep=keep
        )
    elif format_out == "avif":
        is_deep = image.format == "ushort"
        (_to_10_bits(image) if is_deep else image).heifsave(
            str(aside),
            compression="av1",
            Q=quality,
            bitdepth=10 if is_deep else 8,
            lossless=saving.lossless,
            subsample_mode=full_chroma,
            keep=keep,
        )
    elif format_out == "gif":
        image.gifsave(str(aside), keep=keep)
    else:
        huge = image.width * image.height * image.bands * (2 if image.format == "ushort" else 1) > 2**31
        image.tiffsave(str(aside), compression="deflate", predictor="horizontal", bigtiff=huge, keep=keep)


def _add_own(
    aside: Path, attached: Mapping[str, bytes], texts: tuple[bytes, ...], density: tuple[float, float], format_out: str
) -> None:
    """Writes what libvips does not, or not as it was, into the file that it has written."""
    own = {name: attached[name] for name in _OWN.get(format_out, ()) if name in attached}
    if format_out == "jpeg":
        first = [] if density == UNTOLD else [jfif(density)]
        first += [application(1, exif_of_jpeg(own["exif-data"]))] if "exif-data" in own else []
        first += xmp_segments(own["xmp-data"]) if "xmp-data" in own else []
        first += [application(13, part) for part in photoshop_segments(own.get("iptc-data", b""), MOST_BYTES)]
        if first or texts:
            add_segments(aside, first, texts)
    elif format_out == "png":
        chunks = [png_chunk(b"eXIf", bare_exif(content)) for content in own.values()] + list(texts)
        if chunks:
            add_chunks(aside, chunks)
    elif format_out == "webp" and "exif-data" in attached:
        replace_chunk(aside, b"EXIF", bare_exif(attached["exif-data"]))
    elif format_out == "avif" and "exif-data" in attached:
        replace_exif(aside, attached["exif-data"])
    elif format_out == "tiff" and not attached.keys().isdisjoint(("exif-data", "iptc-data")):
        add_to_tiff(aside, attached.get("exif-data", b""), attached.get("iptc-data", b""))
    if density == UNTOLD:
        leave_untold(aside, format_out)


def _to_10_bits(image: pyvips.Image) -> pyvips.Image:
    """Rounds 16-bit samples to those of which HEIF libraries, which cut, take the upper 10 bits."""
    return ((image * (1023 / 65535)).rint() * 64).cast("ushort")


def _save_by_pillow(
    aside: Path,
    image: pyvips.Image,
    attached: Mapping[str, bytes],
    code_points: tuple[int, ...],
    saving: Saving,
    format_out: str,
) -> None:
    from PIL import Image

    if format_out == "bmp":
        opaque = image.flatten(background=255) if image.hasalpha() else image
        dpi = (0, 0) if (image.xres, image.yres) == UNTOLD else (image.xres * 25.4, image.yres * 25.4)
        Image.fromarray(_pixels(opaque)).save(aside, "BMP", dpi=dpi)
        return
    import pillow_heif

    pillow_heif.register_heif_opener()
    names = {"icc-profile-data": "icc_profile", "exif-data": "exif", "xmp-data": "xmp"}
    options: dict[str, Any] = {names[name]: content for name, content in attached.items() if name in names}
    quality = -1 if saving.lossless else saving.quality or _QUALITY["heic"]
    if code_points:
        names_of_points = ("color_primaries", "transfer_characteristics", "matrix_coefficients")
        options |= dict(zip(names_of_points, code_points, strict=True))
    if saving.lossless:
        options["matrix_coefficients"] = 0  # RGB as it is: Y, Cb and Cr are rounded
    chroma = 444 if saving.chroma == "444" or saving.lossless else 420
    if image.format == "ushort":  # which Pillow has for gray only
        image = _to_10_bits(image if image.bands > 2 else image.colourspace("rgb16"))
        mode = {3: "RGB;16", 4: "RGBA;16"}[image.bands]
        deep = pillow_heif.from_bytes(mode, (image.width, image.height), image.numpy().tobytes())
        deep.save(aside, quality=quality, chroma=chroma, **options)
    else:
        Image.fromarray(_pixels(image)).save(aside, "HEIF", quality=quality, chroma=chroma, **options)


def _pixels(image: pyvips.Image) -> Pixels:
    """Pixels as Pillow takes them; of a single gray one `numpy` makes a bare number."""
    pixels: Pixels = np.atleast_2d(image.numpy())
    return pixels


@contextmanager
def _as_image(photo: Photo, rows: Iterator[Pixels]) -> Iterator[tuple[pyvips.Image, list[BaseException]]]:
    """A libvips picture whose pixels arrive while it is written, and where a failure of the rows is put.

    libvips takes pixels from outside only as a file, so the rows become the cheapest file there is: a PNG that is not
    compressed. It is made in a thread of its own, two pieces ahead, since an encoder asks from threads of its own.
    """
    import pyvips

    pieces: queue.Queue[bytes] = queue.Queue(maxsize=2)
    failure: list[BaseException] = []
    is_over = threading.Event()

    def put(piece: bytes) -> None:
        while not is_over.is_set():
            try:
                pieces.put(piece, timeout=0.1)
                return
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for piece in _png_pieces(photo, rows):
                put(piece)
                if is_over.is_set():
                    return
        except BaseException as error:  # handed to the thread that writes
            failure.append(error)
        finally:
            photo.close()
        put(b"")

    rest = memoryview(b"")

    def read(size: int) -> bytes:
        nonlocal rest
        if not rest:
            rest = memoryview(pieces.get())
            if not rest:
                pieces.put(b"")  # the end stays the end
        taken, rest = bytes(rest[:size]), rest[size:]
        return taken

    source = pyvips.SourceCustom()
    source.on_read(read)
    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    try:
        try:
            image = pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error", unlimited=True)
        except pyvips.Error:
            if failure:
                raise failure[0] from None
            raise
        yield image, failure
    finally:
        is_over.set()
        producer.join()


def _png_pieces(photo: Photo, rows: Iterator[Pixels]) -> Iterator[bytes]:
    """An uncompressed PNG, piece by piece."""
    bits = 16 if photo.dtype == np.uint16 else 8
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[photo.bands]
    header = struct.pack(">IIBBBBB", photo.width, photo.height, bits, colour_type, 0, 0, 0)
    yield b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    stored = zlib.compressobj(0)
    for strip in rows:
        for top in range(0, len(strip), _ROWS):  # a strip is large, and is copied a few times on its way
            part = strip[top : top + _ROWS]
            samples = part.astype(">u2", copy=False) if bits == 16 else part
            lines = np.ascontiguousarray(samples).reshape(len(part), -1).view(np.uint8)
            piece = stored.compress(np.pad(lines, ((0, 0), (1, 0))).tobytes())  # a line begins with its filter: 0, none
            if piece:
                yield png_chunk(b"IDAT", piece)
    yield png_chunk(b"IDAT", stored.flush()) + png_chunk(b"IEND", b"")
