"""What the command shows while it works: bars on stderr, lines of JSON on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import typer

if TYPE_CHECKING:
    from .enhancing.files import BatchProgress, Outcome

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
