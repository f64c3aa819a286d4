"""The web page of `sqe app` as Gradio has it: drop a picture, see it before and after, take it home."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from .app import check_size, enhance, measure, show
from .dial import DEFAULT_STRENGTH
from .enhancing.enhancer import Enhancer
from .errors import SubjectiveQEError
from .guard import Guard
from .images import EXTENSIONS

_KEPT_S = 3600
"""How long the page's copies of pictures stay on the disk while it is served, in seconds."""

_MOST_BYTES_PX = 16
"""Of a file that is sent: four channels of 16 bits, and as much again for what else is in it."""

_SCRIPT = """
() => {
  const input_of = box => box.querySelector("input[type=file]");
  const empty = box => box.querySelector("button[aria-label='Clear']");
  document.addEventListener("dragover", event => event.preventDefault());
  document.addEventListener("drop", async event => {  // anywhere, and where a picture lies already
    const original = document.querySelector("#original");
    const box = original.contains(event.target) ? original : document.querySelector("#source");
    if (!event.dataTransfer.files.length || (box.contains(event.target) && input_of(box))) return;
    event.preventDefault();
    const dropped = new DataTransfer();
    dropped.items.add(event.dataTransfer.files[0]);
    empty(box)?.click();
    for (let tries = 0; tries < 100 && !input_of(box); tries++) await new Promise(done => setTimeout(done, 20));
    input_of(box).files = dropped.files;
    input_of(box).dispatchEvent(new Event("change", { bubbles: true }));
  });
  const told = document.querySelector("#strength input[type=number]");
  const within = () => {  // what Gradio refuses, and goes on refusing
    const value = Math.min(Math.max(Number(told.value || 1), 0), 1);
    if (String(value) === told.value) return;
    told.value = value;
    told.dispatchEvent(new Event("input", { bubbles: true }));
  };
  told.addEventListener("keydown", event => event.key === "Enter" && within(), true);
  told.addEventListener("blur", within, true);
  document.querySelector("#strength").addEventListener("keyup", event => {  // Gradio waits for a pointer
    const moves = ["Arrow", "Page", "Home", "End", "Enter"].some(key => event.key.startsWith(key));
    const slider = document.querySelector("#strength input[type=range]");
    if (moves) slider.dispatchEvent(new Event("pointerup", { bubbles: true }));
  });
}
"""

_OFF = "() => ({ __type__: 'update', value: null, interactive: false })"
_ON = """
(source, strength, made, download) => {
  const is_of_now = source && made && made[0] === source.path && made[1] === strength;
  return { __type__: "update", value: is_of_now ? download : null, interactive: !!is_of_now };
}
"""
"""The button downloads what is chosen now or nothing; the browser alone knows what that is."""


class _StoppedError(Exception):
    """Nobody waits for this picture any more."""


class _Desk:
    """Does what the page asks for; arguments as of `build`."""

    def __init__(
        self, model: Path | None, runtime: str, max_megapixels: float, folder: Path, stopping: threading.Event
    ) -> None:
        self._max_megapixels, self._folder, self._stopping = max_megapixels, folder, stopping
        self._enhancer_of = lru_cache(maxsize=1)(lambda strength: Enhancer(model, runtime, strength))
        self._enhancer_of(DEFAULT_STRENGTH)  # what is wrong with the model is said now
        self._wanted: dict[str | None, tuple[str | None, float]] = {}

    def work(
        self,
        source: str | None,
        strength: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio puts its own in by the default
    ) -> Iterator[tuple[Any, ...]]:
        """Enhances a picture; gives what to show, a table, the file to download, and of what that is the result."""
        if source is None:
            yield None, "", None, None
            return
        session, asked = request.session_hash, (source, strength)
        self._wanted[session] = asked  # what was wanted before may come late

        def report(share: float) -> None:
            self._go_on(session, asked)
            progress(share, desc="enhancing")

        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            try:
                check_size(Path(source), self._max_megapixels, "the picture")
                out, table = enhance(Path(source), Path(place), self._enhancer_of(strength), report)
                shown = show(Path(source), out, Path(place))
            except SubjectiveQEError as error:
                message = str(error).replace(f"{source}: ", "")
                raise gr.Error(message, duration=None, print_exception=False) from None
            except _StoppedError:
                yield (gr.skip(),) * 4
                return
            yield shown, table, out, [source, strength]

    def compare(self, source: str | None, out: str | None, original: str | None, request: gr.Request) -> Iterator[str]:
        """How far the picture and the result are from the original, as a table, where all three are there."""
        if source is None or out is None or original is None:
            yield ""
            return
        yield "measuring ..."
        try:
            check_size(Path(original), self._max_megapixels, "the original")
            yield measure(Path(source), Path(out), Path(original), lambda: self._go_on(request.session_hash))
        except SubjectiveQEError as error:
            yield str(error).replace(f"{original}: ", "the original: ")
        except _StoppedError:
            yield ""

    def want(self, source: str | None, strength: float, request: gr.Request) -> None:
        """Ends what is at work for a page where something else is chosen now."""
        self._wanted[request.session_hash] = source, strength

    def leave(self, request: gr.Request) -> None:
        """Ends what is at work for a page that was closed."""
        self._wanted.pop(request.session_hash, None)

    def _go_on(self, session: str | None, asked: tuple[str | None, float] | None = None) -> None:
        """Raises where all has an end, the page was closed, or wants something else than what is given."""
        wanted = self._wanted.get(session)
        if self._stopping.is_set() or wanted is None or wanted != (asked or wanted):
            raise _StoppedError


def build(
    model: Path | None, runtime: str, max_megapixels: float, folder: Path, stopping: threading.Event
) -> gr.Blocks:
    """The page, not served yet.

    Args:
        model: see `Enhancer`.
        runtime: see `Enhancer`.
        max_megapixels: pictures that are larger are refused.
        folder: where results are put until Gradio has copied them.
        stopping: what is at work ends when it is set.
    """
    desk = _Desk(model, runtime, max_megapixels, folder, stopping)
    with gr.Blocks(title="SubjectiveQE", analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S)) as blocks:
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
                    elem_id="strength",
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
                    label="before | after; the wheel zooms",
                    type="filepath",
                    interactive=False,
                    max_height=720,
                    buttons=["fullscreen"],  # its download would be of what is shown
                )
                table = gr.Markdown()
                measures = gr.Markdown()
                made = gr.JSON(visible=False)  # of what the result is
        chosen = [source.change, strength.release]
        gr.on([source.change, strength.change], None, outputs=download, js=_OFF)
        gr.on(chosen, desk.want, inputs=[source, strength], queue=False)
        enhanced = gr.on(
            chosen,
            desk.work,
            inputs=[source, strength],
            outputs=[pictures, table, download, made],
            concurrency_id="work",
            concurrency_limit=1,
            trigger_mode="always_last",
        )
        settled = enhanced.then(None, [source, strength, made, download], download, js=_ON)
        for listen in (settled.then, original.change):
            listen(desk.compare, inputs=[source, download, original], outputs=measures, concurrency_id="work")
        blocks.unload(desk.leave)
    queued: gr.Blocks = blocks.queue()
    return queued


def launch(blocks: gr.Blocks, host: str, port: int | None, max_megapixels: float, open_browser: bool) -> str:
    """Begins to serve a page, and gives its address; OSError where the port is taken."""
    from starlette.middleware import Middleware

    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        show_error=True,
        max_file_size=int(min(max_megapixels * 1e6 * _MOST_BYTES_PX, 2.0**53)) + 2**24,
        footer_links=[],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        js=_SCRIPT,
        app_kwargs={"middleware": [Middleware(Guard, host=host.strip("[]"))]},
    )
    return str(address)
