"""One HTML file that opens anywhere: tables and before/after sliders, and nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import write_text
from ..images import RGB, middle
from ..processes import check_vips

SHOWN_PX = 1024
"""Longest side of a picture in a report; of larger ones the middle is shown, since scaling hides blocks."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
        text: what it says.
        verdict: "better" or "worse" (shown by colour and by a mark), or "".
    """

    text: str
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a report; its first column names the rows.

    Args:
        caption: one sentence.
        headings: one per column.
        rows: cells, as many as headings.
        notes: footnotes.
        is_open: shown unfolded, wherever it stands.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    is_open: bool = False


@dataclass(frozen=True)
class Comparison:
    """One picture before, after and as it was, encoded; made by `compare`."""

    title: str
    caption: str
    width: int
    height: int
    is_cropped: bool
    lq: str
    out: str | None
    gt: str


@dataclass(frozen=True)
class Plot:
    """A drawing of a report.

    Args:
        caption: one sentence.
        svg: the drawing, an <svg> element that needs nothing from elsewhere.
    """

    caption: str
    svg: str


def compare(title: str, caption: str, lq: RGB, out: RGB | None, gt: RGB) -> Comparison:
    """Prepares one before/after slider; the pictures are embedded without loss.

    Args:
        title: names the picture.
        caption: one line below it, such as its measures.
        lq: compressed picture, uint8 (H, W, 3).
        out: enhanced picture, or None where there is no model.
        gt: original picture.
    """
    before, after, original = (None if image is None else _data_uri(middle(image, SHOWN_PX)) for image in (lq, out, gt))
    height, width = (min(side, SHOWN_PX) for side in gt.shape[:2])
    is_cropped = (height, width) != gt.shape[:2]
    return Comparison(title, caption, width, height, is_cropped, before or "", after, original or "")


def write_report(
    path: Path,
    title: str,
    tables: Sequence[Table],
    comparisons: Sequence[Comparison],
    facts: Mapping[str, str],
    failed: Sequence[tuple[str, str]] = (),
    plots: Sequence[Plot] = (),
) -> None:
    """Writes the report; an existing file is replaced when the new one is complete.

    Args:
        path: the .html file.
        title: heading of the page.
        tables: shown in this order, the first open, the others folded unless they say otherwise.
        comparisons: sliders, shown between the first table and the others.
        facts: model, machine, command, ...: shown at the end.
        failed: name and reason of what could not be measured; shown at the top.
        plots: shown after the first table.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2")
    shown = {"tables": tables, "plots": plots, "comparisons": comparisons, "facts": facts, "failed": failed}
    write_text(path, page.render(title=title, **shown))


def _data_uri(image: RGB) -> str:
    import pyvips

    check_vips()
    picture = pyvips.Image.new_from_array(np.ascontiguousarray(image), interpretation="srgb")
    data = picture.webpsave_buffer(lossless=True, effort=2)
    return "data:image/webp;base64," + base64.b64encode(data).decode()
