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

from ..errors import ModelError, first_line
from ..files import atomic_path


@dataclass
class Learner:
    """A network with its optimizer, and what the guard against bad updates has seen (`step.update`).

    Attributes:
        net: the network.
        optim: its optimizer.
        norm_mean: running mean of the norm of gradients.
        num_updates: steps that were taken.
        num_skipped: those that were not.
    """

    net: nn.Module
    optim: Optimizer
    norm_mean: float = 0.0
    num_updates: int = 0
    num_skipped: int = 0

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
        self.judged_step = content.get("judged_step", self.step)  # older ones were saved after what validation was due
