"""What several commands have in common: options, exit codes, and how a command ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..enhancing.enhancer import Enhancer

PARTLY_DONE = 1
NOTHING_DONE = 2
INTERRUPTED = 130

Out: TypeAlias = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
Model: TypeAlias = Annotated[
    Path | None, typer.Option(help="fast, fast-int8, best, or a model file; the fastest if not given.")
]
Strength: TypeAlias = Annotated[float, typer.Option(help="0 (most faithful) to 1 (most pleasing).")]
Also: TypeAlias = Annotated[list[str] | None, typer.Option(help="A measure to take too, such as ms_ssim or lpips_vgg.")]
Without: TypeAlias = Annotated[list[str] | None, typer.Option(help="A measure to leave out, such as dists.")]
Runtime: TypeAlias = Annotated[str, typer.Option(help="auto, onnxruntime, openvino or torch.")]


def exit_by(failed: Sequence[object], total: int) -> None:
    """Ends the command with the exit code that fits, where something failed."""
    if failed:
        raise typer.Exit(PARTLY_DONE if len(failed) < total else NOTHING_DONE)


def close(summary: str, num_done: int, failed: Sequence[tuple[Path, str]]) -> None:
    """Lists what failed, prints the summary and ends with the exit code that fits."""
    for path, reason in failed:
        typer.echo(f"failed: {path}: {reason.removeprefix(f'{path}: ')}", err=True)
    typer.echo(summary)
    exit_by(failed, num_done + len(failed))


def refuse(given: Mapping[str, object], what: str) -> None:
    """Refuses options that would do nothing."""
    if useless := [name for name, value in given.items() if value]:
        raise ConfigError(f"{', '.join(useless)}: not for {what}; leave it out")


def warn_of_no_dial(enhancer: Enhancer, strength: float) -> None:
    """Tells of a model that runs at another strength than was asked for."""
    if enhancer.strength != strength:
        typer.echo(f"{enhancer.name}: has no dial, runs at strength {enhancer.strength:g}", err=True)
