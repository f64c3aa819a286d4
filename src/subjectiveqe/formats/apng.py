"""Animated PNG, of which libvips knows the first frame only: frames one below the other, as it has those of WebP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, first_line
from ..images import check_frames
from .pngchunks import read_chunk

if TYPE_CHECKING:
    import pyvips

STILL_PICTURE_LOST = "the picture for viewers that do not animate"


def count_frames(path: Path) -> int:
    """How many frames a PNG file announces; 1 where it is a plain one."""
    return max(int.from_bytes((read_chunk(path, b"acTL") or b"")[:4], "big"), 1)


def read_frames(path: Path, first: pyvips.Image) -> tuple[pyvips.Image, bool]:
    """Reads all frames as they are shown; they lie in memory as a whole.

    Args:
        path: a PNG file with frames.
        first: its first frame by libvips, with what the file says beside its pixels; it also says whether it is gray.
    Returns:
        8-bit frames one below the other, with their timing; and whether a still picture that is no frame is left out.
    Raises:
        ImageError: the file is damaged or too large.
    """
    import pyvips
    from PIL import Image

    check_frames(path, "apng", count_frames(path), first.width, first.height)
    frames: list[NDArray[np.uint8]] = []
    delays: list[int] = []
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            loop = int(picture.info.get("loop", 0))
            has_still = bool(getattr(picture, "default_image", False))
            for index in range(has_still, getattr(picture, "n_frames", 1)):
                picture.seek(index)
                frames.append(np.asarray(picture.convert("RGBA")))
                delays.append(round(float(picture.info.get("duration", 0))))
    except Exception as error:  # Pillow's decoder raises SyntaxError, EOFError, struct.error and more
        raise ImageError(f"{path}: cannot be decoded ({first_line(error)})") from None
    if not frames:
        raise ImageError(f"{path}: cannot be decoded (no frames)")
    pixels = np.concatenate(frames)
    bands = [0, 3] if first.bands < 3 else [0, 1, 2, 3]
    if (pixels[..., 3] == 255).all():
        bands.remove(3)
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels[..., bands]))
    image = image.copy(interpretation="b-w" if image.bands < 3 else "srgb", xres=first.xres, yres=first.yres)
    for name in first.get_fields():
        if name.endswith("-data"):
            image.set_type(pyvips.GValue.blob_type, name, bytes(first.get(name)))
    image.set_type(pyvips.GValue.gint_type, "page-height", first.height)
    image.set_type(pyvips.GValue.gint_type, "n-pages", len(frames))
    image.set_type(pyvips.GValue.gint_type, "loop", loop)
    image.set_type(pyvips.GValue.array_int_type, "delay", delays)
    return image, has_still


def write_frames(
    path: Path, image: pyvips.Image, page_height: int, timing: Mapping[str, Any], attached: Mapping[str, bytes]
) -> None:
    """Writes frames that lie one below the other; all of them lie in memory.

    Args:
        path: where to.
        image: 8-bit frames.
        page_height: of one of them, in px.
        timing: "delay" in ms for each, "loop" as often as all are shown, 0 for ever.
        attached: ICC profile and XMP by libvips' names.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    pixels = image.numpy().reshape(-1, page_height, image.width, image.bands)
    frames = [Image.fromarray(frame[..., 0] if image.bands == 1 else frame) for frame in pixels]
    options: dict[str, Any] = {"icc_profile": attached.get("icc-profile-data")}
    if "xmp-data" in attached:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", attached["xmp-data"].decode("utf-8", "replace"))
    if (image.xres, image.yres) != (1, 1):
        options["dpi"] = (image.xres * 25.4, image.yres * 25.4)
    if "delay" in timing:
        options["duration"] = list(timing["delay"])
    frames[0].save(
        path, "PNG", save_all=True, append_images=frames[1:], loop=timing.get("loop", 0), blend=0, disposal=0, **options
    )
