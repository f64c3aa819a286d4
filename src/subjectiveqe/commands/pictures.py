"""Commands for people with pictures: `sqe enhance`, `app`, `demo` and `doctor`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from ..dial import DEFAULT_STRENGTH
from ..errors import ConfigError
from ..terminal import bar, batch_progress, tell_of_batch, tell_of_outcome
from .shared import Model, Out, Runtime, Strength, close, exit_by, refuse, warn_of_no_dial

if TYPE_CHECKING:
    from ..enhancing.enhancer import Enhancer
    from ..enhancing.files import Existing
    from ..enhancing.video_files import Coding
    from ..formats.saving import Saving


class _Planned(TypedDict):
    """Arguments of `plan_jobs`."""

    saving: Saving
    recursive: bool
    suffix: str
    in_place: bool
    videos: bool
    coding: Coding


class _Batch(_Planned):
    """Those that `enhance_files` has beside."""

    faithful: bool
    existing: Existing
    jobs: int | None


def _named(text: str) -> Path:
    """A path that was given; nothing, as of a variable that is not set, would be the current folder."""
    if not text:
        raise typer.BadParameter("expected the name of a file or folder, got nothing")
    return Path(text).expanduser() if text.startswith("~/") else Path(text)  # shells leave --out=~/x as it is


def enhance(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, videos, and folders of them; - for standard input.", parser=_named, metavar="inputs"
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A file for one result, a folder for more.", parser=_named, metavar="<path>"),
    ] = None,
    strength: Strength = DEFAULT_STRENGTH,
    model: Model = None,
    runtime: Runtime = "auto",
    tile: Annotated[int | None, typer.Option(help="Side of a tile in px; 0 for whole pictures.")] = None,
    format_out: Annotated[
        str | None,
        typer.Option("--format", help="jpeg, png, webp, avif, heic, tiff, gif or bmp; the source's if not given."),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(help="1 to 100; if not given, JPEG has 95, WebP 92, HEIC 90, AVIF 85.")
    ] = None,
    chroma: Annotated[str, typer.Option(help="444, or 420 for smaller files.")] = "444",
    lossless: Annotated[bool, typer.Option("--lossless", help="For WebP, AVIF and HEIC.")] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Drop tags, texts and resolution, not the profile.")] = False,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Keep to what a JPEG says of luma, to the last coefficient.")
    ] = False,
    assume: Annotated[
        str | None,
        typer.Option(
            help="What it was compressed by, if you know better: jpeg:30, webp:20, avif:30, hevc:37, hevc-420:37."
        ),
    ] = None,
    video_codec: Annotated[str, typer.Option(help="Of videos: x264, x265, or ffv1 (lossless, .mkv).")] = "x264",
    crf: Annotated[
        int | None, typer.Option(help="Of videos, 0 to 51, lower is better; x264 16, x265 18 if not given.")
    ] = None,
    videos: Annotated[
        bool, typer.Option("--videos", help="Take the videos of folders too, after the pictures.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Take subfolders too, and keep them.")] = False,
    suffix: Annotated[str, typer.Option(help="Put between a result's name and its extension.")] = "",
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the sources by the results.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave results that are there.")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Pictures at a time; if not given 2, or 1 where memory is short.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be read and written.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print failures and nothing else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each picture or video.")] = False,
) -> None:
    """Make pictures and videos look better.

    Profile, tags, alpha, bit depth, sound and subtitles stay as they were. Results have the format of their
    sources, or the one that the name of --out or --format says.
    """
    from ..enhancing.plan import IN_PLACE_IS_ALL
    from ..enhancing.video_files import Coding, is_video, list_videos
    from ..files import is_folder
    from ..formats.saving import Saving

    if overwrite and skip_existing:
        raise ConfigError("--overwrite and --skip-existing exclude each other; give one")
    if in_place and (overwrite or skip_existing):
        raise ConfigError(IN_PLACE_IS_ALL)
    existing: Existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    saving = Saving(format_out, quality, chroma, lossless, strip)
    of_many_pictures: dict[str, object] = {"--in-place": in_place, "--jobs": jobs}
    of_batches = {"--recursive": recursive, "--suffix": suffix, "--videos": videos, **of_many_pictures}
    of_pictures: dict[str, object] = {
        "--format": format_out,
        "--quality": quality,
        "--chroma": chroma != "444",
        "--lossless": lossless,
        "--strip": strip,
        "--faithful": faithful,
    }
    of_videos = {"--video-codec": video_codec != "x264", "--crf": crf is not None}
    of_files = {"--skip-existing": skip_existing, "--dry-run": dry_run, "--json": as_json}

    def make_enhancer() -> Enhancer:  # behind all that is refused: it takes a second
        from ..enhancing.enhancer import Enhancer

        enhancer = Enhancer(model, runtime=runtime, strength=strength, tile_px=tile, assume=assume)
        if not quiet:
            warn_of_no_dial(enhancer, strength)
        return enhancer

    if Path("-") in inputs or out == Path("-"):
        if len(inputs) != 1:
            raise ConfigError('"-" goes with one picture; give a single input')
        from ..enhancing.files import enhance_stream

        refuse(of_batches | of_videos | of_files, 'a picture from or to "-"')
        outcome = enhance_stream(inputs[0], out or Path("-"), make_enhancer(), saving, faithful, overwrite)
        if not quiet:
            tell_of_outcome(outcome)
        return
    folders = [path for path in inputs if is_folder(path)]
    clips = [path for path in inputs if is_video(path) and path not in folders]
    if len(clips) == len(inputs):
        refuse(of_many_pictures | of_pictures, "videos")
    if not videos and not clips:
        refuse(of_videos, "pictures")
    if not (videos or quiet) and (passed := [path for folder in folders for path in list_videos(folder, recursive)]):
        typer.echo(f"videos are passed over without --videos: {', '.join(map(str, passed))}", err=True)
    planned: _Planned = {
        "saving": saving,
        "recursive": recursive,
        "suffix": suffix,
        "in_place": in_place,
        "videos": videos,
        "coding": Coding(video_codec, crf),
    }
    if dry_run:
        _print_plan(inputs, out, planned, as_json)
    else:
        batch: _Batch = {**planned, "faithful": faithful, "existing": existing, "jobs": jobs}
        _enhance_files(inputs, out, make_enhancer(), batch, quiet, as_json)


def _enhance_files(
    inputs: Sequence[Path], out: Path | None, enhancer: Enhancer, batch: _Batch, quiet: bool, as_json: bool
) -> None:
    """Tells of each, and at the end of all; arguments in `batch` as of `enhance_files`."""
    from ..enhancing.files import enhance_files

    start_s = time.perf_counter()
    with batch_progress(is_drawn=not (quiet or as_json), as_json=as_json) as progress:
        result = enhance_files(inputs, out, enhancer, progress=progress, **batch)
    if not as_json:
        tell_of_batch(result, quiet, time.perf_counter() - start_s)
    exit_by(result.of("failed"), len(result.outcomes))


def _print_plan(inputs: Sequence[Path], out: Path | None, batch: _Planned, as_json: bool) -> None:
    """What `--dry-run` prints; ends with the exit code that the run would have for what cannot be read."""
    from ..enhancing.plan import plan_jobs

    planned = plan_jobs(inputs, out, **batch)
    for job in planned:
        if as_json:
            said = {"status": "failed", "reason": job.unread} if job.unread else {"status": "planned"}
            there = {} if job.unread else {"exists": job.is_there}
            typer.echo(json.dumps({"source": str(job.source), "target": str(job.target), **said, **there}))
        elif job.unread:
            typer.echo(f"failed: {job.source}: {job.unread}", err=True)
        else:  # that what is replaced is there goes without saying
            exists = " (exists)" if job.is_there and not batch["in_place"] else ""
            typer.echo(f"{job.source} -> {job.target}{exists}")
    exit_by([job for job in planned if job.unread], len(planned))


def web_page(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The first free one from 7860 on if not given.")
    ] = None,
    model: Model = None,
    runtime: Runtime = "auto",
    max_megapixels: Annotated[float, typer.Option(help="Larger pictures are refused.")] = 50,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page.")] = False,
) -> None:
    """Serve a web page that enhances pictures.

    Drop a picture there, see it before and after, download it.
    """
    from ..app import serve

    def announce(address: str) -> None:
        others = "" if host in ("127.0.0.1", "localhost", "::1") else f", and to whoever reaches {host}"
        typer.echo(f"serving {address}{others}; Ctrl-C ends it")

    serve(model, runtime, host, port, max_megapixels, open_browser=not no_browser, started=announce)


def demo(
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="Good pictures of yours; the bundled ones if not given.")
    ] = None,
    out: Out = Path("sqe-demo"),
) -> None:
    """Compress and enhance sample pictures, and measure both.

    Takes good pictures, prints how near to the originals both are, and writes a page
    with a before/after slider.
    """
    from rich.console import Console

    from ..demo import make_table, run_demo

    with bar("pictures") as progress:
        summary = run_demo(out, progress=progress, pictures=pictures or ())
    Console().print(make_table(summary.rows))
    close(f"before and after, with a slider: {summary.html}", len(summary.rows), summary.failed)


def doctor(
    no_speed: Annotated[bool, typer.Option("--no-speed", help="Do not time the engines.")] = False,
) -> None:
    """Show what networks run with here, and how fast.

    Says how to get what is missing, too.
    """
    from ..doctor import examine

    with bar("engines") as progress:
        findings = examine(measure=not no_speed, progress=progress)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        typer.echo(
            f"{finding.name:{width}}  {finding.value}{'; to add it: ' + finding.remedy if finding.remedy else ''}"
        )
