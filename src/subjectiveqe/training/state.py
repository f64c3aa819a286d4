"""What a stage of training carries from step to step, and how it survives a crash."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import StageConfig
from ..distributed import average_gradients
from ..errors import ModelError, SubjectiveQEError, first_line
from ..files import atomic_path


class DivergedError(SubjectiveQEError):
    """Training produced a loss or a gradient that is not a number."""


@dataclass
class Learner:
    """A network with its optimizer and its guard against bad updates."""

    net: nn.Module
    optim: Optimizer
    norm_mean: float = 0.0
    num_updates: int = 0
    num_skipped: int = 0

    GUARD_AFTER = 100  # updates before the running mean means anything
    MEAN_DECAY = 0.98

    def update(self, lr: float, stage: StageConfig, step: int) -> float:
        """Uses the gradients in the network for one update, unless their norm spikes; clears them.

        Returns:
            The gradient norm before clipping.
        Raises:
            DivergedError: the norm is not finite; `step` is counted from 0 and told from 1, as in the log.
        """
        params = [param for param in self.net.parameters() if param.grad is not None]
        average_gradients(params)
        # A synchronisation with the device, one for each network; the decision below needs the value.
        norm = float(nn.utils.clip_grad_norm_(params, stage.clip_norm or float("inf"), foreach=True))
        if norm != norm or norm == float("inf"):
            raise DivergedError(f"step {step + 1}: the gradient of {type(self.net).__name__} is {norm}")
        spiked = (
            stage.spike_factor is not None
            and self.num_updates >= self.GUARD_AFTER
            and norm > stage.spike_factor * self.norm_mean
        )
        if spiked:
            self.num_skipped += 1
        else:
            for group in self.optim.param_groups:
                group["lr"] = lr
            self.optim.step()
            self.num_updates += 1
        # A spike moves the mean too, by little: were it left out, a lasting rise would block every update for good.
        seen = min(norm, (stage.spike_factor or float("inf")) * self.norm_mean) if self.num_updates > 1 else norm
        self.norm_mean = self.MEAN_DECAY * self.norm_mean + (1 - self.MEAN_DECAY) * seen if self.norm_mean else seen
        self.optim.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Everything but the network's shape."""
        return {
            "net": self.net.state_dict(),
            "optim": self.optim.state_dict(),
            "guard": [self.norm_mean, self.num_updates, self.num_skipped],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave."""
        self.net.load_state_dict(state["net"])
        self.optim.load_state_dict(state["optim"])
        self.norm_mean, self.num_updates, self.num_skipped = state["guard"]


@dataclass
class TrainState:
    """One stage: the generator, its running average, and in the gan stage the discriminator and the perceptual loss."""

    g: Learner
    d: Learner | None = None
    perceptual: nn.Module | None = None
    step: int = 0
    best: float | None = None
    judged_step: int = 0  # of the last validation
    ema_g: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.ema_g = copy.deepcopy(self.g.net).requires_grad_(False).eval()

    @torch.no_grad()
    def follow(self, decay: float | None) -> None:
        """Moves the averaged generator towards the trained one; fast in the first steps, when the average is young."""
        decay = 0.0 if decay is None else min(decay, (1 + self.step) / (10 + self.step))
        averages: list[Tensor] = list(self.ema_g.parameters())
        torch._foreach_lerp_(averages, list(self.g.net.parameters()), 1 - decay)
        for average, value in zip(self.ema_g.buffers(), self.g.net.buffers(), strict=True):
            average.copy_(value)  # averages of their own, of batch norms

    def save(self, path: Path) -> None:
        """Writes everything a resumed run needs to go on bit by bit as if it had not stopped."""
        content = {
            "step": self.step,
            "best": self.best,
            "judged_step": self.judged_step,
            "g": self.g.state_dict(),
            "ema_g": self.ema_g.state_dict(),
            "d": self.d.state_dict() if self.d else None,
        }
        file = io.BytesIO()  # written by Python, which says in one line that a disk is full
        torch.save(content, file)
        with atomic_path(path) as aside:
            aside.write_bytes(file.getbuffer())

    def load(self, path: Path) -> None:
        """Puts back what `save` wrote.

        Raises:
            ModelError: the file is damaged or belongs to other networks.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            self.g.load_state_dict(content["g"])
            self.ema_g.load_state_dict(content["ema_g"])
            if self.d is not None:
                self.d.load_state_dict(content["d"])
        except Exception as error:  # torch raises all kinds for damaged files
            reason = first_line(error)
            raise ModelError(f"{path}: no state of this run ({reason}); delete it to start the stage again") from None
        self.step, self.best = content["step"], content["best"]
        self.judged_step = content.get("judged_step", self.step)  # states of before know of no step without a verdict
