"""Rate-distortion curves: each measure against bits per pixel, as compressed and as enhanced."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence

from .measures import MEASURES
from .report import Plot
from .results import Curve, Row, curves

_COLUMNS = 4
_CELL_IN = (3.4, 2.8)
"""Size of one pair of axes, in inches."""


def rate_distortion(rows: Sequence[Row]) -> list[Plot]:
    """Draws one picture for each set and codec with two levels or more.

    Args:
        rows: one per picture and level; where there is no model, the compressed pictures alone are drawn.
    Raises:
        ModuleNotFoundError: matplotlib is missing.
    """
    found = [(*key, of_measures) for key, of_measures in curves(rows).items()]
    return [
        Plot(
            _caption(set_name, codec, of_measures),
            _draw(of_measures, f"plot{number}", f"Rate-distortion curves of {set_name}, {codec}"),
        )
        for number, (set_name, codec, of_measures) in enumerate(found, start=1)
        if any(len(curve.bpp) > 1 for curve in of_measures.values())
    ]


def _caption(set_name: str, codec: str, of_measures: Mapping[str, Curve]) -> str:
    whole = max(curve.num_pictures + len(curve.left_out) for curve in of_measures.values())
    text = f"{set_name}, {codec}: means over the pictures that all levels have ({whole}), by bits per pixel."
    parts = [f"{MEASURES[name].heading} {len(c.left_out)}" for name, c in of_measures.items() if c.left_out]
    return text + (f" Left out, since a value is not finite: {', '.join(parts)}." if parts else "")


def _draw(of_measures: Mapping[str, Curve], prefix: str, label: str) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = -(-len(of_measures) // _COLUMNS)
    columns = min(len(of_measures), _COLUMNS)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "subjectiveqe", "font.size": 9}):
        figure = Figure(figsize=(_CELL_IN[0] * columns, _CELL_IN[1] * rows), layout="constrained")
        lines = {}
        for place, (name, curve) in enumerate(of_measures.items(), start=1):
            axes = figure.add_subplot(rows, columns, place)
            axes.set_title(MEASURES[name].heading)
            if not curve.bpp:
                axes.text(0.5, 0.5, "no picture with finite values", ha="center", transform=axes.transAxes)
                axes.set_axis_off()
                continue
            for side, style, values in (("compressed", "o--", curve.before), ("enhanced", "o-", curve.after)):
                if values is not None:
                    points = sorted(zip(curve.bpp, values, strict=True))
                    lines[side] = axes.plot(*zip(*points, strict=True), style, label=side, markersize=4)[0]
            axes.set_xscale("log")
            axes.minorticks_off()
            ticks = _ticks(*axes.get_xlim())
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.ticklabel_format(axis="y", style="plain", useOffset=False)
            axes.set_xlabel("bits per pixel")
            axes.set_ylabel(MEASURES[name].way)
            axes.grid(alpha=0.3)
        figure.legend(handles=list(lines.values()), loc="outside upper left", ncols=2)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    # Ids of several drawings meet in one page.
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}-", text[text.index("<svg") :])
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range: 1, 2, 5, 10 ..., or evenly spaced ones where it holds fewer than three of those."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    ticks: list[float] = []
    for locator in (LogLocator(subs=(1, 2, 5), numticks=15), MaxNLocator(7, steps=[1, 2, 5, 10])):
        if len(ticks) < 3:
            ticks = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
    return ticks
