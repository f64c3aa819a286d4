"""The demo: compresses the bundled pictures, enhances them and shows what became of them, within a minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .codecs import crop_to_multiple, get_codec
from .data.store import PairInfo
from .enhancing.enhancer import Enhancer
from .evaluating.evaluate import evaluate
from .evaluating.measures import MEASURES
from .evaluating.results import Row, Summary
from .images import RGB, read_rgb
from .samples import samples

if TYPE_CHECKING:
    from rich.table import Table

CASES = (("hevc", 37), ("jpeg", 10))
"""Codec and level (QP, QF): what the seed was trained for, and JPEG about as coarse as one meets it."""

SHOWN = ("psnr_db", "ssim", "lpips", "blockiness")
"""Measures in the printed table; the report has them all."""


class SamplePairs:
    """The bundled pictures through each codec of `CASES`, as a pair set in memory."""

    def __init__(self) -> None:
        infos = []
        self._pairs: list[tuple[RGB, RGB]] = []
        for name, level in CASES:
            codec = get_codec(name)
            for path in samples():
                gt = crop_to_multiple(read_rgb(path), 8)
                coded = codec.code(gt, level)
                infos.append(PairInfo(path.stem, name, level, coded.num_bytes, *gt.shape[:2]))
                self._pairs.append((coded.rgb, gt))
        self.infos: Sequence[PairInfo] = tuple(infos)

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> tuple[RGB, RGB]:
        """Whole pictures, lq and gt."""
        return self._pairs[index]

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> tuple[RGB, RGB]:
        """Views of the same part of lq and gt."""
        lq, gt = self._pairs[index]
        window = slice(top, top + height), slice(left, left + width)
        return lq[window], gt[window]


def run_demo(out: Path, model: Path | None = None, progress: Callable[[int, int], None] | None = None) -> Summary:
    """Compresses the bundled pictures, enhances them, measures both and writes a report with before/after sliders.

    Args:
        out: folder of the report, made if missing.
        model: see `Enhancer`.
        progress: called with the numbers of finished and of all pictures.
    Raises:
        ModelError: the model cannot be used.
    """
    enhancer = Enhancer(model)
    return evaluate(enhancer, {"samples": SamplePairs()}, out, progress=progress)


def make_table(rows: Sequence[Row]) -> Table:
    """The rows as a table for the terminal: each picture before (as the codec left it) and after enhancing."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)  # fits 80 columns
    for heading in ("picture", "codec"):
        table.add_column(heading, no_wrap=True)
    for heading in ("bytes", "bpp", "", *(MEASURES[name].heading for name in SHOWN)):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        info = row.info
        before, after = (
            [format(values[name], MEASURES[name].form) for name in SHOWN] for values in (row.before, row.after or {})
        )
        table.add_row(
            info.name, f"{info.codec} {info.level}", str(info.num_bytes), f"{info.bpp:.2f}", "before", *before
        )
        table.add_row("", "", "", "", "after", *after)
    return table
