"""The command `sqe`: each command, in `commands/`, parses its options and calls one documented function of the package.

Modules are imported inside the commands, so that `sqe --help` answers at once and bundled models need no torch.
Exit codes: 0 all done, 1 some inputs failed (each is listed), 2 nothing could be done, 130 interrupted.
"""

from __future__ import annotations

import io
import signal
import sys
import traceback
import warnings
from typing import Annotated

import typer

from . import __version__
from .commands import pictures, research, weights
from .commands.shared import INTERRUPTED, NOTHING_DONE
from .errors import FULL_DISK, PICTURE_FAILED, reason_of

# rich_markup_mode=None: help drawn by rich costs 0.2 s of start-up
app = typer.Typer(name="sqe", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(pictures.enhance)
app.command("app")(pictures.web_page)
app.command()(pictures.demo)
app.command()(pictures.doctor)
app.command()(research.prepare)
app.command()(research.train)
app.command()(research.evaluate)
app.command()(research.benchmark)
app.command()(research.export)
app.command()(research.quantize)
app.command()(research.calibrate)
app.command()(research.average)
app.add_typer(weights.weights_app, name="weights")

_GO_ON = {
    "enhance": "finished pictures are whole, and --skip-existing goes on behind them; videos go on where they were",
    "prepare": "the same command goes on where it was",
    "train": "--resume goes on from the last checkpoint",
    "benchmark": "the same command goes on where it was",
}
"""What to tell a person who has interrupted a command."""

_REPLACED = "finished pictures have been replaced; to go on, name only the others"


def main() -> int:
    """Runs the command line of this process and gives its exit code."""
    for stream in (sys.stdout, sys.stderr):  # what is redirected on Windows has letters of one part of the world only
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    code = _run_command()
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more while Python winds up would end it without this code
        hint = _REPLACED if "--in-place" in sys.argv else _GO_ON.get("".join(sys.argv[1:2]))
        if hint and sys.stderr.isatty():
            typer.echo(f"interrupted; {hint}", err=True)
    return code


def _run_command() -> int:
    # Pillow's, from half of what is refused on; how large pictures may be is said in one line where they are read.
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
    shows_traceback = "--debug" in sys.argv  # taken from anywhere: it is added to a command that has just failed
    try:
        sys.argv[1:] = [word for word in sys.argv[1:] if word != "--debug"]
        app()  # of words that it is given it would not expand "*.jpg", which no shell of Windows does
    except SystemExit as stop:  # typer ends every run so; its own usage errors end with 2
        return stop.code if isinstance(stop.code, int) else NOTHING_DONE
    except (*PICTURE_FAILED, ModuleNotFoundError) as error:
        if shows_traceback:
            traceback.print_exc()
        typer.echo(f"error: {_one_line(error)}", err=True)
        return NOTHING_DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


@app.callback(invoke_without_command=True)
def start(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # for --help
) -> None:
    """Makes compressed pictures look good again."""
    if version:
        typer.echo(f"subjectiveqe {__version__}")
        raise typer.Exit


_OF_TRAINING = ("torch", "onnx", "safetensors", "tensorboard")


def _one_line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        extra = "[train]" if error.name in _OF_TRAINING else ""
        return f'the module "{error.name}" is not installed; run: pip install "subjectiveqe{extra}"'
    if isinstance(error, OSError):
        remedy = "; make room and run the command again" if error.errno in FULL_DISK else ""
        return f"{error.filename or 'a file'}: {error.strerror or error}{remedy}"
    return " ".join(reason_of(error).split())
