"""The demo: compresses the bundled pictures, or one's own, enhances them and shows what became of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .codecs import crop_to_multiple, get_codec
from .data.pairs import PairInfo, rectangle
from .enhancing.enhancer import Enhancer
from .errors import ImageError, ShapeError
from .evaluating.evaluate import evaluate
from .evaluating.measures import MEASURES
from .evaluating.results import Row, Summary
from .files import is_folder
from .images import RGB, middle, read_rgb
from .samples import samples

if TYPE_CHECKING:
    from rich.table import Table

CASES = (("hevc", 37), ("jpeg", 10))
"""Codec and level (QP, QF): what the seed was trained for, and JPEG about as coarse as one meets it."""

LONGEST_PX = 1024
"""Of larger pictures the middle is taken: it shows as much, and is done in seconds."""

SHOWN = ("psnr_db", "ssim", "lpips", "blockiness")
"""Measures in the printed table; the report has them all."""


class DemoPairs:
    """Pictures through each codec of `CASES`, as a pair set in memory.

    Args:
        paths: good pictures.
    Raises:
        ImageError: one cannot be read.
        ShapeError: one is too small for a codec.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        originals = [(path.stem, _middle(path)) for path in paths]
        infos = []
        self._pairs: list[tuple[RGB, RGB]] = []
        for name, level in CASES:
            codec = get_codec(name)
            for stem, gt in originals:
                coded = codec.code(gt, level)
                infos.append(PairInfo(stem, name, level, coded.num_bytes, *gt.shape[:2]))
                self._pairs.append((coded.rgb, gt))
        self.infos: Sequence[PairInfo] = tuple(infos)

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> tuple[RGB, RGB]:
        """Whole pictures, lq and gt."""
        return self._pairs[index]

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> tuple[RGB, RGB]:
        """Views of the same part of lq and gt."""
        return rectangle(self._pairs[index], top, left, height, width)


def _middle(path: Path) -> RGB:
    try:
        return crop_to_multiple(middle(read_rgb(path), LONGEST_PX), 8)
    except ShapeError as error:
        raise ShapeError(f"{path}: {error}") from None


def run_demo(
    out: Path,
    model: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    pictures: Sequence[Path] = (),
) -> Summary:
    """Compresses pictures, enhances them, measures both and writes a report with before/after sliders.

    Args:
        out: folder of the report, made if missing.
        model: see `Enhancer`.
        progress: called with the numbers of finished and of all pictures.
        pictures: good ones, which are taken for originals; the bundled ones if there are none. Of those larger than
            `LONGEST_PX` the middle is taken.
    Raises:
        ImageError: a picture cannot be read.
        ModelError: the model cannot be used.
        ShapeError: a picture is too small.
    """
    if folder := next((path for path in pictures if is_folder(path)), None):
        raise ImageError(f"{folder}: is a folder; name some pictures in it, as {folder / '*.jpg'}")
    pairs = {"pictures": DemoPairs(pictures)} if pictures else {"samples": DemoPairs(samples())}
    return evaluate(Enhancer(model), pairs, out, progress=progress)


_NAME_LETTERS = 14
"""Of a picture's name; more would not leave 80 columns enough for the figures."""


def make_table(rows: Sequence[Row]) -> Table:
    """The rows as a table for the terminal: each picture before (as the codec left it) and after enhancing."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)  # fits 80 columns
    table.add_column("picture", no_wrap=True, max_width=_NAME_LETTERS)
    table.add_column("codec", no_wrap=True)
    for heading in ("bytes", "bpp", "", *(MEASURES[name].heading for name in SHOWN)):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        info = row.info
        before, after = (
            [format(values[name], MEASURES[name].form) for name in SHOWN] for values in (row.before, row.after or {})
        )
        table.add_row(
            Text(info.name), f"{info.codec} {info.level}", str(info.num_bytes), f"{info.bpp:.2f}", "before", *before
        )
        table.add_row("", "", "", "", "after", *after)
    return table
