"""What the command shows: bars on stderr, lines of JSON on stdout, and what became of pictures and videos."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer

if TYPE_CHECKING:
    from .enhancing.files import BatchProgress, EnhanceResult, Outcome
    from .enhancing.video import Video

Progress: TypeAlias = Callable[[float, int], None]
"""Told how much is done and how much there is; 0 where that is not known."""


@contextmanager
def bar(what: str, is_drawn: bool = True) -> Iterator[Progress]:
    """A progress bar on stderr, drawn only if that is a terminal."""
    from rich import progress
    from rich.console import Console

    columns = (progress.TextColumn(what), progress.BarColumn(), progress.MofNCompleteColumn())
    console = Console(stderr=True)
    with progress.Progress(
        *columns,
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (is_drawn and console.is_terminal),
    ) as drawn:
        task = drawn.add_task(what, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total or None)


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
    with bar("pictures") as update:

        class Bar(BatchProgress):
            total = 0

            def started(self, total: int) -> None:
                self.total = total

            def advanced(self, pictures: float) -> None:
                update(pictures, self.total)

        yield Bar()


def tell_of_video(source: Path, target: Path, video: Video) -> None:
    """Prints what a video came to, warnings on stderr."""
    for warning in video.warnings:
        typer.echo(f"warning: {source}: {warning}", err=True)
    resumed = f", {video.resumed} of them by an earlier run" if video.resumed else ""
    typer.echo(f"{target}: {video.frames} frames{resumed}")


def tell_of_batch(result: EnhanceResult, quiet: bool, seconds: float) -> None:
    """Prints what was found while enhancing and the counts; where `quiet`, failures alone."""
    done, failed = result.of("done"), result.of("failed")
    for outcome in done if not quiet else ():
        for warning in outcome.warnings:
            typer.echo(f"warning: {outcome.job.source}: {warning}", err=True)
        if outcome.faithfulness:
            typer.echo(f"{outcome.job.target}: {outcome.faithfulness}")
    for outcome in failed:
        typer.echo(f"failed: {outcome.job.source}: {outcome.reason}", err=True)
    if not quiet:
        megapixels = sum(outcome.megapixels for outcome in done)
        counts = [f"{len(done)} enhanced", f"{len(result.of('skipped'))} skipped", f"{len(failed)} failed"]
        typer.echo(
            f"{', '.join(counts)}; {megapixels:.1f} megapixels in {seconds:.1f} s, "
            f"{megapixels / seconds:.2f} megapixels a second"
        )
