"""What is settled before the first step: that the recipe can be run, whose run the folder holds, where it starts."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor, nn

from .. import __version__, distributed
from ..codecs.coarseness import FAMILIES
from ..config import GAN_TERMS, PIXEL_TERMS, NetConfig, Recipe, StageConfig, read_recipe
from ..data.patches import Patches
from ..data.store import open_pairs
from ..errors import ConfigError, ShapeError, first_line, unknown
from ..files import sha256_of, write_text
from ..losses import BLOCK_PX, SPECTRUM_PX, SSIM_PX
from ..nets import DISCRIMINATORS, NETS
from ..nets.checkpoint import load_net
from ..nets.grow import grow
from ..perceptual import MAX_SHIFT_PX, SMALLEST_PATCH_PX, make_perceptual
from .step import STAGES, generate
from .validate import choose_pairs

log = logging.getLogger(__name__)

START, PAIRS = "start.json", "pairs.json"
STATE = "state.pt"


class Start(NamedTuple):
    """Where the weights of the generator come from; fresh ones where nothing is given."""

    net: Path | None = None
    estimator: Path | None = None  # in place of the estimator in `net`


def build(family: dict[str, type[nn.Module]], config: NetConfig, where: str) -> nn.Module:
    """The network that a recipe asks for at `where`; ConfigError where it does not take its hparams."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without weights, which are refused
            net = family[config.kind](**config.hparams)
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        raise ConfigError(f"{where}.hparams: {config.kind} does not take them ({first_line(error)})") from None
    if empty := next((name for name, param in net.named_parameters() if not param.numel()), None):
        raise ConfigError(f'{where}.hparams: {config.kind} has nothing in "{empty}" with them; take 1 or more of each')
    return net


def check(recipe: Recipe, start: Start) -> None:
    """Finds what would stop a run, before its first step and before its folder is made."""
    for path in start:
        if path is not None and not path.is_file():
            raise ConfigError(f"{path}: no such file of weights to start from")
    for where, net, family in (("net_g", recipe.net_g, NETS), ("net_d", recipe.net_d, DISCRIMINATORS)):
        if net.kind not in family:
            raise unknown(f"{where}.kind", net.kind, family)
    for path in _pairs_of(recipe):
        if not path.exists():
            raise ConfigError(f'{path}: no such store or folder of pairs; make it with "sqe prepare"')
    for name, config in recipe.stages.items():
        parts = distributed.world_size() * config.accumulate
        if config.batch % parts:
            raise ConfigError(
                f"{name}.batch: {config.batch} does not divide into {parts} parts (processes x accumulate)"
            )
        for loss in config.losses:
            if loss.border:
                _check_patch(recipe, "border", BLOCK_PX + 1)  # which hold a border wherever they lie
            if loss.spectrum:
                _check_patch(recipe, "spectrum", SPECTRUM_PX)
            if loss.ssim:
                _check_patch(recipe, "ssim", SSIM_PX)
    if recipe.gan and recipe.gan.loss.adv:
        _try_net_d(recipe)
    net_g = _try_net_g(recipe)
    for name, config in recipe.stages.items():
        if config.only is not None:
            if not any(param.startswith(config.only) for param, _ in net_g.named_parameters()):
                raise ConfigError(f'{name}.only: no parameter of {recipe.net_g.kind} begins with "{config.only}"')
            _check_only(name, config, net_g)
    weights_from(start, recipe, net_g)
    if recipe.gan and any(loss.grid for loss in recipe.gan.losses) and recipe.data.patch_px % BLOCK_PX:
        raise ConfigError(
            f"data.patch_px: {recipe.data.patch_px} is no multiple of {BLOCK_PX}, which the loss grid needs"
        )
    if recipe.gan and recipe.gan.loss.percep:
        kind = recipe.gan.loss.percep_kind
        _check_patch(recipe, kind, SMALLEST_PATCH_PX[kind])
        make_perceptual(kind, recipe.gan.loss.percep_weights, recipe.seed)  # are the weights here?
    data = recipe.data
    Patches([open_pairs(path) for path in data.pairs], data.patch_px, recipe.seed, data.aligned)
    if recipe.valid:
        choose_pairs(recipe.valid)


def _check_only(name: str, config: StageConfig, net_g: nn.Module) -> None:
    """Refuses losses that do not reach what alone is to be trained: `estimate` the estimator, the others the rest."""
    trained = {
        param.startswith("estimator.")
        for param, _ in net_g.named_parameters()
        if param.startswith(config.only or "") and not param.startswith("estimator.beneath.")  # of sqe calibrate
    }
    for loss in config.losses:
        reached = {True} if loss.estimate else set()
        reached |= {False} if any(getattr(loss, term) for term in (*PIXEL_TERMS, *GAN_TERMS)) else set()
        if not trained & reached:
            wanted = '"estimate"' if True in trained else 'a loss beside "estimate"'
            raise ConfigError(
                f'{name}.only: nothing trains "{config.only}" without {wanted}; give one a weight above 0'
            )


_SAID = ("hparams", "stride_px", "receptive_px", "uses_strength", "num_coarseness")
"""What every generator says of itself."""


def _try_net_g(recipe: Recipe) -> Any:
    """A fresh generator that has been seen to work."""
    with torch.device("meta"):  # nothing is computed
        build(NETS, recipe.net_g, "net_g")
    net_g: Any = build(NETS, recipe.net_g, "net_g")
    if lacks := [name for name in _SAID if not hasattr(net_g, name)]:
        raise ConfigError(
            f"net_g.kind: {recipe.net_g.kind} does not say its {', '.join(lacks)}; see docs/researcher.md"
        )
    if net_g.num_coarseness > len(FAMILIES):
        known = f"{len(FAMILIES)}, {', '.join(FAMILIES)}"
        raise ConfigError(f"net_g.hparams.num_coarseness: {net_g.num_coarseness} is more than there are ({known})")
    try:
        with torch.no_grad():
            generate(net_g, torch.zeros(2, 3, 16, 16), strength=1.0, coarseness=None)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"net_g.hparams: {recipe.net_g.kind} does not work ({first_line(error)})") from None
    return net_g


def _try_net_d(recipe: Recipe) -> None:
    side = recipe.data.patch_px
    with torch.device("meta"):
        net_d: Any = build(DISCRIMINATORS, recipe.net_d, "net_d")
        seen = side - MAX_SHIFT_PX if net_d.takes_any_size else side
        try:
            net_d(torch.empty(2, 3, seen, seen))
        except (ShapeError, RuntimeError) as error:
            raise ConfigError(f"data.patch_px: {side} does not suit net_d ({first_line(error)})") from None


def _check_patch(recipe: Recipe, loss: str, smallest_px: int) -> None:
    if recipe.data.patch_px < smallest_px:
        raise ConfigError(
            f"data.patch_px: {recipe.data.patch_px} is too small for {loss}, expected {smallest_px} or more"
        )


def weights_from(start: Start, recipe: Recipe, net_g: nn.Module) -> dict[str, Tensor]:
    """The weights that a run starts from, for its generator; none where it starts afresh.

    Raises:
        ConfigError: they are of another network, or hold no estimator.
        ModelError: a file is damaged.
    """
    weights: dict[str, Tensor] = {}
    if start.net is not None:
        weights |= _take_over(start.net, recipe, net_g)
    if start.estimator is not None:
        theirs = _take_over(start.estimator, recipe, net_g)
        estimator = {name: weight for name, weight in theirs.items() if name.startswith("estimator.")}
        if not estimator:
            raise ConfigError(f"{start.estimator}: holds no estimator of coarseness")
        weights |= estimator
    return weights


def _take_over(path: Path, recipe: Recipe, net_g: nn.Module) -> dict[str, Tensor]:
    """The weights of a file, for a network to which parts may have been added since."""
    trained, header = load_net(path)
    weights = grow(trained, net_g)
    if not _fits(trained, weights, net_g):
        wanted = f"{recipe.net_g.kind} {net_g.hparams}"
        raise ConfigError(f"{path}: holds {header['net']} {trained.hparams}, the recipe trains {wanted}")
    return weights


def _fits(trained: nn.Module, weights: Mapping[str, Tensor], net_g: nn.Module) -> bool:
    """Whether weights can be taken over: the same network, to which parts may have been added."""
    there, wanted = ({name: w.shape for name, w in state.items()} for state in (weights, net_g.state_dict()))
    added = ("gate.", "estimator.", "tell.")
    needed = {name: shape for name, shape in wanted.items() if name in there or not name.startswith(added)}
    return type(trained) is type(net_g) and there == needed


# What may change in a run that goes on: how long and how boldly it learns, how it is watched and fed, not what is
# learnt or judged by.
_FREE_OF_STAGES = ("steps", "lr", "lr_d", "clip_norm", "spike_factor")
_FREE_KEYS = ("valid.every", "log_every", "checkpoint_every", "data.workers", "metadata")


_MOST_LETTERS = 60
"""Of a value in a message."""


def refuse_other_run(recipe: Recipe, run_dir: Path, resume: bool) -> None:
    """Raises ConfigError where a folder holds another run than this one.

    A run that has no checkpoint yet is nothing to go on with: unless it is resumed, another takes its folder, and what
    was noted of its start and its pairs is deleted.
    """
    kept = run_dir / "recipe.yaml"
    if not resume:
        if any((run_dir / stage / STATE).exists() for stage in STAGES):
            raise ConfigError(f"{run_dir}: holds a run; add --resume to go on with it, or name another --run-dir")
        for note in (START, PAIRS):
            (run_dir / note).unlink(missing_ok=True)
    elif not kept.exists():
        log.warning("%s: holds no run to go on with, so this one begins at its first step", run_dir)
    if kept.exists() and resume:
        # What was not there is as usual.
        before, now = (_flat(one.model_dump(mode="json")) for one in (read_recipe(kept), recipe))
        changed = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
        bound = [key for key in changed if not _is_free(key)]
        if bound:
            theirs, ours = (shorten(str(one.get(bound[0])), _MOST_LETTERS) for one in (before, now))
            raise ConfigError(
                f"{run_dir}: its run has another {bound[0]} ({theirs}, not {ours}); "
                "keep the recipe and what was --set, or start a new run"
            )
        done = [key for key in changed if key.startswith("psnr.")]
        if done and (run_dir / "gan" / STATE).exists():
            raise ConfigError(f"{run_dir}: its gan stage has begun, so {done[0]} stays; keep it or start a new run")


def note_run(recipe: Recipe, run_dir: Path, resume: bool) -> None:
    """Notes in its folder the recipe of a run, and what it runs in."""
    write_text(run_dir / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
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
    noted = run_dir / "environment.json"
    write_text(noted, json.dumps([*(_noted_before(noted) if resume else []), environment], indent=2) + "\n")


def _noted_before(noted: Path) -> list[Any]:
    """Environments of earlier starts; nothing of a note that is damaged."""
    with suppress(OSError, ValueError):
        kept = json.loads(noted.read_text(encoding="utf-8"))
        return kept if isinstance(kept, list) else [kept]
    return []


def _is_free(key: str) -> bool:
    stage, _, name = key.partition(".")
    return key.startswith(_FREE_KEYS) or (stage in STAGES and name in _FREE_OF_STAGES)


@contextmanager
def logged(run_dir: Path) -> Iterator[None]:
    """What is logged inside goes into the folder's `train.log` too."""
    handler = logging.FileHandler(run_dir / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    ours = logging.getLogger("subjectiveqe")
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.setLevel(level)
        ours.removeHandler(handler)
        handler.close()


def same_start(start: Start, note: Path) -> Start:
    """Notes what a run starts from, by checksum; one that goes on started from the same, named again or not."""
    if not note.exists():
        named = {name: path and [str(path.resolve()), sha256_of(path)] for name, path in start._asdict().items()}
        write_text(note, json.dumps(named, indent=2) + "\n")
    try:
        named = Start(**json.loads(note.read_text(encoding="utf-8")))._asdict()
        noted_starts = {name: None if noted is None else (Path(noted[0]), noted[1]) for name, noted in named.items()}
    except (ValueError, TypeError, LookupError):
        raise ConfigError(f"{note}: is damaged; delete it and name again what the run started from") from None
    kept: dict[str, Path | None] = {}
    for name, noted in noted_starts.items():
        given: Path | None = getattr(start, name)
        path, digest = noted or (None, "")
        if given is not None and (path is None or sha256_of(given) != digest):
            raise ConfigError(f"{given}: its run started from {path or 'other weights'}; leave it out")
        if given is None and path is not None and path.exists() and sha256_of(path) != digest:
            raise ConfigError(f"{path}: has changed since its run started from it; start a new run")
        kept[name] = given or path
    return Start(**kept)


def same_pairs(recipe: Recipe, note: Path) -> None:
    """Notes what pairs a run learns and is judged by; ConfigError where one that goes on would go by others.

    Two sets are the same where names, sizes and how the pictures were compressed are, to how many bytes.
    """
    now = {
        str(path): hashlib.sha256(repr(tuple(open_pairs(path).infos)).encode()).hexdigest()
        for path in _pairs_of(recipe)
    }
    kept: dict[str, str] = {}
    if note.exists():
        try:
            kept = dict(json.loads(note.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise ConfigError(f"{note}: is damaged; delete it if the pairs are what they were") from None
    for path, digest in now.items():
        if kept.get(path, digest) != digest:
            raise ConfigError(f"{path}: holds other pairs than when its run began; bring them back or start a new run")
    write_text(note, json.dumps(now, indent=2) + "\n")


def _pairs_of(recipe: Recipe) -> list[Path]:
    """To learn and to be judged by."""
    return [*recipe.data.pairs, *(recipe.valid.pairs if recipe.valid else [])]


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
