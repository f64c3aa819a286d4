"""What is kept and said of a stage while it runs: losses, validations, checkpoints, the best weights."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from .. import __version__
from ..config import Recipe, StageConfig
from ..dial import TRAINED_AT
from ..nets.checkpoint import save_net
from .before import STATE
from .state import TrainState
from .step import Stage
from .validate import Scores, Triple, open_validation, validate

log = logging.getLogger(__name__)

BEST = "best.safetensors"
LAST = "last.safetensors"


class StageRecord:
    """Keeps and tells what a stage comes to; one process has it, for all.

    Args:
        recipe: says how often to do what.
        stage: which one runs.
        config: its part of the recipe.
        run_dir: where everything goes.
        state: what is trained; its weights and its best score are read after each step.
    """

    def __init__(self, recipe: Recipe, stage: Stage, config: StageConfig, run_dir: Path, state: TrainState) -> None:
        self._recipe, self._stage, self._config, self._state = recipe, stage, config, state
        self._folder = run_dir / stage.name
        net: Any = state.g.net
        self._validation = open_validation(recipe.valid, net.num_coarseness) if recipe.valid else []
        self._board = SummaryWriter(run_dir / "tensorboard" / stage.name, purge_step=state.step + 1)
        self._told_step, self._told_s = state.step, time.monotonic()

    def close(self) -> None:
        """Ends the plots."""
        self._board.close()

    def make_up(self) -> None:
        """Validates what a run that was stopped meanwhile did not; call before the first step."""
        if self._is_to_be_judged() and self._state.judged_step < self._state.step:
            self._judge()
            self._save_state()

    def add(self, losses: dict[str, Tensor | float], lrs: tuple[float, float]) -> None:
        """Does what is due after a step.

        Args:
            losses: of the step, by name.
            lrs: learning rates of the generator and the discriminator.
        """
        if self._is_due(self._recipe.log_every):
            self._tell(losses, lrs[0])
        if self._is_due(self._recipe.checkpoint_every):  # before a validation, which may take hours
            self._save_weights(LAST, None)
            self._save_state()
        if self._is_to_be_judged():
            self._judge()
            if self._is_due(self._recipe.checkpoint_every):
                self._save_state()

    def _is_due(self, every: int) -> bool:
        return self._state.step % every == 0 or self._state.step == self._config.steps

    def _is_to_be_judged(self) -> bool:
        return self._recipe.valid is not None and self._is_due(self._recipe.valid.every)

    def _save_state(self) -> None:
        self._state.save(self._folder / STATE)

    def _save_weights(self, name: str, scores: Scores | None) -> None:
        """Writes the averaged generator with a header that says how it came to be."""
        metadata = {
            **self._recipe.metadata,
            "recipe": self._recipe.name,
            "recipe_sha256": self._recipe.sha256,
            "stage": self._stage.name,
            "step": str(self._state.step),
            "subjectiveqe": __version__,
        }
        if self._config.faithful_loss is None:
            metadata[TRAINED_AT] = str(self._config.strength)
        if scores is not None:
            metadata |= {"valid_psnr_db": f"{scores.psnr_db:.3f}", "valid_lpips": f"{scores.lpips:.4f}"}
        save_net(self._folder / name, self._state.ema_g, metadata)

    def _judge(self) -> None:
        """Validates, and keeps the weights if they are the best so far."""
        state = self._state
        scores, shown = validate(state.ema_g, self._validation, self._config.strength, show=4)
        self._tell_of_validation(scores, shown)
        state.judged_step = state.step
        if state.best is None or self._stage.goal(scores) > state.best:
            state.best = self._stage.goal(scores)
            self._save_weights(BEST, scores)

    def _tell(self, losses: dict[str, Tensor | float], lr: float) -> None:
        """Prints and plots the losses, with the speed since the last time and the time that is left."""
        state, now_s = self._state, time.monotonic()
        step_s = (now_s - self._told_s) / max(1, state.step - self._told_step)
        self._told_step, self._told_s = state.step, now_s
        left_min = step_s * (self._config.steps - state.step) / 60
        learners = [state.g, state.d] if state.d else [state.g]
        skipped = sum(learner.num_skipped for learner in learners)
        values = {name: float(value) for name, value in losses.items()}
        scalars = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        log.info(
            "%s %d/%d %s lr %.2g skipped %d (%.3f s a step, %.0f min left)",
            *(self._stage.name, state.step, self._config.steps, scalars, lr, skipped, step_s, left_min),
        )
        for name, value in {**values, "lr": lr, "skipped": skipped, "seconds_per_step": step_s}.items():
            self._board.add_scalar(f"train/{name}", value, state.step)

    def _tell_of_validation(self, scores: Scores, shown: list[Triple]) -> None:
        step = self._state.step
        log.info("%s %d valid PSNR %.3f dB, LPIPS %.4f", self._stage.name, step, scores.psnr_db, scores.lpips)
        self._board.add_scalar("valid/psnr_db", scores.psnr_db, step)
        self._board.add_scalar("valid/lpips", scores.lpips, step)
        for number, triple in enumerate(shown):
            picture = np.concatenate(triple, axis=1)
            self._board.add_image(f"valid/{number} lq out gt", picture, step, dataformats="HWC")
