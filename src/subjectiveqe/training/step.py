"""One optimizer update of each stage. Pure of decisions: nothing here reads a file, writes a log or validates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from ..config import StageConfig
from ..losses import (
    balance_weights,
    border_loss,
    charbonnier,
    grid_loss,
    harm_loss,
    relativistic_d_loss,
    relativistic_g_loss,
)
from ..perceptual import PLAIN_VIEW, View, draw_view
from .batches import Batch
from .state import TrainState


def psnr_step(
    state: TrainState, batch: Batch, stage: StageConfig, lrs: tuple[float, float], generator: torch.Generator
) -> dict[str, Tensor | float]:
    """One update of G towards the original's pixels.

    Args:
        state: changed in place.
        batch: this process's share of the global batch.
        stage: loss weights, precision, accumulation.
        lrs: learning rates of G and of D (unused here).
        generator: drives random views; the same on every process.
    Returns:
        Detached scalars, already weighted: pix and border (they sum to the G loss), and norm_g.
    """
    del generator  # one signature for both stages
    losses: dict[str, Tensor | float] = {}
    for part in batch.split(stage.accumulate):
        with autocast(part.lq, stage):
            out = generate(state.g.net, part.lq, stage.strength)
        terms = _pixel_terms(out.float(), part, stage)
        torch.autograd.backward(torch.stack(list(terms.values())).sum() / stage.accumulate)
        _add(losses, terms, stage.accumulate)
    losses["norm_g"] = state.g.update(lrs[0], stage, state.step)
    state.follow(stage.ema)
    return losses


def gan_step(
    state: TrainState, batch: Batch, stage: StageConfig, lrs: tuple[float, float], generator: torch.Generator
) -> dict[str, Tensor | float]:
    """One G update, then one D update on the same outputs.

    Args:
        state: changed in place; holds D and the perceptual loss, each where its weight is not 0.
        batch: this process's share of the global batch.
        stage: loss weights, precision, accumulation.
        lrs: learning rates of G and of D.
        generator: drives random views; the same on every process.
    Returns:
        Detached scalars, weighted: pix, border, grid, percep, harm, adv (they sum to the G loss), d, norm_g and norm_d.
    """
    net_d, weight = state.d.net if state.d else None, stage.loss
    losses: dict[str, Tensor | float] = {}
    seen: list[tuple[Tensor, Tensor]] = []  # (gt, out) as D sees them
    parts = batch.split(stage.accumulate)

    with frozen(net_d):  # D is the judge here: gradients pass through it, none stay in it
        for part in parts:
            with autocast(part.lq, stage):
                out = generate(state.g.net, part.lq, stage.strength)
                terms = {}
                if weight.percep:
                    assert state.perceptual is not None
                    same_view = generator.clone_state() if weight.harm else None
                    distances = state.perceptual(out.float(), part.gt, generator)
                    terms["percep"] = weight.percep * _weighted_mean(distances, part, stage)
                    if same_view is not None:
                        with torch.no_grad():
                            before = state.perceptual(part.lq, part.gt, same_view)
                        terms["harm"] = weight.percep * weight.harm * harm_loss(distances, before)
                if net_d is not None:
                    view = view_for(net_d, generator)
                    seen.append((view(part.gt), view(out.detach().float())))
                    real, fake = net_d(seen[-1][0]).float(), net_d(view(out)).float()
                    terms["adv"] = weight.adv * relativistic_g_loss(real, fake)
            terms |= _pixel_terms(out.float(), part, stage)
            if weight.grid:
                terms["grid"] = weight.grid * grid_loss(out.float(), part.gt)
            torch.autograd.backward(torch.stack(list(terms.values())).sum() / stage.accumulate)
            _add(losses, terms, stage.accumulate)
    losses["norm_g"] = state.g.update(lrs[0], stage, state.step)
    state.follow(stage.ema)

    if state.d is not None and net_d is not None:
        for gt, fake_gt in seen:
            with autocast(gt, stage):
                real, fake = net_d(gt).float(), net_d(fake_gt).float()
            loss = relativistic_d_loss(real, fake)
            torch.autograd.backward(loss / stage.accumulate)
            _add(losses, {"d": loss}, stage.accumulate)
        losses["norm_d"] = state.d.update(lrs[1], stage, state.step)
    return losses


def generate(net_g: nn.Module, lq: Tensor, strength: float) -> Tensor:
    """Runs the generator, with the dial where it has one. (N, 3, H, W) -> the same."""
    out: Tensor = net_g(lq, lq.new_full((lq.shape[0],), strength)) if net_g.uses_strength else net_g(lq)
    return out


def autocast(like: Tensor, stage: StageConfig) -> AbstractContextManager[None]:
    """Where the networks run in the stage's precision; weights, losses and updates stay float32."""
    return torch.autocast(like.device.type, torch.bfloat16, enabled=stage.precision == "bfloat16")


def view_for(net_d: nn.Module, generator: torch.Generator) -> View:
    """A random shift for a D that takes any size: D's strides must not lock on to G's, or a grid goes unseen."""
    return draw_view(generator, share_rescaled=0.0) if net_d.takes_any_size else PLAIN_VIEW


@contextmanager
def frozen(net: nn.Module | None) -> Iterator[None]:
    """Inside, gradients flow through the network, where there is one, and none are kept in it."""
    if net is None:
        yield
        return
    net.requires_grad_(False)
    try:
        yield
    finally:
        net.requires_grad_(True)


def _pixel_terms(out: Tensor, part: Batch, stage: StageConfig) -> dict[str, Tensor]:
    terms = {}
    if stage.loss.pix:
        terms["pix"] = stage.loss.pix * _weighted_mean(charbonnier(out, part.gt), part, stage)
    if stage.loss.border:
        terms["border"] = stage.loss.border * border_loss(out, part.gt, part.grid)
    return terms


def _weighted_mean(distances: Tensor, part: Batch, stage: StageConfig) -> Tensor:
    return (balance_weights(part.lq, part.gt, stage.loss.balance) * distances).mean()


def _add(losses: dict[str, Tensor | float], terms: dict[str, Tensor], accumulate: int) -> None:
    for name, value in terms.items():
        losses[name] = losses.get(name, 0.0) + value.detach() / accumulate
