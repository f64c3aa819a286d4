"""What is behind the web page of `sqe app`: serving it to nobody else, and what becomes of a picture."""

from __future__ import annotations

import math
import os
import signal
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .enhancing.enhancer import Enhancer
from .enhancing.files import BatchProgress, enhance_files
from .errors import ConfigError, ShapeError, SubjectiveQEError
from .evaluating.measures import MEASURES
from .formats.photos import count_pages
from .formats.pngchunks import add_chunks, png_chunk
from .images import middle, open_picture, read_rgb, write_png
from .metrics import Original

SHOWN_PX = 4096
"""Longest side under the slider; of larger pictures the middle is shown, since scaling hides blocks."""

_SUFFIX = "-enhanced"

_MOST_LPIPS_PX = 16e6
"""LPIPS takes some 150 bytes a pixel."""

_SHOWN = {"psnr_db": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS"}
"""Keys of `MEASURES`, and what they are called here."""


def serve(
    model: Path | None = None,
    runtime: str = "auto",
    host: str = "127.0.0.1",
    port: int | None = None,
    max_megapixels: float = 50,
    open_browser: bool = False,
    started: Callable[[str], object] = lambda _: None,
) -> None:
    """Serves the page, until the process is interrupted or asked to end; then no picture is left on the disk.

    Nothing is asked of the outside: no fonts, no scripts, no counting of users. Pictures are worked on one after the
    other; further ones queue.

    Args:
        model: see `Enhancer`.
        runtime: see `Enhancer`.
        host: address to listen on; the default is reached from this machine only, "0.0.0.0" from all.
        port: 1..65535; None for the first that is free from 7860 on.
        max_megapixels: pictures that are larger are refused.
        open_browser: show the page in this machine's browser.
        started: called with the page's address once it is served.
    Raises:
        ConfigError: the extra is not installed, the address is not this machine's or the port is taken, or an argument
            as of `Enhancer`.
        ModelError: see `Enhancer`.
    """
    if not 0 < max_megapixels < math.inf:
        raise ConfigError(f"max_megapixels: expected more than 0, and an end to it, got {max_megapixels:g}")
    host = host.strip("[]")
    _check_address(host)
    stopping = threading.Event()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="sqe-app-", ignore_cleanup_errors=True)))
        made = folder / "made"  # not where Gradio has its copies, or it would take them for such
        made.mkdir()
        ends.enter_context(_environment(folder / "served"))
        try:
            from . import page
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise ConfigError('the web page is not installed; run: pip install "subjectiveqe[app]"') from None
        blocks = page.build(model, runtime, max_megapixels, made, stopping)
        ends.enter_context(_ending_with(stopping))
        try:
            address = page.launch(blocks, f"[{host}]" if ":" in host else host, port, max_megapixels, open_browser)
        except OSError:  # Gradio's speaks of variables and arguments of its own
            raise ConfigError(
                f"{host}:{port or '7860 to 7959'}: cannot be listened on, others have it; choose another --port"
            ) from None
        started(address)
        blocks.block_thread()


def enhance(
    source: Path, folder: Path, enhancer: Enhancer, progress: Callable[[float], object] = lambda _: None
) -> tuple[Path, str]:
    """Enhances a picture as the command does, and says in a table what became of it.

    Args:
        source: any picture.
        folder: where the result is put.
        enhancer: see `Enhancer`.
        progress: called with the share that is done, 0..1; what it raises ends the work.
    Returns:
        The result, and a table in Markdown.
    Raises:
        SubjectiveQEError: a picture that cannot be read.
    """

    class Reported(BatchProgress):
        def advanced(self, files: float) -> None:
            progress(files)

    start_s = time.perf_counter()
    (outcome,) = enhance_files([source], folder, enhancer, suffix=_SUFFIX, progress=Reported()).outcomes
    seconds = time.perf_counter() - start_s
    if outcome.status == "failed":
        raise SubjectiveQEError(outcome.reason)
    out = outcome.job.target
    image = open_picture(out).autorot()  # its size alone is asked for
    notes = [f"{image.width} x {image.height} px in {seconds:.1f} s", *outcome.warnings]
    if max(image.width, image.height) > SHOWN_PX:
        notes.append("the middle is shown, the download has all")
    table = _table([("bytes", *(f"{path.stat().st_size:,}" for path in (source, out)))])
    return out, f"{table}\n\n{'; '.join(notes)}"


def measure(source: Path, out: Path, original: Path, progress: Callable[[], object] = lambda: None) -> str:
    """Says in a table how near two pictures are to an original.

    Args:
        source: as it was given.
        out: what became of it.
        original: what it was before it was compressed.
        progress: called before each measure; what it raises ends the work.
    Returns:
        A table in Markdown; a measure that pictures are too small or too large for is left empty.
    Raises:
        SubjectiveQEError: an original that cannot be read, or of another size.
    """
    gt, *pictures = (read_rgb(path) for path in (original, source, out))
    if gt.shape != pictures[0].shape:
        sizes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in (gt, pictures[0])]
        raise ConfigError(f"the original is {sizes[0]} px, the picture {sizes[1]}; take the original of this picture")
    rows, pristine = [], Original(gt)
    for name, heading in _SHOWN.items():
        measured = MEASURES[name]
        progress()
        try:
            if name == "lpips" and gt.size > 3 * _MOST_LPIPS_PX:
                raise ShapeError("takes too much memory")
            rows.append((heading, *(format(measured.of(picture, pristine), measured.form) for picture in pictures)))
        except ShapeError:
            rows.append((heading, "–", "–"))
    return _table(rows)


def check_size(path: Path, max_megapixels: float, name: str) -> None:
    """Refuses a picture that is too large for the page, all frames together, by ConfigError with a name for it."""
    image = open_picture(path)
    megapixels = image.width * image.height * count_pages(path, image) / 1e6
    if megapixels > max_megapixels:
        raise ConfigError(
            f"{name} has {megapixels:.3g} megapixels, this page takes {max_megapixels:g}; "
            'the command "sqe enhance" takes any'
        )


def show(source: Path, out: Path, folder: Path) -> tuple[Path, Path]:
    """Both pictures as PNG, which every browser shows, with their profiles."""
    shown = folder / "before.png", folder / "after.png"
    for path, place in zip((source, out), shown, strict=True):
        write_png(place, middle(read_rgb(path), SHOWN_PX))
        image = open_picture(path)
        profile = bytes(image.get("icc-profile-data")) if image.get_typeof("icc-profile-data") else b""
        if profile[16:20] == b"RGB ":
            add_chunks(place, [png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile))])
    return shown


def _table(rows: list[tuple[str, ...]]) -> str:
    return "\n".join(["| | before | after |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])


# ---------------------------------------------------------------- serving to nobody else


def _check_address(host: str) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.bind(address)
    except OSError as error:
        raise ConfigError(
            f"{host}: is no address of this machine ({error.strerror or error}); give --host another"
        ) from None


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """What Gradio reads from the environment while it serves.

    Its copies of pictures lie in a folder of this process alone; it asks no proxy for its own page, serves no file
    beside those, and leaves no history in the browser.
    """
    before = dict(os.environ)
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "GRADIO_ALLOWED_PATHS":
            del os.environ[name]
    os.environ.update(NO_PROXY="*", no_proxy="*", GRADIO_TEMP_DIR=str(folder), GRADIO_RUN_HISTORY="False")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _ending_with(stopping: threading.Event) -> Iterator[None]:
    """Takes requests to end for Ctrl-C, and sets an event for what is at work; signals that are ignored stay so."""

    def end(*_: object) -> None:
        stopping.set()
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last one not on Windows
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
