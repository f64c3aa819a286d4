"""Rate-distortion curves: each measure against bits per pixel, as compressed and as enhanced."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from .measures import MEASURES
from .report import Plot
from .results import Group, by_curve

_COLUMNS = 4
_CELL_IN = (3.4, 2.6)
"""Size of one pair of axes, in inches."""


def rate_distortion(groups: Sequence[Group]) -> list[Plot]:
    """Draws one picture for each set and codec with two levels or more.

    Args:
        groups: means per set, codec and level; where there is no model, the compressed pictures alone are drawn.
    Raises:
        ModuleNotFoundError: matplotlib is missing.
    """
    return [
        Plot(f"{set_name}, {codec}: means over the pictures, by bits per pixel.", _draw(levels))
        for (set_name, codec), levels in by_curve(groups).items()
        if len(levels) > 1
    ]


def _draw(levels: Sequence[Group]) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    levels = sorted(levels, key=lambda group: group.bpp)
    names = list(levels[0].before)
    rows = -(-len(names) // _COLUMNS)
    columns = min(len(names), _COLUMNS)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "subjectiveqe", "font.size": 9}):
        figure = Figure(figsize=(_CELL_IN[0] * columns, _CELL_IN[1] * rows), layout="constrained")
        for place, name in enumerate(names, start=1):
            axes = figure.add_subplot(rows, columns, place)
            for label, style in (("compressed", "o--"), ("enhanced", "o-")):
                sides = [group.before if label == "compressed" else group.after for group in levels]
                points = [
                    (group.bpp, side[name])
                    for group, side in zip(levels, sides, strict=True)
                    if side is not None and math.isfinite(side[name])
                ]
                if points:
                    axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_title(MEASURES[name].heading)
            axes.grid(alpha=0.3)
            if place == 1:
                axes.legend()
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
