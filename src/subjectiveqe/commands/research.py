"""Commands for researchers: from clean pictures to a model, and to what it is worth."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..dial import DEFAULT_STRENGTH
from ..errors import ConfigError
from ..terminal import bar, tell_of_tables
from .shared import Also, Model, Out, Runtime, Strength, Without, close, refuse, warn_of_no_dial

if TYPE_CHECKING:
    from ..enhancing.enhancer import Enhancer


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
        from ..data.store import check_store

        making = {
            "SOURCE": source,
            "--out": out,
            "--codec": codec != "hevc",
            "--level": levels,
            "--range": level_range,
            "--draws": draws != 1,
            "--seed": seed,
            "--chroma": chroma,
            "--encoder": encoder,
            "--config": config,
            "--last": last,
            "--layout": layout != "lmdb",
            "--split": split != "all",
            "--hold-out-every": hold_out_every is not None,
            "--jobs": jobs,
        }
        refuse(making, "--check")
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
    from ..data.prepare import HOLD_OUT_EVERY
    from ..data.prepare import prepare as prepare_pairs

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
    close(f"{out}: {result.done} pairs of {result.pictures} pictures", result.done, result.skipped)


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
    from ..config import read_recipe
    from ..training.loop import train as run_recipe

    plan = read_recipe(recipe, changes or ())
    logging.basicConfig(format="%(message)s")  # of libraries, warnings alone
    weights = run_recipe(plan, run_dir or Path("runs") / plan.name, resume, init_from, estimator_from)
    if os.environ.get("RANK", "0") == "0":  # set by torchrun
        typer.echo(f"weights: {weights}")


def evaluate(
    pairs: Annotated[list[Path] | None, typer.Argument(help="Stores or paired folders.")] = None,
    out: Out = Path("evaluation"),
    model: Model = None,
    strength: Strength = DEFAULT_STRENGTH,
    runtime: Runtime = "auto",
    lq: Annotated[Path | None, typer.Option(help="Folder of compressed pictures, with --gt in place of PAIRS.")] = None,
    gt: Annotated[Path | None, typer.Option(help="Folder of their originals, paired by file name.")] = None,
    save_images: Annotated[bool, typer.Option("--save-images", help="Keep the enhanced pictures.")] = False,
    dists: Annotated[bool, typer.Option("--dists", help="The same as --also dists; slow, and needs weights.")] = False,
    also: Also = None,
    without: Without = None,
) -> None:
    """Measure a model on pairs.

    Writes a CSV per picture, a JSON summary and an HTML report. "--model none" measures the compressed pictures alone.
    """
    from ..data.pairs import pair_folders
    from ..evaluating.evaluate import PLAIN_MEASURES, open_sets
    from ..evaluating.evaluate import evaluate as evaluate_pairs
    from ..evaluating.measures import choose_measures
    from ..evaluating.tables import headline
    from ..files import real_path

    if pairs and lq is None and gt is None:
        sets = open_sets(pairs)
    elif not pairs and lq is not None and gt is not None:
        sets = {real_path(lq).name: pair_folders(lq, gt, keeps_unread=True)}
    else:
        raise ConfigError('expected either stores and paired folders, or "--lq DIR --gt DIR"; see --help')
    measures = choose_measures(PLAIN_MEASURES, [*(also or ()), *(["dists"] if dists else ())], without or ())
    enhancer = _open_model(model, runtime, strength, save_images)
    facts = {**_identity(enhancer), "command": shlex.join(sys.argv)}
    with bar("pictures") as progress:
        summary = evaluate_pairs(
            enhancer, sets, out, measures=measures, save_images=save_images, facts=facts, progress=progress
        )
    tell_of_tables(headline(summary, also or ()))
    close(f"report: {summary.html}", len(summary.rows), summary.failed)


def benchmark(
    folders: Annotated[list[Path], typer.Argument(help="Folders of clean pictures; each is a set of the tables.")],
    out: Out = Path("benchmark"),
    codecs: Annotated[
        list[str] | None,
        typer.Option("--codec", help="As hevc, webp, avif, jpeg:10,20, hevc-420:37, resaved:40, hm:37."),
    ] = None,
    encoder: Annotated[Path | None, typer.Option(help="hm: path of TAppEncoderStatic.")] = None,
    config: Annotated[Path | None, typer.Option(help="hm: path of encoder_intra_main_rext.cfg.")] = None,
    model: Model = None,
    strength: Strength = DEFAULT_STRENGTH,
    runtime: Runtime = "auto",
    also: Also = None,
    without: Without = None,
) -> None:
    """Measure a model on codecs and levels.

    Clean pictures go through each codec at each level and are measured before and after enhancing. Draws
    rate-distortion curves and says how many bits enhancing saves. After a stop, the same command goes on.
    """
    from ..codecs import get_codec
    from ..evaluating.benchmark import LEVELS, STANDARD_MEASURES, parse_levels
    from ..evaluating.benchmark import benchmark as run_benchmark
    from ..evaluating.measures import choose_measures
    from ..evaluating.tables import headline

    measures = choose_measures(STANDARD_MEASURES, also or (), without or ())
    levels = parse_levels(codecs) if codecs else LEVELS
    if "hm" not in levels:
        refuse({"--encoder": encoder, "--config": config}, "other codecs than hm")
    enhancer = _open_model(model, runtime, strength)
    facts = {"command": shlex.join(sys.argv)}
    with bar("pictures at a level") as progress:
        summary = run_benchmark(
            enhancer,
            folders,
            out,
            levels=levels,
            measures=measures,
            codecs={"hm": get_codec("hm", encoder=encoder, config=config)},
            identity=_identity(enhancer),
            facts=facts,
            progress=progress,
        )
    tell_of_tables(headline(summary, also or ()))
    close(f"report: {summary.html}", len(summary.rows), summary.failed)


def _open_model(model: Path | None, runtime: str, strength: float, save_images: bool = False) -> Enhancer | None:
    """The model to judge; None for "none", which has no use for options of one."""
    from ..enhancing.enhancer import Enhancer

    if model != Path("none"):
        enhancer = Enhancer(model, runtime=runtime, strength=strength)
        warn_of_no_dial(enhancer, strength)
        return enhancer
    refuse(
        {"--strength": strength != DEFAULT_STRENGTH, "--runtime": runtime != "auto", "--save-images": save_images},
        '"--model none"',
    )
    return None


def _identity(enhancer: Enhancer | None) -> dict[str, str]:
    return {"model": "none"} if enhancer is None else enhancer.identity


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors, .pt or .pth checkpoint.")],
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
    card: Annotated[
        Path | None, typer.Option(help="YAML of names and texts: what else the file says of itself.")
    ] = None,
) -> None:
    """Make an ONNX file that needs no PyTorch."""
    from ..export import export_onnx

    difference = export_onnx(checkpoint, out, half, faithful, less or (), card)
    typer.echo(f"{out}: differs from PyTorch by at most {difference:.1e} of the full range")


def quantize(
    model: Annotated[Path, typer.Argument(help="An .onnx file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write.")],
    pairs: Annotated[
        list[Path], typer.Option(help="Training pairs to find the ranges on; may be given several times.")
    ],
    strength: Annotated[
        float | None, typer.Option(help="Where the dial is set for good, 0 to 1; 1 if not given.")
    ] = None,
) -> None:
    """Make an ONNX file of 8-bit integers.

    It is faster on a CPU, and a little less exact.
    """
    from ..quantize import quantize_onnx

    count = quantize_onnx(model, pairs, out, strength=strength)
    typer.echo(f"{out}: {count} convolutions in integers, {out.stat().st_size / 1e6:.1f} MB")


def calibrate(
    checkpoints: Annotated[list[Path], typer.Argument(help="Networks of one estimator, as the ends of a dial are.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the checkpoints, under their names.")],
    pairs: Annotated[list[Path], typer.Option(help="Training pairs; may be given several times.")],
    valid: Annotated[list[Path] | None, typer.Option(help="Pairs to measure by; may be given several times.")] = None,
    beneath: Annotated[
        bool, typer.Option("--beneath", help="Fit what it says of pictures that were saved again as fine JPEGs.")
    ] = False,
) -> None:
    """Fit a network's estimator to whole pictures.

    It says how coarsely a picture was compressed, and has been trained on patches.
    """
    from ..calibrate import calibrate_estimator

    with bar("pictures") as progress:
        errors = calibrate_estimator(checkpoints, pairs, out, valid or (), progress, beneath)
    for (store, level), (before, after) in errors.items():
        typer.echo(f"{store} {level}: off by {before:.3f} before, {after:.3f} after")
    typer.echo(f"written: {', '.join(str(out / path.name) for path in checkpoints)}")


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
    from ..nets.checkpoint import average_nets

    average_nets(checkpoints, out, half, share)
    typer.echo(f"{out}: of {len(checkpoints)} checkpoints")
