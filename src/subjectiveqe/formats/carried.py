"""What a picture's file says beside its pixels: what of it a result has, and what is to be said of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..images import LEFT_OUT
from .credentials import has_credentials
from .exif import (
    bare_exif,
    can_go_into_tiff,
    exif_of_tiff,
    has_place,
    iptc_of_tiff,
    is_block,
    with_density_turned,
    with_orientation,
    without_thumbnail,
)
from .iptc import iptc_for, iptc_of_jpeg, iptc_records
from .jpegsegments import GAIN_MAP, MOST_BYTES, other_pictures, read_application, read_comments
from .jpegxmp import join_xmp, read_extension, without_gain_map
from .pngchunks import keyword, read_profiles_in_words, read_texts

if TYPE_CHECKING:
    import pyvips

CARRIED = {"icc-profile-data": "icc", "exif-data": "exif", "xmp-data": "xmp", "iptc-data": "iptc"}
"""libvips' names of what a file says beside its pixels, and of the flags to save it; kept as the bytes they are."""

BARE = ("gif", "bmp")
"""Formats that take nothing but pixels."""

_NOT_KEPT = {
    b"hdrgm:": GAIN_MAP,
    b"Camera:MicroVideo": "its motion video",
    b"Camera:MotionPhoto": "its motion video",
}
"""What XMP says is hidden behind the picture's end."""


def said_of_lost(path: Path, image: pyvips.Image, kind: str, lost: tuple[str, ...]) -> list[str]:
    """What a file holds beside its picture that no result has, each once."""
    lost += tuple(image.get(LEFT_OUT).split(", ")) if image.get_typeof(LEFT_OUT) else ()
    xmp = bytes(image.get("xmp-data")) if image.get_typeof("xmp-data") else b""
    lost += tuple(what for mark, what in _NOT_KEPT.items() if mark in xmp)
    if kind == "jpeg" and GAIN_MAP not in lost:
        lost += other_pictures(path)
    said = [f"{what} is not kept" for what in dict.fromkeys(lost)]
    return said + ["content credentials (C2PA) are not kept"] * has_credentials(path, kind)


def texts_of(path: Path, kind: str, format_out: str) -> tuple[tuple[bytes, ...], list[str]]:
    """Texts of a PNG or comments of a JPEG, which go into a result of the same format alone."""
    texts = {"png": read_texts, "jpeg": read_comments}[kind](path) if kind in ("png", "jpeg") else ()
    if not texts or format_out == kind:
        return texts, []
    what = f"texts ({b', '.join(map(keyword, texts)).decode('latin-1')})" if kind == "png" else "comments"
    return (), [f"its {what} are not kept, {format_out} has none"]


def carried_by(
    attached: dict[str, bytes], profile: bytes | None, format_out: str, orientation: int, changes_sides: bool
) -> tuple[dict[str, bytes], list[str]]:
    """What goes along with a result's pixels, of what a file says beside its own, and what does not."""
    if attached and format_out in BARE:
        return {}, [f"profile, EXIF and XMP are not kept, {format_out} has none"]
    carried, said = {name: value for name, value in attached.items() if name != "icc-profile-data"}, []
    if profile is not None:
        carried["icc-profile-data"] = profile
    takes = {"tiff": can_go_into_tiff, "avif": is_block}.get(format_out)
    if takes and "exif-data" in carried and not takes(carried["exif-data"]):
        said.append("EXIF is damaged and not kept")
        del carried["exif-data"]
    if "exif-data" in carried:
        exif = with_density_turned(carried["exif-data"]) if changes_sides else carried["exif-data"]
        carried["exif-data"] = with_orientation(exif, orientation)
    num_bytes, most = len(bare_exif(carried.get("exif-data", b""))), MOST_BYTES - 6  # bytes, which name it
    if format_out == "jpeg" and num_bytes > most:
        said.append(f"EXIF of {num_bytes} bytes is not kept, jpeg has {most} for it")
        del carried["exif-data"]
    return carried, said


def attached_of(
    path: Path, image: pyvips.Image, kind: str, format_out: str, behind: Mapping[str, bytes]
) -> tuple[dict[str, bytes], tuple[bytes, ...], list[str]]:
    """What a file says beside its pixels, as the result has it, its further segments of XMP, and what is to be said.

    `behind` is what libvips does not see of it.
    """
    attached = read_profiles_in_words(path) if kind == "png" else {}
    attached |= dict(behind) | {name: bytes(image.get(name)) for name in CARRIED if image.get_typeof(name)}
    if kind == "jpeg" and "iptc-data" in attached:  # libvips reads the first segment alone
        attached["iptc-data"] = iptc_of_jpeg(read_application(path, 13, b"Photoshop 3.0\0")) or attached["iptc-data"]
    further = read_extension(path) if kind == "jpeg" and "xmp-data" in attached else ()
    said = []
    if further and format_out != "jpeg":
        joined = join_xmp(attached["xmp-data"], further)
        attached["xmp-data"], further = joined or attached["xmp-data"], ()
        said += [] if joined else ["XMP beyond 64 KB is damaged and not kept"]
    if "xmp-data" in attached:
        attached["xmp-data"] = without_gain_map(attached["xmp-data"])
    if kind == "tiff" and (exif := exif_of_tiff(path)):
        attached["exif-data"] = exif
        if format_out != "tiff" and has_place(exif):
            said.append(f"its place on Earth (GeoTIFF) is not kept, {format_out} has none")
    if "exif-data" in attached:
        attached["exif-data"] = without_thumbnail(attached["exif-data"])
    iptc = attached.pop("iptc-data", b"")
    iptc = iptc_of_tiff(path) if kind == "tiff" else iptc
    if kept := iptc_for(iptc, format_out):
        attached["iptc-data"] = kept
    elif iptc_records(iptc):
        said.append(f"IPTC is not kept, {format_out} has none")
    return attached, further, said
