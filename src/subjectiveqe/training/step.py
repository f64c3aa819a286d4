"""One optimizer update of each stage. Pure of decisions: nothing here reads a file, writes a log or validates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..config import PIXEL_TERMS, StageConfig
from ..losses import (
    balance_weights,
    border_loss,
    charbonnier,
    chroma_loss,
    estimate_loss,
    grid_loss,
    harm_loss,
    psnr_loss,
    relativistic_d_loss,
    relativistic_g_loss,
    spectrum_loss,
    ssim_loss,
)
from ..perceptual import PLAIN_VIEW, View, draw_view
from .batches import Batch
from .state import DivergedError, TrainState

_DISTANCES = {
    "pix": charbonnier,
    "psnr": psnr_loss,
    "chroma": chroma_loss,
    "spectrum": spectrum_loss,
    "ssim": ssim_loss,
}
"""Losses of both stages that compare each output with its original, by the names of their weights."""


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
        Detached scalars, already weighted: pix, psnr, chroma, spectrum, ssim, border and estimate (they sum to the G
        loss), and norm_g.
    """
    del generator  # one signature for both stages
    losses: dict[str, Tensor | float] = {}
    for part in batch.split(stage.accumulate):
        terms = _estimate_term(state.g.net, part, stage)
        if any(getattr(stage.loss, name) for name in PIXEL_TERMS):
            with autocast(part.lq, stage):
                out = generate(state.g.net, part.lq, stage.strength, part.coarseness)
            terms |= _pixel_terms(out.float(), part, stage)
        torch.autograd.backward(torch.stack(list(terms.values())).sum() / stage.accumulate)
        _add(losses, terms, stage.accumulate)
    losses["norm_g"] = _update_g(state, losses, lrs[0], stage)
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
        Detached scalars, weighted: pix, psnr, chroma, spectrum, ssim, border, grid, percep, harm, adv and estimate
        (they sum to the G loss), d, norm_g and norm_d.
    """
    net_d, weight = state.d.net if state.d else None, stage.loss
    losses: dict[str, Tensor | float] = {}
    seen: list[tuple[Tensor, Tensor]] = []  # (gt, out) as D sees them
    parts = batch.split(stage.accumulate)

    with frozen(net_d):  # D is the judge here: gradients pass through it, none stay in it
        for part in parts:
            with autocast(part.lq, stage):
                out = generate(state.g.net, part.lq, stage.strength, part.coarseness)
                terms = {}
                if weight.percep:
                    assert state.perceptual is not None
                    same_view = generator.clone_state() if weight.harm else None
                    distances = state.perceptual(out.float(), part.gt, generator)
                    terms["percep"] = weight.percep * _weighted_mean(part.emphasis * distances, part, stage)
                    if same_view is not None:
                        with torch.no_grad():
                            before = state.perceptual(part.lq, part.gt, same_view)
                        terms["harm"] = weight.percep * weight.harm * harm_loss(distances, before)
                if net_d is not None:
                    view = view_for(net_d, generator)
                    seen.append((view(part.gt), view(out.detach().float())))
                    real, fake = net_d(seen[-1][0]).float(), net_d(view(out)).float()
                    terms["adv"] = weight.adv * relativistic_g_loss(real, fake)
            terms |= _pixel_terms(out.float(), part, stage) | _estimate_term(state.g.net, part, stage)
            if weight.grid:
                terms["grid"] = weight.grid * grid_loss(out.float(), part.gt)
            torch.autograd.backward(torch.stack(list(terms.values())).sum() / stage.accumulate)
            _add(losses, terms, stage.accumulate)
    losses["norm_g"] = _update_g(state, losses, lrs[0], stage)

    if state.d is not None and net_d is not None:
        for gt, fake_gt in seen:
            with autocast(gt, stage):
                real, fake = net_d(gt).float(), net_d(fake_gt).float()
            loss = relativistic_d_loss(real, fake)
            torch.autograd.backward(loss / stage.accumulate)
            _add(losses, {"d": loss}, stage.accumulate)
        losses["norm_d"] = state.d.update(lrs[1], stage, state.step)
    return losses


def _update_g(state: TrainState, losses: Mapping[str, Tensor | float], lr: float, stage: StageConfig) -> float:
    """One update of the generator, which its average follows; gives the norm of the gradient.

    A loss may be infinite where its gradient is 0: weights so large that nothing they do matters any more.
    """
    norm = state.g.update(lr, stage, state.step)
    total = float(sum(losses.values()))  # waits for the device, which the update has done already
    if not math.isfinite(total):
        raise DivergedError(f"step {state.step + 1}: the loss is {total}")
    state.follow(stage.ema)
    return norm


def generate(net_g: Any, lq: Tensor, strength: float, coarseness: Tensor | None = None) -> Tensor:
    """Runs the generator, with the dial where it has one, told the coarseness where it listens. (N, 3, H, W) -> same.

    Where the coarseness is not known (None, or NaN in a row of it), the network goes by its own estimate.
    """
    if not net_g.uses_strength:
        out: Tensor = net_g(lq)
        return out
    dial = lq.new_full((lq.shape[0],), strength)
    if coarseness is None or not net_g.num_coarseness:
        out = net_g(lq, dial)
    else:
        known = coarseness
        if known.isnan().any():
            with torch.no_grad():
                known = torch.where(known.isnan(), net_g.estimate(lq)[:, 0], known)
        out = net_g(lq, dial, known)
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
    terms = {
        name: getattr(stage.loss, name) * _weighted_mean(distance(out, part.gt), part, stage)
        for name, distance in _DISTANCES.items()
        if getattr(stage.loss, name)
    }
    if stage.loss.border:
        terms["border"] = stage.loss.border * border_loss(out, part.gt, part.grid)
    return terms


def _estimate_term(net_g: Any, part: Batch, stage: StageConfig) -> dict[str, Tensor]:
    if not stage.loss.estimate or not net_g.num_coarseness:
        return {}
    loss = estimate_loss(net_g.estimate(part.lq), part.coarseness, stage.loss.too_coarse)
    return {"estimate": stage.loss.estimate * loss}


def _weighted_mean(distances: Tensor, part: Batch, stage: StageConfig) -> Tensor:
    return (balance_weights(part.lq, part.gt, stage.loss.balance) * distances).mean()


def _add(losses: dict[str, Tensor | float], terms: dict[str, Tensor], accumulate: int) -> None:
    for name, value in terms.items():
        losses[name] = losses.get(name, 0.0) + value.detach() / accumulate
