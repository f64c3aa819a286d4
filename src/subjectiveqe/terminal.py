"""What the command shows: bars on stderr, lines of JSON on stdout, and what became of pictures and videos."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer

if TYPE_CHECKING:
    from .enhancing.files import BatchProgress, EnhanceResult, Outcome
    from .evaluating.report import Table

Progress: TypeAlias = Callable[[float, int], None]
"""Told how much is done and how much there is; 0 where that is not known."""


@contextmanager
def bar(what: str, in_bytes: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr, drawn only if that is a terminal; bytes are shown as megabytes."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich import progress  # a tenth of a second, which nobody is to wait for in vain
    from rich.console import Console

    count = progress.DownloadColumn() if in_bytes else progress.MofNCompleteColumn()
    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),  # names may hold braces and brackets
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        count,
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as drawn:
        task = drawn.add_task(what, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total or None)


_AT_ONCE_S = 1.0
"""No bar is drawn for less than this."""


@contextmanager
def batch_progress(is_drawn: bool, as_json: bool) -> Iterator[BatchProgress]:
    """A bar on stderr that moves within pictures too, or a line of JSON for each picture on stdout."""
    from .enhancing.files import BatchProgress

    class Lines(BatchProgress):
        def finished(self, outcome: Outcome) -> None:
            typer.echo(json.dumps(outcome.as_dict()))

    if not is_drawn:
        yield Lines() if as_json else BatchProgress()
        return
    with ExitStack() as ends:

        class Bar(BatchProgress):
            total, start_s = 0, 0.0
            update: Progress | None = None

            def started(self, total: int) -> None:
                self.total, self.start_s = total, time.monotonic()

            def advanced(self, files: float) -> None:
                if self.update is None:
                    if time.monotonic() - self.start_s < _AT_ONCE_S:
                        return
                    self.update = ends.enter_context(bar("files"))
                self.update(files, self.total)

        yield Bar()


def tell_of_tables(tables: Sequence[Table]) -> None:
    """Prints tables of a report on stdout, with colours only if that is a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    styles = {"better": "green", "worse": "red", "": ""}
    console = Console()
    console = console if console.is_terminal else Console(width=_PAGE_COLUMNS)
    for table in tables:
        drawn = Drawn(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title=table.caption)
        drawn.title_justify, drawn.title_style = "left", ""
        for number, heading in enumerate(table.headings):
            drawn.add_column(heading, justify="right" if number else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text(cell.text, styles[cell.verdict]) for cell in row))
        console.print(drawn)
        for note in table.notes:
            console.print(Text(note))
        console.print()


_PAGE_COLUMNS = 160
"""Of a file or a pipe, which have no width of their own."""


def tell_of_outcome(outcome: Outcome) -> None:
    """Prints what was found while enhancing; on stderr where the picture itself goes to standard output."""
    for warning in outcome.warnings:
        typer.echo(f"warning: {outcome.job.source}: {warning}", err=True)
    if outcome.faithfulness:
        is_streamed = outcome.job.target == Path("-")
        name = "standard output" if is_streamed else outcome.job.target
        typer.echo(f"{name}: {outcome.faithfulness}", err=is_streamed)
    if video := outcome.video:
        resumed = f", {video.resumed} of them by an earlier run" if video.resumed else ""
        typer.echo(f"{outcome.job.target}: {video.frames} frames{resumed}")


def tell_of_batch(result: EnhanceResult, quiet: bool, seconds: float) -> None:
    """Prints what was found while enhancing and the counts; where `quiet`, failures alone."""
    done, failed = result.of("done"), result.of("failed")
    for outcome in done if not quiet else ():
        tell_of_outcome(outcome)
    for outcome in failed:
        typer.echo(f"failed: {outcome.job.source}: {outcome.reason}", err=True)
    if not quiet:
        megapixels = sum(outcome.megapixels for outcome in done)
        counts = [f"{len(done)} enhanced", f"{len(result.of('skipped'))} skipped", f"{len(failed)} failed"]
        typer.echo(
            f"{', '.join(counts)}; {megapixels:.1f} megapixels in {seconds:.1f} s, "
            f"{megapixels / seconds:.2f} megapixels a second"
        )
