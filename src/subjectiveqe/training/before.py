"""What is settled before the first step: that the recipe can be run, whose run the folder holds, where it starts."""

from __future__ import annotations

import json
import logging
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import nn

from .. import __version__, distributed
from ..config import NetConfig, Recipe, read_recipe
from ..errors import ConfigError, ShapeError, first_line
from ..files import sha256_of, write_text
from ..losses import BLOCK_PX, SPECTRUM_PX, SSIM_PX
from ..nets import DISCRIMINATORS, NETS
from ..perceptual import SMALLEST_PATCH_PX, make_perceptual

START = "start.json"
STATE = "state.pt"


class Start(NamedTuple):
    """Where the weights of the generator come from; fresh ones where nothing is given."""

    net: Path | None = None
    estimator: Path | None = None  # in place of the estimator in `net`


def build(family: dict[str, type[nn.Module]], config: NetConfig, where: str) -> nn.Module:
    """The network that a recipe asks for at `where`; ConfigError where it does not take its hparams."""
    try:
        return family[config.kind](**config.hparams)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}.hparams: {config.kind} does not take them ({first_line(error)})") from None


def check(recipe: Recipe, start: Start) -> None:
    """Finds what would stop a run, before its first step."""
    for path in start:
        if path is not None and not path.is_file():
            raise ConfigError(f"{path}: no such file of weights to start from")
    for where, config, family in (("net_g", recipe.net_g, NETS), ("net_d", recipe.net_d, DISCRIMINATORS)):
        if config.kind not in family:
            raise ConfigError(f"{where}.kind: unknown net '{config.kind}', known are {', '.join(family)}")
    paths = [*recipe.data.pairs, *(recipe.valid.pairs if recipe.valid else [])]
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such store or folder of pairs; make it with 'sqe prepare'")
    for name, stage in (("psnr", recipe.psnr), ("gan", recipe.gan)):
        parts = distributed.world_size() * (stage.accumulate if stage else 1)
        if stage and stage.batch % parts:
            raise ConfigError(
                f"{name}.batch: {stage.batch} does not divide into {parts} parts (processes x accumulate)"
            )
        for loss in stage.losses if stage else ():
            if loss.spectrum:
                _check_patch(recipe, "spectrum", SPECTRUM_PX)
            if loss.ssim:
                _check_patch(recipe, "ssim", SSIM_PX)
    with torch.device("meta"):  # nothing is computed
        build(NETS, recipe.net_g, "net_g")
        if recipe.gan and recipe.gan.loss.adv:
            net_d = build(DISCRIMINATORS, recipe.net_d, "net_d")
            side = recipe.data.patch_px
            try:
                net_d(torch.empty(2, 3, side, side))
            except (ShapeError, RuntimeError) as error:
                raise ConfigError(f"data.patch_px: {side} does not suit net_d ({first_line(error)})") from None
    if recipe.gan and any(loss.grid for loss in recipe.gan.losses) and recipe.data.patch_px % BLOCK_PX:
        raise ConfigError(
            f"data.patch_px: {recipe.data.patch_px} is no multiple of {BLOCK_PX}, which the loss grid needs"
        )
    if recipe.gan and recipe.gan.loss.percep:
        kind = recipe.gan.loss.percep_kind
        if kind == "lpips-alex-randomised":
            _check_patch(recipe, kind, SMALLEST_PATCH_PX)
        make_perceptual(kind, recipe.gan.loss.percep_weights, recipe.seed)  # are the weights here?


def _check_patch(recipe: Recipe, loss: str, smallest_px: int) -> None:
    if recipe.data.patch_px < smallest_px:
        raise ConfigError(
            f"data.patch_px: {recipe.data.patch_px} is too small for {loss}, expected {smallest_px} or more"
        )


# What may change in a run that goes on: how long, how it is watched and fed, not what is learnt or judged by.
_FREE_KEYS = ("psnr.steps", "gan.steps", "valid.every", "log_every", "checkpoint_every", "data.workers", "metadata")


def prepare_run_dir(recipe: Recipe, run_dir: Path, resume: bool) -> None:
    """Notes recipe and environment in the folder; ConfigError where it holds another run."""
    kept = run_dir / "recipe.yaml"
    if kept.exists() and not resume:
        raise ConfigError(f"{run_dir}: holds a run; add --resume to go on with it, or name another --run-dir")
    values = recipe.model_dump(mode="json")
    if kept.exists():
        before, now = _flat(read_recipe(kept).model_dump(mode="json")), _flat(values)  # what was not there is as usual
        changed = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
        bound = [key for key in changed if not key.startswith(_FREE_KEYS)]
        if bound:
            raise ConfigError(f"{run_dir}: its run has another {bound[0]}; keep the recipe or start a new run")
        if "psnr.steps" in changed and (run_dir / "gan" / STATE).exists():
            raise ConfigError(f"{run_dir}: its gan stage has begun, so psnr.steps stays; keep it or start a new run")
    write_text(kept, yaml.safe_dump(values, sort_keys=False))
    environment = {
        "subjectiveqe": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": sys.argv,
    }
    write_text(run_dir / "environment.json", json.dumps(environment, indent=2) + "\n")


@contextmanager
def logged(run_dir: Path) -> Iterator[None]:
    """What is logged inside goes into the folder's `train.log` too."""
    handler = logging.FileHandler(run_dir / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root = logging.getLogger("subjectiveqe")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def same_start(start: Start, note: Path) -> Start:
    """Notes what a run starts from, by checksum; one that goes on started from the same, named again or not."""
    if not note.exists():
        named = {name: path and [str(path.resolve()), sha256_of(path)] for name, path in start._asdict().items()}
        write_text(note, json.dumps(named, indent=2) + "\n")
    kept = {}
    try:
        noted_starts = json.loads(note.read_text(encoding="utf-8")).items()
    except (ValueError, AttributeError):
        raise ConfigError(f"{note}: is damaged; delete it and name again what the run started from") from None
    for name, noted in noted_starts:
        path = getattr(start, name)
        if path is not None and (noted is None or sha256_of(path) != noted[1]):
            raise ConfigError(f"{path}: its run started from {noted[0] if noted else 'other weights'}; leave it out")
        kept[name] = path or (noted and Path(noted[0]))
        if path is None and noted and kept[name].exists() and sha256_of(kept[name]) != noted[1]:
            raise ConfigError(f"{kept[name]}: has changed since its run started from it; start a new run")
    return Start(**kept)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
