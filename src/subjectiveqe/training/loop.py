"""Training from recipe to weights. Read `train` and `run_stage` from top to bottom.

A run folder holds:

    recipe.yaml          all values of the recipe, defaults included
    environment.json     versions, hardware, command, of each time it was started
    start.json           weights it started from, with their checksums
    pairs.json           checksums of what is known of the pairs
    train.log            what was printed
    tensorboard/STAGE/   scalars and lq | out | gt pictures
    .lock                held while a process trains here
    psnr/ and gan/       state.pt (to resume), best.safetensors (by validation), last.safetensors
"""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import distributed
from ..config import Recipe, StageConfig
from ..files import held
from ..nets import DISCRIMINATORS, NETS
from ..perceptual import make_perceptual
from .batches import stream
from .before import (
    PAIRS,
    START,
    STATE,
    Start,
    build,
    check,
    logged,
    note_run,
    refuse_other_run,
    same_pairs,
    same_start,
    weights_from,
)
from .record import BEST, LAST, StageRecord
from .state import Learner, TrainState
from .step import STAGES, DivergedError, Stage

log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    run_dir: Path,
    resume: bool = False,
    init_from: Path | None = None,
    estimator_from: Path | None = None,
) -> Path:
    """Runs the stages of a recipe, the gan stage from the psnr stage's best weights.

    Deterministic on a CPU: the same recipe, software and thread count give the same weights bit by bit, interrupted or
    not. Under `torchrun` every process calls this; rank 0 alone validates and writes.

    Args:
        recipe: what to train; see `read_recipe`.
        run_dir: where everything goes; must hold no checkpoint unless `resume`.
        resume: go on from the last checkpoint in `run_dir`; from the start where there is none yet.
        init_from: weights the first stage starts from.
        estimator_from: weights whose estimator of coarseness the first stage takes in place of the one in `init_from`.
    Returns:
        The best weights of the last stage.
    Raises:
        ConfigError: the recipe cannot be run, or `run_dir` holds another run.
        DivergedError: a loss or a gradient is not finite; the message names the step and how to go on.
    """
    device = distributed.own_device()
    distributed.start(device)
    start = Start(init_from, estimator_from)
    with ExitStack() as ends:
        ends.callback(distributed.stop)
        check(recipe, start)
        writes = distributed.rank() == 0
        if writes:
            ends.enter_context(held(run_dir, "another process is training here; wait for it or stop it"))
            refuse_other_run(recipe, run_dir, resume)
            ends.enter_context(logged(run_dir))
            same_start(start, run_dir / START)
            same_pairs(recipe, run_dir / PAIRS)
            note_run(recipe, run_dir, resume)
        distributed.wait_for_all()
        start = same_start(start, run_dir / START)
        for name, config in recipe.stages.items():
            start = Start(run_stage(recipe, STAGES[name], config, run_dir, start, device, writes))
        assert start.net is not None
        return start.net


def run_stage(
    recipe: Recipe,
    stage: Stage,
    config: StageConfig,
    run_dir: Path,
    start: Start,
    device: torch.device,
    writes: bool,
) -> Path:
    """Runs one stage from its last checkpoint, or from its beginning, to its end; gives its best weights."""
    folder = run_dir / stage.name
    state = _begin_stage(recipe, stage, config, folder, start, device, writes)
    if writes:
        _warn_of_emulation(stage, config, device)
    told: Any = state.g.net.num_coarseness
    # The gan stage draws other patches than the psnr stage did.
    seed = 2 * recipe.seed + (stage.name == "gan")
    rank, world_size = distributed.rank(), distributed.world_size()
    batches = stream(recipe.data, seed, config.batch, state.step, rank, world_size, device, told)
    with closing(StageRecord(recipe, stage, config, run_dir, state)) if writes else nullcontext() as record:
        if record:
            record.make_up()
        while state.step < config.steps:
            generator = torch.Generator().manual_seed(hash_step(recipe.seed, state.step))
            lrs = lr_at(config, config.lr, state.step), lr_at(config, config.lr_d or config.lr, state.step)
            try:
                losses = stage.step(state, next(batches), at_step(config, generator), lrs, generator)
            except DivergedError as error:
                again = "goes on from its last checkpoint" if (folder / STATE).exists() else "starts the stage anew"
                hint = f"--resume {again}: give it a lower {stage.name}.lr, or another clip_norm or spike_factor"
                raise DivergedError(f"{stage.name}: {error}; {hint}") from None
            state.step += 1
            if record:
                record.add(losses, lrs)
    distributed.wait_for_all()
    return folder / BEST if (folder / BEST).exists() else folder / LAST


def _begin_stage(
    recipe: Recipe, stage: Stage, config: StageConfig, folder: Path, start: Start, device: torch.device, writes: bool
) -> TrainState:
    """What a stage goes on with: its last checkpoint, or `start`."""
    goes_on = (folder / STATE).exists()
    state = start_state(recipe, stage, config, Start() if goes_on else start, device)
    if goes_on:
        state.load(folder / STATE)
        if writes:
            log.info("%s: going on from step %d", stage.name, state.step)
        return state
    if not writes:
        return state
    for name in (BEST, LAST):  # of a run that was stopped before its first checkpoint, perhaps by another recipe
        (folder / name).unlink(missing_ok=True)
    if start.net is not None:
        log.info("%s: starting from %s", stage.name, start.net)
    if start.estimator is not None:
        log.info("%s: with the estimator of %s", stage.name, start.estimator)
    return state


def _warn_of_emulation(stage: Stage, config: StageConfig, device: torch.device) -> None:
    """Says what bfloat16 costs on a processor that is known to be without instructions for it."""
    if config.precision != "bfloat16" or device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return
    known = torch.cpu.get_capabilities()
    if known.get("architecture") == "x86_64" and not (known["avx512_bf16"] or known["amx_bf16"]):
        log.warning(
            "%s: this processor has no bfloat16 instructions, a step takes several times as long as in float32; "
            "begin the run with --set %s.precision=float32",
            *(stage.name, stage.name),
        )


def start_state(recipe: Recipe, stage: Stage, config: StageConfig, start: Start, device: torch.device) -> TrainState:
    """Fresh networks and optimizers; the generator's weights come from `start` where it names any."""
    torch.manual_seed(recipe.seed)
    net_g: Any = build(NETS, recipe.net_g, "net_g")
    net_g.load_state_dict(weights_from(start, recipe, net_g), strict=False)
    if config.only is not None:
        for name, param in net_g.named_parameters():
            param.requires_grad_(name.startswith(config.only))
    state = TrainState(_learner(net_g, config, device))
    if net_g.num_coarseness:
        _keep_statistics(net_g.estimator, config)
    if stage.name == "gan":
        if config.loss.adv:
            state.d = _learner(build(DISCRIMINATORS, recipe.net_d, "net_d"), config, device)
        if config.loss.percep:
            perceptual = make_perceptual(config.loss.percep_kind, config.loss.percep_weights, recipe.seed)
            state.perceptual = channels_last(perceptual.to(device))
    return state


def _keep_statistics(estimator: nn.Module, config: StageConfig) -> None:
    """Lets batch norms that are asked and do not learn stay as they are, their statistics too."""
    if not any(loss.estimate for loss in config.losses):
        estimator.eval()
    for layer in estimator.modules():
        if isinstance(layer, nn.BatchNorm2d) and not layer.weight.requires_grad:
            layer.eval()


def at_step(config: StageConfig, generator: torch.Generator) -> StageConfig:
    """The stage as it is for one step: itself, or at a strength drawn from all of the dial, a quarter at each end."""
    if config.faithful_loss is None:
        return config
    drawn = 2 * torch.rand(1, generator=generator).item() - 0.5
    return config.at(min(max(drawn, 0.0), 1.0))


def lr_at(config: StageConfig, lr: float, step: int) -> float:
    """Learning rate of a step: a linear warm-up, then constant or half a cosine down to `final_lr` of it.

    Args:
        config: says how long the warm-up and the stage are, and how the rate goes on.
        lr: the rate after the warm-up; that of G or of D.
        step: updates that were taken before it, 0..`config.steps` - 1.
    Returns:
        The rate, above 0 where `final_lr` is.
    """
    if step < config.warmup:
        return lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return lr
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return lr * (config.final_lr + (1 - config.final_lr) * (1 + math.cos(math.pi * done)) / 2)


def hash_step(seed: int, step: int) -> int:
    """A seed for the random views of one step, unrelated to its neighbours'."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def _learner(net: nn.Module, config: StageConfig, device: torch.device) -> Learner:
    net = channels_last(net.to(device)).train()
    return Learner(net, torch.optim.Adam(net.parameters(), lr=config.lr, betas=config.betas))


def channels_last(net: nn.Module) -> nn.Module:
    """Lays the weights out as the batches are, which doubles bfloat16 training on a CPU."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
