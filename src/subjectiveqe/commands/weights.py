"""`sqe weights`: what judges and losses need and the package does not bring along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import bar

weights_app = typer.Typer(help="List, fetch or import what judges need.", no_args_is_help=True)


@weights_app.command("list")
def list_() -> None:
    """Show which weights are here, what for, under which licence, and how to get the others."""
    from ..weights import list_weights, remedy

    for weights in list_weights():
        typer.echo(f"{weights.name}: {weights.purpose}\n    {weights.path or f'not here; {remedy(weights.name)}'}")
        for source in weights.source:
            typer.echo(f"    in {source.file}: {source.license}")


@weights_app.command()
def fetch(name: Annotated[str, typer.Argument(help='A name of "sqe weights list".')]) -> None:
    """Download weights and check them."""
    from ..weights import fetch_weights

    with bar(name, in_bytes=True) as progress:
        names = fetch_weights(name, progress)
    typer.echo(f"here now: {', '.join(names)}")


@weights_app.command("import")
def import_(file: Annotated[Path, typer.Argument(help="A file that was downloaded by other means.")]) -> None:
    """Take weights from a downloaded file."""
    from ..weights import import_weights

    typer.echo(f"here now: {', '.join(import_weights(file))}")
