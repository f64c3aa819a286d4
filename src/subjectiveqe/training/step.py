"""The steps of both stages, and all that happens in one. Nothing here reads a file, writes a log or validates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..config import PIXEL_TERMS, StageConfig
from ..distributed import average_gradients
from ..errors import SubjectiveQEError
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
from .state import Learner, TrainState

if TYPE_CHECKING:
    from .validate import Scores


class DivergedError(SubjectiveQEError):
    """Training produced a loss or a gradient that is not a number."""


_DISTANCES = {
    "pix": charbonnier,
    "psnr": psnr_loss,
    "chroma": chroma_loss,
    "spectrum": spectrum_loss,
    "ssim": ssim_loss,
}
"""Losses of both stages that compare each output with its original, by the names of their weights."""


def psnr_step(
    state: TrainState, batch: Batch, config: StageConfig, lrs: tuple[float, float], generator: torch.Generator
) -> dict[str, Tensor | float]:
    """One update of G towards the original's pixels.

    Args:
        state: changed in place.
        batch: this process's share of the global batch.
        config: loss weights, precision, accumulation.
        lrs: learning rates of G and of D (unused here).
        generator: drives random views; the same on every process.
    Returns:
        Detached scalars, already weighted: pix, psnr, chroma, spectrum, ssim, border and estimate (they sum to the G
        loss), and norm_g.
    """
    del generator  # one signature for both stages
    losses: dict[str, Tensor | float] = {}
    for part in batch.split(config.accumulate):
        terms = _estimate_term(state.g.net, part, config)
        if any(getattr(config.loss, name) for name in PIXEL_TERMS):
            with autocast(part.lq, config):
                out = generate(state.g.net, part.lq, config.strength, part.coarseness)
            terms |= _pixel_terms(out.float(), part, config)
        torch.autograd.backward(torch.stack(list(terms.values())).sum() / config.accumulate)
        _add(losses, terms, config.accumulate)
    losses["norm_g"] = _update_g(state, losses, lrs[0], config)
    return losses


def gan_step(
    state: TrainState, batch: Batch, config: StageConfig, lrs: tuple[float, float], generator: torch.Generator
) -> dict[str, Tensor | float]:
    """One G update, then one D update on the same outputs.

    Args:
        state: changed in place; holds D and the perceptual loss, each where its weight is not 0.
        batch: this process's share of the global batch.
        config: loss weights, precision, accumulation.
        lrs: learning rates of G and of D.
        generator: drives random views; the same on every process.
    Returns:
        Detached scalars, weighted: pix, psnr, chroma, spectrum, ssim, border, grid, percep, harm, adv and estimate
        (they sum to the G loss), d, norm_g and norm_d.
    """
    net_d, weight = state.d.net if state.d else None, config.loss
    losses: dict[str, Tensor | float] = {}
    seen: list[tuple[Tensor, Tensor]] = []  # (gt, out) as D sees them
    parts = batch.split(config.accumulate)

    with frozen(net_d):  # D is the judge here: gradients pass through it, none stay in it
        for part in parts:
            with autocast(part.lq, config):
                out = generate(state.g.net, part.lq, config.strength, part.coarseness)
                terms = {}
                if weight.percep:
                    assert state.perceptual is not None
                    same_view = generator.clone_state() if weight.harm else None
                    distances = state.perceptual(out.float(), part.gt, generator)
                    terms["percep"] = weight.percep * _weighted_mean(part.emphasis * distances, part, config)
                    if same_view is not None:
                        with torch.no_grad():
                            before = state.perceptual(part.lq, part.gt, same_view)
                        terms["harm"] = weight.percep * weight.harm * harm_loss(distances, before)
                if net_d is not None:
                    view = view_for(net_d, generator)
                    seen.append((view(part.gt), view(out.detach().float())))
                    real, fake = net_d(seen[-1][0]).float(), net_d(view(out)).float()
                    terms["adv"] = weight.adv * relativistic_g_loss(real, fake)
            terms |= _pixel_terms(out.float(), part, config) | _estimate_term(state.g.net, part, config)
            if weight.grid:
                terms["grid"] = weight.grid * grid_loss(out.float(), part.gt)
            torch.autograd.backward(torch.stack(list(terms.values())).sum() / config.accumulate)
            _add(losses, terms, config.accumulate)
    losses["norm_g"] = _update_g(state, losses, lrs[0], config)

    if state.d is not None and net_d is not None:
        for gt, fake_gt in seen:
            with autocast(gt, config):
                real, fake = net_d(gt).float(), net_d(fake_gt).float()
            loss = relativistic_d_loss(real, fake)
            torch.autograd.backward(loss / config.accumulate)
            _add(losses, {"d": loss}, config.accumulate)
        losses["norm_d"] = update(state.d, lrs[1], config, state.step)
    return losses


def _update_g(state: TrainState, losses: Mapping[str, Tensor | float], lr: float, config: StageConfig) -> float:
    """One update of the generator, which its average follows; gives the norm of the gradient.

    A loss may be infinite where its gradient is 0: weights so large that nothing they do matters any more.
    """
    norm = update(state.g, lr, config, state.step)
    total = float(sum(losses.values()))  # waits for the device, which the update has done already
    if not math.isfinite(total):
        raise DivergedError(f"step {state.step + 1}: the loss is {total}")
    state.follow(config.ema)
    return norm


GUARD_AFTER, _MEAN_DECAY = 100, 0.98
"""Updates before the running mean of norms means anything, and how much of it stays with each."""


def update(learner: Learner, lr: float, config: StageConfig, step: int) -> float:
    """Uses the gradients in a network for one update, unless their norm spikes; clears them.

    Args:
        learner: changed in place.
        lr: learning rate of this update.
        config: says where gradients are clipped, and what norm is a spike.
        step: from 0, for messages, which count from 1 as the log does.
    Returns:
        The gradient norm before clipping.
    Raises:
        DivergedError: the norm is not finite.
    """
    params = [param for param in learner.net.parameters() if param.grad is not None]
    average_gradients(params)
    # A synchronisation with the device, one for each network; the decision below needs the value.
    norm = float(nn.utils.clip_grad_norm_(params, config.clip_norm or float("inf"), foreach=True))
    if norm != norm or norm == float("inf"):
        raise DivergedError(f"step {step + 1}: the gradient of {type(learner.net).__name__} is {norm}")
    # Where there is no mean yet, nothing is a spike.
    spike = config.spike_factor * learner.norm_mean if config.spike_factor and learner.norm_mean else float("inf")
    if learner.num_updates >= GUARD_AFTER and norm > spike:
        learner.num_skipped += 1
    else:
        for group in learner.optim.param_groups:
            group["lr"] = lr
        learner.optim.step()
        learner.num_updates += 1
    # A spike moves the mean too, by little: were it left out, a lasting rise would block every update for good.
    seen = min(norm, spike)
    learner.norm_mean = _MEAN_DECAY * learner.norm_mean + (1 - _MEAN_DECAY) * seen if learner.norm_mean else seen
    learner.optim.zero_grad(set_to_none=True)
    return norm


def generate(net_g: Any, lq: Tensor, strength: float, coarseness: Tensor | None = None) -> Tensor:
    """Runs the generator, with the dial where it has one, told the coarseness where it listens.

    Args:
        net_g: of `nets.NETS`.
        lq: (N, 3, H, W) in [0, 1].
        strength: the dial, 0..1.
        coarseness: (N, K); where it is not known (None, or NaN in a row), the network goes by its own estimate.
    Returns:
        The outputs, (N, 3, H, W), not clamped.
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


def autocast(like: Tensor, config: StageConfig) -> AbstractContextManager[None]:
    """Where the networks run in the stage's precision; weights, losses and updates stay float32."""
    return torch.autocast(like.device.type, torch.bfloat16, enabled=config.precision == "bfloat16")


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


def _pixel_terms(out: Tensor, part: Batch, config: StageConfig) -> dict[str, Tensor]:
    terms = {
        name: getattr(config.loss, name) * _weighted_mean(distance(out, part.gt), part, config)
        for name, distance in _DISTANCES.items()
        if getattr(config.loss, name)
    }
    if config.loss.border:
        terms["border"] = config.loss.border * border_loss(out, part.gt, part.grid)
    return terms


def _estimate_term(net_g: Any, part: Batch, config: StageConfig) -> dict[str, Tensor]:
    if not config.loss.estimate or not net_g.num_coarseness:
        return {}
    loss = estimate_loss(net_g.estimate(part.lq), part.coarseness, config.loss.too_coarse)
    return {"estimate": config.loss.estimate * loss}


def _weighted_mean(distances: Tensor, part: Batch, config: StageConfig) -> Tensor:
    return (balance_weights(part.lq, part.gt, config.loss.balance) * distances).mean()


def _add(losses: dict[str, Tensor | float], terms: dict[str, Tensor], accumulate: int) -> None:
    for name, value in terms.items():
        losses[name] = losses.get(name, 0.0) + value.detach() / accumulate


class Stage(NamedTuple):
    """What tells the stages apart: their step, and which validation score is better."""

    name: str
    step: Callable[[TrainState, Batch, StageConfig, tuple[float, float], torch.Generator], dict[str, Tensor | float]]
    goal: Callable[[Scores], float]  # higher is better


STAGES = {
    "psnr": Stage("psnr", psnr_step, lambda scores: scores.psnr_db),
    "gan": Stage("gan", gan_step, lambda scores: -scores.lpips),
}
