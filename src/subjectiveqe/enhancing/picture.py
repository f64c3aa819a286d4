"""Enhancing one file: looked at as a whole, read in strips, written with all that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..codecs.file_header import file_coarseness
from ..formats.photos import Photo, open_photo
from ..formats.rows import Pixels
from ..formats.saving import Saving, write_photo
from .enhancer import Enhancer
from .faithful import Faithfulness, LumaIntervals
from .look import Look, mean_look, with_file
from .strips import PASSING_ROWS


class Made(NamedTuple):
    """A file that was enhanced, and what there is to say of it."""

    photo: Photo
    report: Faithfulness | None
    taken_for: str | None


def enhance_picture(
    source: Path,
    target: Path,
    enhancer: Enhancer,
    saving: Saving,
    format_out: str,
    faithful: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Enhances a picture file; arguments and errors as of `files.enhance_files`, progress as of `Enhancer.strips`."""
    intervals = LumaIntervals(source, format_out) if faithful else None
    looks = _look_at_pages(source, format_out, enhancer)
    photo = open_photo(source, format_out)
    strips = enhance_photo(photo, enhancer, looks, progress)
    report = Faithfulness() if faithful else None
    if intervals and report:
        strips = intervals.keep(strips, report)
    write_photo(target, photo, strips, saving, format_out)
    if report and not saving.is_lossless(format_out):
        warning = (
            f"saved with loss, as {format_out}: fewer coefficients agree with the file than before; png keeps them"
        )
        photo = replace(photo, warnings=(*photo.warnings, warning))
    return Made(photo, report, enhancer.taken_for(looks[0]))


def _look_at_pages(source: Path, format_out: str, enhancer: Enhancer) -> list[Look]:
    """At each page as a whole; takes a reading of the file to the last patch, which costs little beside the network.

    Frames that are shown one after the other get one look, or the picture would pulse.
    """
    photo = open_photo(source, format_out)
    looks = []
    try:
        for top in range(0, photo.height, photo.page_height):
            rest = photo.page_height

            def read(count: int) -> Pixels:
                nonlocal rest
                rest -= count
                return _as_seen(photo, photo.read(count))

            looks.append(enhancer.look_at_strips(read, photo.page_height, photo.width))
            while rest and top + photo.page_height < photo.height:
                read(min(rest, PASSING_ROWS))
    finally:
        photo.close()
    if photo.timing:
        looks = [mean_look(looks)] * len(looks)
    if looks[0].coarseness is None or enhancer.assume is not None:
        return looks
    said = file_coarseness(source, len(looks[0].coarseness))
    return [with_file(look, said) for look in looks]


def _as_seen(photo: Photo, rows: Pixels) -> Pixels:
    """Rows of a photo as RGB for the network."""
    return np.repeat(rows[..., -1:], 3, axis=2) if photo.is_gray else rows[..., -3:]


def enhance_photo(
    photo: Photo,
    enhancer: Enhancer,
    looks: Sequence[Look],
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Pixels]:
    """Gives the enhanced rows of a photo, as many bands as it has; alpha, and colours nobody sees, are the photo's own.

    Args:
        photo: read from here to its end.
        enhancer: see `Enhancer`.
        looks: one for each page, see `Enhancer.strips`.
        progress: see `Enhancer.strips`.
    Yields:
        Rows from top to bottom, (n, width, bands) of the photo's type.
    """
    waiting: list[Pixels] = []  # rows of the photo whose enhanced colours are still to come

    def read(count: int) -> Pixels:
        rows = photo.read(count)
        if photo.has_alpha:
            waiting.append(rows[..., : photo.bands])
        return _as_seen(photo, rows)

    for strip in _pages(photo, enhancer, read, looks, progress):
        better = strip[..., :1] if photo.is_gray else strip
        if photo.has_alpha:
            rows = np.concatenate(waiting)
            waiting[:] = [rows[len(strip) :]]
            hidden = rows[: len(strip), :, -1:] == 0
            better = np.dstack((np.where(hidden, rows[: len(strip), :, :-1], better), rows[: len(strip), :, -1]))
        yield better


def _pages(
    photo: Photo,
    enhancer: Enhancer,
    read: Callable[[int], Pixels],
    looks: Sequence[Look],
    progress: Callable[[int, int], None] | None,
) -> Iterator[Pixels]:
    """The strips of all pages one after the other, each page a picture of its own to the network."""
    for page, look in enumerate(looks):

        def advance(done: int, total: int, page: int = page) -> None:
            if progress is not None:
                progress(page * total + done, len(looks) * total)

        yield from enhancer.strips(read, photo.page_height, photo.width, look, advance)
