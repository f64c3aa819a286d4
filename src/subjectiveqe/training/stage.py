"""The two stages of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import StageConfig
from .batches import Batch
from .state import TrainState
from .step import gan_step, psnr_step
from .validate import Scores

Step = Callable[[TrainState, Batch, StageConfig, tuple[float, float], torch.Generator], dict[str, Tensor | float]]


class Stage(NamedTuple):
    """What tells the stages apart: their step, and which validation score is better."""

    name: str
    step: Step
    goal: Callable[[Scores], float]  # higher is better


STAGES = {
    "psnr": Stage("psnr", psnr_step, lambda scores: scores.psnr_db),
    "gan": Stage("gan", gan_step, lambda scores: -scores.lpips),
}
