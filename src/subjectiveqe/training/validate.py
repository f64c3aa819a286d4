"""Scores of a network on held-out pairs, taken on 8-bit pictures as a user would save them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from .. import metrics
from ..codecs.coarseness import coarseness
from ..config import ValidConfig
from ..data.pairs import PairSet, centre
from ..data.store import open_pairs
from ..errors import ConfigError
from ..images import RGB
from .step import generate

Triple = tuple[RGB, RGB, RGB]
"""lq, out, gt."""


class Scores(NamedTuple):
    """Means over the validation pictures."""

    psnr_db: float
    lpips: float


class Known(NamedTuple):
    """A pair to validate on, in memory, with what is known of it."""

    lq: RGB
    gt: RGB
    coarseness: tuple[float, ...]


def choose_pairs(config: ValidConfig) -> list[tuple[PairSet, int]]:
    """The pairs that every validation of a run looks at, by set and number; ConfigError where one is too small."""
    sets = [open_pairs(path) for path in config.pairs]
    places = [(pairs, index) for pairs in sets for index in range(len(pairs))]
    if config.max_pictures is not None and config.max_pictures < len(places):
        spread = np.linspace(0, len(places) - 1, config.max_pictures).round().astype(int)
        places = [places[i] for i in spread]
    least = metrics.LPIPS_MIN_PX
    for pairs, index in places:
        info = pairs.infos[index]
        if min(info.height, info.width) < least:
            size = f"{info.width}x{info.height} px"
            raise ConfigError(f"valid.pairs: {info.name} has {size}, LPIPS needs {least}x{least}; leave it out")
    return places


def open_validation(config: ValidConfig, num_coarseness: int) -> list[Known]:
    """Reads the pairs that every validation of a run looks at."""
    known = []
    for pairs, index in choose_pairs(config):
        info = pairs.infos[index]
        told = coarseness(info.codec, info.level, num_coarseness, info.chroma)
        known.append(Known(*centre(pairs, index, config.crop_px), told))
    return known


_MOST_DB = 60.0
"""What a picture may count at most, or a black one, which is infinitely right, would be all of the mean."""


@torch.no_grad()
def validate(net_g: nn.Module, pairs: Sequence[Known], strength: float, show: int) -> tuple[Scores, list[Triple]]:
    """Enhances the pairs, told their coarseness as in training, and compares with the originals.

    Returns:
        The mean scores, and the first `show` pictures.
    """
    device = next(net_g.parameters()).device
    psnrs_db, lpipss = [], []
    shown: list[Triple] = []
    for lq, gt, known in pairs:
        x = torch.from_numpy(lq).to(device).permute(2, 0, 1)[None].float() / 255
        y = generate(net_g, x, strength, x.new_tensor([known]))[0].permute(1, 2, 0)
        out: RGB = (y * 255).round().clamp(0, 255).byte().cpu().numpy()
        psnrs_db.append(min(metrics.psnr(out, gt), _MOST_DB))
        lpipss.append(metrics.lpips(out, gt))
        if len(shown) < show:
            shown.append((lq, out, gt))
    return Scores(float(np.mean(psnrs_db)), float(np.mean(lpipss))), shown
