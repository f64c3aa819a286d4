"""The web page of `sqe app`: drop a picture, see it before and after, take it home."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import metrics
from .dial import DEFAULT_STRENGTH
from .enhancing.enhancer import Enhancer
from .enhancing.files import BatchProgress, enhance_files
from .errors import ConfigError, SubjectiveQEError
from .images import EXTENSIONS, RGB, open_picture, read_rgb, write_png
from .photos import count_pages

if TYPE_CHECKING:
    import gradio as gr

SHOWN_PX = 4096
"""Longest side under the slider; of larger pictures the middle is shown, since scaling hides blocks."""

_KEPT_S = 3600
"""How long the page's copies of pictures stay on the disk, in seconds."""

_SUFFIX = "-enhanced"


def serve(
    model: Path | None = None,
    runtime: str = "auto",
    host: str = "127.0.0.1",
    port: int | None = None,
    max_megapixels: float = 50,
    open_browser: bool = False,
    started: Callable[[str], object] = lambda _: None,
) -> None:
    """Serves the page, until it is interrupted.

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
        ConfigError: the extra is not installed, the port is taken, or an argument as of `Enhancer`.
        ModelError: see `Enhancer`.
    """
    try:
        import gradio as gr
    except ModuleNotFoundError:
        raise ConfigError('the web page is not installed; run: pip install "subjectiveqe[app]"') from None
    page = build_page(model, runtime, max_megapixels)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            enable_monitoring=False,
            show_error=True,
            footer_links=[],
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )
    except OSError as error:
        raise ConfigError(
            f"{host}:{port or '7860...'}: cannot be listened on ({error}); choose another --port"
        ) from None
    started(str(address))
    page.block_thread()


def build_page(model: Path | None, runtime: str, max_megapixels: float) -> gr.Blocks:
    """The page as Gradio has it, not served yet; arguments as of `serve`."""
    import gradio as gr

    @lru_cache(maxsize=4)
    def enhancer_of(strength: float) -> Enhancer:
        return Enhancer(model, runtime, strength)

    enhancer_of(DEFAULT_STRENGTH)  # what is wrong with the model is said now

    def work(
        source: str | None,
        strength: float,
        original: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio puts its own in by the default
    ) -> Iterator[tuple[Any, ...]]:
        if source is None:
            yield None, "", gr.DownloadButton(interactive=False)
            return
        with tempfile.TemporaryDirectory(prefix="sqe-app-") as folder:  # Gradio copies what it is given
            try:
                _check_size(Path(source), max_megapixels)
                out, table, pictures = enhance_and_measure(
                    Path(source),
                    Path(folder),
                    enhancer_of(strength),
                    Path(original) if original else None,
                    lambda share: progress(share, desc="enhancing"),
                )
                shown = _show(pictures, Path(folder))
            except SubjectiveQEError as error:
                raise gr.Error(str(error).replace(f"{source}: ", ""), print_exception=False) from None
            yield shown, table, gr.DownloadButton(value=out, interactive=True)

    with gr.Blocks(title="SubjectiveQE", analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S)) as page:
        gr.Markdown("# SubjectiveQE\nMakes compressed pictures look good again.")
        with gr.Row():
            with gr.Column(scale=1):
                source = gr.File(label="Picture", file_types=sorted(EXTENSIONS), type="filepath", elem_id="source")
                strength = gr.Slider(
                    0,
                    1,
                    DEFAULT_STRENGTH,
                    step=0.05,
                    label="Strength",
                    info="from the most faithful to the most pleasing",
                )
                original = gr.File(
                    label="Original, for PSNR, SSIM and LPIPS",
                    file_types=sorted(EXTENSIONS),
                    type="filepath",
                    elem_id="original",
                )
                download = gr.DownloadButton("Download", interactive=False, variant="primary", elem_id="download")
            with gr.Column(scale=3):
                pictures = gr.ImageSlider(
                    label="before | after; the wheel zooms", type="filepath", interactive=False, max_height=720
                )
                table = gr.Markdown()
        gr.on(
            [source.change, strength.release, original.change],
            work,
            inputs=[source, strength, original],
            outputs=[pictures, table, download],
            concurrency_limit=1,
            trigger_mode="always_last",
        )
    queued: gr.Blocks = page.queue()
    return queued


def enhance_and_measure(
    source: Path,
    folder: Path,
    enhancer: Enhancer,
    original: Path | None = None,
    progress: Callable[[float], object] = lambda _: None,
) -> tuple[Path, str, tuple[RGB, RGB]]:
    """Enhances a picture as the command does, and says in a table what became of it.

    Args:
        source: any picture.
        folder: where the result is put.
        enhancer: see `Enhancer`.
        original: what the picture was before it was compressed, if that is there.
        progress: called with the share that is done, 0..1.
    Returns:
        The result, a table in Markdown, and both pictures as pixels, before and after.
    Raises:
        SubjectiveQEError: a picture that cannot be read, or an original of another size.
    """

    class Reported(BatchProgress):
        def advanced(self, pictures: float) -> None:
            progress(pictures)

    start_s = time.perf_counter()
    (outcome,) = enhance_files([source], folder, enhancer, suffix=_SUFFIX, progress=Reported()).outcomes
    seconds = time.perf_counter() - start_s
    if outcome.status == "failed":
        raise SubjectiveQEError(outcome.reason)
    out = outcome.job.target
    lq, better = read_rgb(source), read_rgb(out)
    rows = [("bytes", *(f"{path.stat().st_size:,}" for path in (source, out)))]
    if original is not None:
        gt = read_rgb(original)
        if gt.shape != lq.shape:
            sizes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in (gt, lq)]
            raise ConfigError(
                f"the original is {sizes[0]} px, the picture {sizes[1]}; take the original of this picture"
            )
        for name, measure, digits in (
            ("PSNR, dB", metrics.psnr, 2),
            ("SSIM", metrics.ssim, 4),
            ("LPIPS", metrics.lpips, 4),
        ):
            rows.append((name, *(f"{measure(picture, gt):.{digits}f}" for picture in (lq, better))))
    lines = ["| | before | after |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    height, width = lq.shape[:2]
    notes = [f"{width} x {height} px in {seconds:.1f} s", *outcome.warnings]
    if max(height, width) > SHOWN_PX:
        notes.append("the middle is shown, the download has all")
    return out, "\n".join([*lines, "", "; ".join(notes)]), (lq, better)


def _check_size(source: Path, max_megapixels: float) -> None:
    image = open_picture(source)
    megapixels = image.width * image.height * count_pages(source, image) / 1e6
    if megapixels > max_megapixels:
        raise ConfigError(
            f"the picture has {megapixels:.3g} megapixels, this page takes {max_megapixels:g}; "
            'the command "sqe enhance" takes any'
        )


def _show(pictures: tuple[RGB, RGB], folder: Path) -> tuple[Path, Path]:
    """Both pictures as PNG, which every browser shows."""
    shown = folder / "before.png", folder / "after.png"
    for picture, place in zip(pictures, shown, strict=True):
        write_png(place, _middle(picture))
    return shown


def _middle(picture: RGB) -> RGB:
    """The middle of a picture, at most `SHOWN_PX` a side."""
    top, left = (max(side - SHOWN_PX, 0) // 2 for side in picture.shape[:2])
    return picture[top : top + SHOWN_PX, left : left + SHOWN_PX]
