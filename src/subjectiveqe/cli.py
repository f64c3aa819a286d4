"""The command `sqe`: each command parses its options and calls one documented function of the package.

Modules are imported inside the commands, so that `sqe --help` answers at once and bundled models need no torch.
Exit codes: 0 all done, 1 some inputs failed (each is listed), 2 nothing could be done, 130 interrupted.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from . import __version__
from .dial import DEFAULT_STRENGTH
from .errors import FULL_DISK, ConfigError, SubjectiveQEError
from .terminal import bar, batch_progress, tell_of_batch, tell_of_picture, tell_of_tables, tell_of_video

if TYPE_CHECKING:
    from .enhancing.enhancer import Enhancer

PARTLY_DONE = 1
NOTHING_DONE = 2
INTERRUPTED = 130

# rich_markup_mode=None: help drawn by rich costs 0.2 s of start-up
app = typer.Typer(name="sqe", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

Out: TypeAlias = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
Model: TypeAlias = Annotated[
    Path | None, typer.Option(help="fast, fast-int8, best, or a model file; the fastest if not given.")
]
Strength: TypeAlias = Annotated[float, typer.Option(help="0 (most faithful) to 1 (most pleasing).")]
Runtime: TypeAlias = Annotated[str, typer.Option(help="auto, onnxruntime, openvino or torch.")]


def main() -> int:
    """Runs the command line of this process and gives its exit code."""
    for stream in (sys.stdout, sys.stderr):  # what is redirected on Windows has letters of one part of the world only
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    code = _run_command()
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more while Python winds up would end it without this code
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
    except (SubjectiveQEError, ModuleNotFoundError, OSError) as error:
        if shows_traceback:
            traceback.print_exc()
        typer.echo(f"error: {_one_line(error)}", err=True)
        return NOTHING_DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # see main()
) -> None:
    """Makes compressed pictures look good again."""
    if version:
        typer.echo(f"subjectiveqe {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def enhance(
    inputs: Annotated[
        list[Path], typer.Argument(help="Pictures, and folders of pictures; - for standard input.", readable=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file for one picture, a folder for more.", readable=False)
    ] = None,
    strength: Strength = DEFAULT_STRENGTH,
    model: Model = None,
    runtime: Runtime = "auto",
    tile: Annotated[int | None, typer.Option(help="Side of a tile in px; 0 for whole pictures.")] = None,
    format_out: Annotated[
        str | None,
        typer.Option("--format", help="jpeg, png, webp, avif, heic, tiff, gif or bmp; the source's if not given."),
    ] = None,
    quality: Annotated[int | None, typer.Option(help="1 to 100; JPEG has 95 if not given.")] = None,
    chroma: Annotated[str, typer.Option(help="444, or 420 for smaller files.")] = "444",
    lossless: Annotated[bool, typer.Option("--lossless", help="For WebP, AVIF and HEIC.")] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Drop tags, texts and resolution, not the profile.")] = False,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Keep to what a JPEG says of luma, to the last coefficient.")
    ] = False,
    video_codec: Annotated[str, typer.Option(help="Of videos: x264, x265, or ffv1 (lossless, .mkv).")] = "x264",
    crf: Annotated[
        int | None, typer.Option(help="Of videos, 0 to 51, lower is better; x264 16, x265 18 if not given.")
    ] = None,
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

    Profile, tags, alpha, depth, sound and subtitles stay as they were. Results have the format of their
    sources, or the one that the name of --out or --format says.
    """
    from .enhancing.enhancer import Enhancer
    from .enhancing.files import enhance_files, enhance_stream
    from .enhancing.plan import plan_jobs
    from .enhancing.video import Coding, enhance_video, is_video, list_videos
    from .files import is_folder
    from .saving import Saving

    if overwrite and skip_existing:
        raise ConfigError("--overwrite and --skip-existing exclude each other; give one")
    saving = Saving(format_out, quality, chroma, lossless, strip)
    of_batches = {"--recursive": recursive, "--suffix": suffix, "--in-place": in_place, "--jobs": jobs}
    of_pictures = {
        "--format": format_out,
        "--quality": quality,
        "--chroma": chroma != "444",
        "--lossless": lossless,
        "--strip": strip,
        "--faithful": faithful,
    }
    of_videos = {"--video-codec": video_codec != "x264", "--crf": crf is not None}
    of_files = {"--skip-existing": skip_existing, "--dry-run": dry_run, "--json": as_json}
    if Path("-") in inputs or out == Path("-"):
        if len(inputs) != 1:
            raise ConfigError('"-" goes with one picture; give a single input')
        _refuse(of_batches | of_videos | of_files, 'a picture from or to "-"')
        enhancer = Enhancer(model, runtime=runtime, strength=strength, tile_px=tile)
        outcome = enhance_stream(inputs[0], out or Path("-"), enhancer, saving, faithful, overwrite)
        if not quiet:
            tell_of_picture(outcome)
        return
    if any(map(is_video, inputs)):
        if len(inputs) != 1 or out is None:
            raise ConfigError("one video at a time, and --out for its result")
        _refuse(of_batches | of_pictures, "a video")
        if skip_existing and out.exists():
            if not quiet:
                typer.echo(f"{out}: is there, skipped")
            return
        if dry_run:
            typer.echo(f"{inputs[0]} -> {out}{' (exists)' if out.exists() else ''}")
            return
        enhancer = Enhancer(model, runtime=runtime, strength=strength, tile_px=tile)
        with bar("frames", is_drawn=not (quiet or as_json)) as progress:
            video = enhance_video(inputs[0], out, enhancer, Coding(video_codec, crf), overwrite, progress)
        if as_json:
            typer.echo(json.dumps({"source": str(inputs[0]), "target": str(out), "status": "done", **asdict(video)}))
        elif not quiet:
            tell_of_video(inputs[0], out, video)
        return
    _refuse(of_videos, "pictures")
    if not quiet and (
        videos := [path for folder in inputs if is_folder(folder) for path in list_videos(folder, recursive)]
    ):
        typer.echo(f"videos are passed over, they go one at a time: {', '.join(map(str, videos))}", err=True)
    if dry_run:
        planned = plan_jobs(inputs, out, saving, recursive=recursive, suffix=suffix, in_place=in_place)
        for job in planned:
            if job.unread:
                typer.echo(f"failed: {job.source}: {job.unread}", err=True)
            else:
                typer.echo(f"{job.source} -> {job.target}{' (exists)' if job.is_there and not in_place else ''}")
        _exit_by([job for job in planned if job.unread], len(planned))
        return
    enhancer = Enhancer(model, runtime=runtime, strength=strength, tile_px=tile)
    if not quiet:
        _warn_of_no_dial(enhancer, strength)
    start_s = time.perf_counter()
    with batch_progress(is_drawn=not (quiet or as_json), as_json=as_json) as progress:
        result = enhance_files(
            inputs,
            out,
            enhancer,
            saving=saving,
            faithful=faithful,
            recursive=recursive,
            suffix=suffix,
            in_place=in_place,
            existing="overwrite" if overwrite else "skip" if skip_existing else "refuse",
            jobs=jobs,
            progress=progress,
        )
    if not as_json:
        tell_of_batch(result, quiet, time.perf_counter() - start_s)
    _exit_by(result.of("failed"), len(result.outcomes))


def _exit_by(failed: Sequence[object], total: int) -> None:
    if failed:
        raise typer.Exit(PARTLY_DONE if len(failed) < total else NOTHING_DONE)


def _refuse(given: Mapping[str, object], what: str) -> None:
    """Refuses options that would do nothing."""
    if useless := [name for name, value in given.items() if value]:
        raise ConfigError(f"{', '.join(useless)}: not for {what}; leave it out")


@app.command("app")
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
    """Serve a web page that does so.

    Drop a picture there, see it before and after, download it.
    """
    from .app import serve

    def announce(address: str) -> None:
        others = "" if host in ("127.0.0.1", "localhost", "::1") else f", and to whoever reaches {host}"
        typer.echo(f"serving {address}{others}; Ctrl-C ends it")

    serve(model, runtime, host, port, max_megapixels, open_browser=not no_browser, started=announce)


@app.command()
def demo(out: Out = Path("sqe-demo")) -> None:
    """Show what it does, on the bundled pictures.

    Prints a table and writes a page with a before/after slider.
    """
    from rich.console import Console

    from .demo import make_table, run_demo

    with bar("pictures") as progress:
        summary = run_demo(out, progress=progress)
    Console().print(make_table(summary.rows))
    typer.echo(f"before and after, with a slider: {summary.html}")


@app.command()
def doctor(
    no_speed: Annotated[bool, typer.Option("--no-speed", help="Do not time the engines.")] = False,
) -> None:
    """Show what networks run with here, and how fast.

    Says how to get what is missing, too.
    """
    from .doctor import examine

    with bar("engines") as progress:
        findings = examine(measure=not no_speed, progress=progress)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        typer.echo(
            f"{finding.name:{width}}  {finding.value}{'; to add it: ' + finding.remedy if finding.remedy else ''}"
        )


@app.command()
def prepare(
    source: Annotated[Path | None, typer.Argument(help="Folder of clean pictures.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The store to make.")] = None,
    codec: Annotated[str, typer.Option(help="hevc, hm, jpeg, webp, avif or resaved.")] = "hevc",
    levels: Annotated[list[int] | None, typer.Option("--level", help="QP or QF; repeat it for several levels.")] = None,
    level_range: Annotated[str | None, typer.Option("--range", help="Levels to draw from, LOW:HIGH.")] = None,
    draws: Annotated[int, typer.Option(help="Levels drawn for each picture from --range.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    chroma: Annotated[str | None, typer.Option(help="444, 422 or 420; the codec's usual one if not given.")] = None,
    encoder: Annotated[Path | None, typer.Option(help="hm: path of TAppEncoderStatic.")] = None,
    config: Annotated[Path | None, typer.Option(help="hm: path of encoder_intra_main_rext.cfg.")] = None,
    last: Annotated[str | None, typer.Option(help="resaved: what a JPEG is saved again as, jpeg or webp.")] = None,
    layout: Annotated[str, typer.Option(help="lmdb (a store) or png (two folders).")] = "lmdb",
    split: Annotated[str, typer.Option(help="all, train or valid; valid is each N-th picture by name.")] = "all",
    hold_out_every: Annotated[int | None, typer.Option(help="The N of --split, 20 if not given.")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 is one per core.")] = 0,
    check: Annotated[Path | None, typer.Option(help="Check every pixel of this store and make nothing.")] = None,
) -> None:
    """Make pairs for training from clean pictures.

    Compresses every picture and stores the decoded one beside the original. After a stop, the same command goes on.
    """
    if check is not None:
        from .data.store import check_store

        with bar("pictures") as progress:
            number = check_store(check, progress)
        typer.echo(f"{check}: {number} pairs, all sound")
        return
    if level_range is None and (draws != 1 or seed):
        raise ConfigError("--draws and --seed go with --range; leave them out")
    if split == "all" and hold_out_every is not None:
        raise ConfigError("--hold-out-every goes with --split train or valid; leave it out")
    if source is None or out is None:
        raise ConfigError('expected "sqe prepare SOURCE -o STORE" or "sqe prepare --check STORE"; see --help')
    from .data.prepare import HOLD_OUT_EVERY
    from .data.prepare import prepare as prepare_pairs

    with bar("pictures") as progress:
        result = prepare_pairs(
            source,
            out,
            codec,
            _levels(levels, level_range),
            draws=draws,
            seed=seed,
            layout=layout,
            split=split,
            hold_out_every=HOLD_OUT_EVERY if hold_out_every is None else hold_out_every,
            jobs=jobs,
            progress=progress,
            chroma=chroma,
            encoder=encoder,
            config=config,
            last=last,
        )
    _close(f"{out}: {result.done} pairs of {result.pictures} pictures", result.done, result.skipped)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/seed-hevc-qp37.yaml.")],
    changes: Annotated[list[str] | None, typer.Option("--set", help="key=value in place of the recipe's.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    init_from: Annotated[Path | None, typer.Option(help="Weights of the generator to start from.")] = None,
    estimator_from: Annotated[Path | None, typer.Option(help="Weights whose estimator to take instead.")] = None,
) -> None:
    """Train a network by a recipe.

    Start it with torchrun for several processes: torchrun --nproc-per-node 2 -m subjectiveqe train RECIPE.
    """
    from .config import read_recipe
    from .training.loop import train as run_recipe

    plan = read_recipe(recipe, changes or ())
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    weights = run_recipe(plan, run_dir or Path("runs") / plan.name, resume, init_from, estimator_from)
    if os.environ.get("RANK", "0") == "0":  # set by torchrun
        typer.echo(f"weights: {weights}")


@app.command()
def evaluate(
    pairs: Annotated[list[Path] | None, typer.Argument(help="Stores or paired folders.")] = None,
    out: Out = Path("evaluation"),
    model: Model = None,
    strength: Strength = DEFAULT_STRENGTH,
    runtime: Runtime = "auto",
    lq: Annotated[Path | None, typer.Option(help="Folder of compressed pictures, with --gt in place of PAIRS.")] = None,
    gt: Annotated[Path | None, typer.Option(help="Folder of their originals, paired by file name.")] = None,
    save_images: Annotated[bool, typer.Option("--save-images", help="Keep the enhanced pictures.")] = False,
    dists: Annotated[bool, typer.Option("--dists", help="Measure DISTS too; slow, and needs its weights.")] = False,
) -> None:
    """Measure a model on pairs.

    Writes a CSV per picture, a JSON summary and an HTML report. "--model none" measures the compressed pictures alone.
    """
    from .data.store import pair_folders
    from .enhancing.enhancer import Enhancer
    from .evaluating.evaluate import evaluate as evaluate_pairs
    from .evaluating.evaluate import open_sets
    from .evaluating.tables import headline

    if pairs and lq is None and gt is None:
        sets = open_sets(pairs)
    elif not pairs and lq is not None and gt is not None:
        sets = {lq.resolve().name: pair_folders(lq, gt, keeps_unread=True)}
    else:
        raise ConfigError('expected either stores and paired folders, or "--lq DIR --gt DIR"; see --help')
    enhancer = None if model == Path("none") else Enhancer(model, runtime=runtime, strength=strength)
    _warn_of_no_dial(enhancer, strength)
    facts = {**_identity(enhancer), "command": " ".join(sys.argv)}
    with bar("pictures") as progress:
        summary = evaluate_pairs(
            enhancer, sets, out, with_dists=dists, save_images=save_images, facts=facts, progress=progress
        )
    tell_of_tables(headline(summary))
    _close(f"report: {summary.html}", len(summary.rows), summary.failed)


@app.command()
def benchmark(
    folders: Annotated[list[Path], typer.Argument(help="Folders of clean pictures; each is a set of the tables.")],
    out: Out = Path("benchmark"),
    codecs: Annotated[
        list[str] | None,
        typer.Option("--codec", help="hevc, jpeg, webp, avif, or with levels: jpeg:10,20, resaved:40."),
    ] = None,
    model: Model = None,
    strength: Strength = DEFAULT_STRENGTH,
    runtime: Runtime = "auto",
    also: Annotated[
        list[str] | None, typer.Option(help="Measure ms_ssim, lpips_legacy, lpips_vgg or psnr_b_db too.")
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave out a measure, such as dists.")] = None,
) -> None:
    """Measure a model on codecs and levels.

    Clean pictures go through each codec at each level and are measured before and after enhancing. Draws
    rate-distortion curves and says how many bits enhancing saves. After a stop, the same command goes on.
    """
    from .enhancing.enhancer import Enhancer
    from .evaluating.benchmark import LEVELS, choose_measures, parse_levels
    from .evaluating.benchmark import benchmark as run_benchmark
    from .evaluating.tables import headline

    measures = choose_measures(also or (), without or ())
    levels = parse_levels(codecs) if codecs else LEVELS
    enhancer = None if model == Path("none") else Enhancer(model, runtime=runtime, strength=strength)
    _warn_of_no_dial(enhancer, strength)
    facts = {"command": " ".join(sys.argv)}
    with bar("pictures at a level") as progress:
        summary = run_benchmark(
            enhancer,
            folders,
            out,
            levels=levels,
            measures=measures,
            identity=_identity(enhancer),
            facts=facts,
            progress=progress,
        )
    tell_of_tables(headline(summary))
    _close(f"report: {summary.html}", len(summary.rows), summary.failed)


def _warn_of_no_dial(enhancer: Enhancer | None, strength: float) -> None:
    if enhancer is not None and enhancer.strength != strength:
        typer.echo(f"{enhancer.name}: has no dial, runs at strength {enhancer.strength:g}", err=True)


def _identity(enhancer: Enhancer | None) -> dict[str, str]:
    """What tells one judged model from another."""
    from .enhancing.runtime import checksum

    if enhancer is None:
        return {"model": "none"}
    return {
        "model": enhancer.name,
        "sha256": checksum(Path(enhancer.name)),
        "strength": f"{enhancer.strength:g}",
        "runtime": enhancer.runtime,
    }


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors or .pt checkpoint.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Store the weights as float16, half the size.")] = False,
    faithful: Annotated[
        Path | None, typer.Option(help="The same network for strength 0; CHECKPOINT is then strength 1.")
    ] = None,
    less: Annotated[
        list[str] | None,
        typer.Option(
            help="How much less than the truth to tell it at strength 1, family:coarseness:less (webp:0.6:0.1); "
            "several make a curve."
        ),
    ] = None,
) -> None:
    """Make an ONNX file that needs no PyTorch."""
    from .export import export_onnx

    difference = export_onnx(checkpoint, out, half, faithful, less or ())
    typer.echo(f"{out}: differs from PyTorch by at most {difference:.1e} of the full range")


@app.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="An .onnx file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write.")],
    pairs: Annotated[
        list[Path], typer.Option(help="Training pairs to find the ranges on; may be given several times.")
    ],
    strength: Strength = DEFAULT_STRENGTH,
) -> None:
    """Make an ONNX file of 8-bit integers.

    It is faster on a CPU, and a little less exact.
    """
    from .quantize import quantize_onnx

    count = quantize_onnx(model, pairs, out, strength=strength)
    typer.echo(f"{out}: {count} convolutions in integers, {out.stat().st_size / 1e6:.1f} MB")


@app.command()
def calibrate(
    checkpoints: Annotated[list[Path], typer.Argument(help="Networks of one estimator, as the ends of a dial are.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the checkpoints, under their names.")],
    pairs: Annotated[list[Path], typer.Option(help="Training pairs; may be given several times.")],
    valid: Annotated[list[Path] | None, typer.Option(help="Pairs to measure by; may be given several times.")] = None,
) -> None:
    """Fit a network's estimator to whole pictures.

    It says how coarsely a picture was compressed, and has been trained on patches.
    """
    from .calibrate import calibrate_estimator

    with bar("pictures") as progress:
        errors = calibrate_estimator(checkpoints, pairs, out, valid or (), progress)
    for (store, level), (before, after) in errors.items():
        typer.echo(f"{store} {level}: off by {before:.3f} before, {after:.3f} after")
    typer.echo(f"{len(checkpoints)} checkpoints in {out}")


@app.command()
def average(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Two or more of one kind of network; small ones are grown.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Store the weights as float16, half the size.")] = False,
    share: Annotated[
        list[float] | None, typer.Option(help="How much each counts, 1 in all, may be below 0; equal if not given.")
    ] = None,
) -> None:
    """Make the mean of several checkpoints.

    It is often better than each of them.
    """
    from .nets.checkpoint import average_nets

    average_nets(checkpoints, out, half, share)
    typer.echo(f"{out}: of {len(checkpoints)} checkpoints")


weights_app = typer.Typer(help="List, fetch or import what judges need.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")


@weights_app.command("list")
def list_() -> None:
    """Show which weights are here, what for, and how to get the others."""
    from .weights import list_weights

    for weights in list_weights():
        ways = " or ".join(source.get for source in weights.source)
        typer.echo(f"{weights.name}: {weights.purpose}\n    {weights.path or f'not here: {ways}'}")


@weights_app.command()
def fetch(name: Annotated[str, typer.Argument(help='A name of "sqe weights list".')]) -> None:
    """Download weights and check them."""
    from .weights import fetch_weights

    with bar("bytes") as progress:
        names = fetch_weights(name, progress)
    typer.echo(f"here now: {', '.join(names)}")


@weights_app.command("import")
def import_(file: Annotated[Path, typer.Argument(help="A file that was downloaded by other means.")]) -> None:
    """Take weights from a downloaded file."""
    from .weights import import_weights

    typer.echo(f"here now: {', '.join(import_weights(file))}")


def _levels(levels: Sequence[int] | None, level_range: str | None) -> list[int] | range:
    """Reads --level or --range, of which exactly one is to be given."""
    if bool(levels) == bool(level_range):
        raise ConfigError('expected "--level" (once or more) or "--range LOW:HIGH", and not both')
    if levels:
        return list(levels)
    low, _, high = (level_range or "").partition(":")
    try:
        drawn_from = range(int(low), int(high) + 1)
    except ValueError:
        drawn_from = range(0)
    if not drawn_from:
        raise ConfigError(f'--range: expected LOW:HIGH such as 22:42, got "{level_range}"')
    return drawn_from


def _close(summary: str, num_done: int, failed: Sequence[tuple[Path, str]]) -> None:
    """Lists what failed, prints the summary and ends with the exit code that fits."""
    for path, reason in failed:
        typer.echo(f"failed: {path}: {reason}", err=True)
    typer.echo(summary)
    _exit_by(failed, num_done + len(failed))


def _one_line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f'the module "{error.name}" is not installed; run "pip install \'subjectiveqe[train]\'"'
    if isinstance(error, OSError):
        remedy = "; make room and run the command again" if error.errno in FULL_DISK else ""
        return f"{error.filename or 'a file'}: {error.strerror or error}{remedy}"
    return " ".join(str(error).split())
