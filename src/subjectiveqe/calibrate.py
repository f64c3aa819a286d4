"""Fitting the end of an estimator to whole pictures; what it sees of them stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .codecs.coarseness import coarseness
from .data.again import Coded, saved_again
from .data.pairs import PairSet
from .data.store import open_pairs
from .enhancing.look import LOOK_PX, look_places
from .errors import ConfigError, ModelError
from .images import RGB
from .losses import estimate_loss
from .nets.checkpoint import load_net, save_net
from .nets.estimator import Estimator, pooled

_ANYWHERE = 0.25
"""Share of the pictures that are seen as if they had been cut at an odd place."""

_LEAST_PX = LOOK_PX + 16
"""Of a picture's sides; one patch is left of it wherever it is cut."""

_STEPS, _BATCH, _LR = 4000, 64, 2e-3
_DECAY, _DROPOUT = 1e-2, 0.1
_DECAY_BENEATH, _DROPOUT_BENEATH = 0.1, 0.3
"""Against learning pictures by heart; there is little to go by beneath a JPEG."""

_TOO_MUCH, _MIXED_UP = 3, 5
"""How much it counts to say too much of what lies beneath, where to say too little counts 1, or of another family."""


class Seen(NamedTuple):
    """What the estimator sees of pictures.

    Attributes:
        features: mean and mean square over each patch, (N, M, 2, C); 0 where a picture has fewer patches.
        there: which patches a picture has, (N, M), 0 or 1.
        truth: coarseness, (N, K).
        kinds: store and level of each, or codec and level of what was saved again.
    """

    features: Tensor
    there: Tensor
    truth: Tensor
    kinds: list[tuple[str, int]]


def calibrate_estimator(
    checkpoints: Sequence[Path],
    pairs: Sequence[Path],
    out: Path,
    valid: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
    beneath: bool = False,
) -> dict[tuple[str, int], tuple[float, float]]:
    """Writes checkpoints whose estimator's last layers are fitted anew, to all patches of a picture together.

    Trained on one patch at a time, an estimator never learns what many patches that are each in doubt say together.
    The convolutions are taken as they are, so every picture is looked at once, and the fit takes a minute.

    Or the layers that say what lies beneath a fine JPEG: to the same pictures and their originals, saved again.

    Args:
        checkpoints: networks that share an estimator, as the ends of a dial do.
        pairs: training stores or paired folders; one that is given twice counts twice.
        out: folder for the checkpoints, under their names, in float16.
        valid: stores to measure by.
        progress: called with the numbers of pictures that have been looked at, and of all.
        beneath: fit what is said of pictures that were saved again.
    Returns:
        For each of `valid` and each of its levels the mean absolute error of what is said, before and after; beneath
        originals, ("originals", 0), it is the largest of what is said.
    Raises:
        ConfigError: fewer than two pictures whose coarseness is known, or checkpoints that would be written over.
        ModelError: a checkpoint that cannot be used, or whose estimator is another.
        StoreError: pairs that cannot be read.
    """
    for number, path in enumerate(checkpoints):
        if any(path.name == other.name for other in checkpoints[:number]):
            raise ConfigError(f"{out / path.name}: two of the checkpoints would become it; rename one")
        if (out / path.name).exists():
            raise ConfigError(f"{out / path.name}: is there already; choose another --out")
    loaded = [load_net(path) for path in checkpoints]
    nets: list[Any] = [net for net, _ in loaded]
    estimator = _shared_estimator(checkpoints, nets)
    stores = {path: open_pairs(path) for path in (*pairs, *valid)}
    total, done = sum(len(stores[path]) for path in (*pairs, *valid)), 0
    least_px = _LEAST_PX if beneath else LOOK_PX

    def look(paths: Sequence[Path], odd: float) -> Seen:
        nonlocal done
        rng, found = np.random.default_rng(0), []
        for path in paths:
            for index in range(len(stores[path])):
                picture: Coded | None
                if beneath:
                    picture = saved_again(stores[path], index, estimator.num_coarseness, rng)
                else:
                    cut = rng.integers(16, size=2) * (rng.random() < odd)
                    picture = _picture(path.name, stores[path], index, estimator.num_coarseness, cut)
                if picture is not None and min(picture.rgb.shape[:2]) >= least_px:
                    found.append((_look(estimator, picture.rgb), torch.tensor(picture.truth), picture.kind))
                done += 1
                if progress is not None:
                    progress(done, total)
        if not found:
            names = ", ".join(map(str, paths))
            raise ConfigError(f"{names}: no picture of at least {_LEAST_PX}x{_LEAST_PX} px that was compressed once")
        return _packed(found)

    seen = look(pairs, _ANYWHERE)
    if len(seen.truth) < 2:
        raise ConfigError(f"{', '.join(map(str, pairs))}: one picture is not enough to fit to; give hundreds")
    judged = look(valid, 0) if valid else None
    head = estimator.beneath if beneath else estimator.think
    errors = [_errors(head, judged)]
    if beneath:
        _fit(head, seen, _cautious, _DECAY_BENEATH, _DROPOUT_BENEATH)
    else:
        _fit(head, seen, _with_scale, _DECAY, _DROPOUT)
    errors.append(_errors(head, judged))
    out.mkdir(parents=True, exist_ok=True)
    for path, net, (_, header) in zip(checkpoints, nets, loaded, strict=True):
        net.estimator.load_state_dict(estimator.state_dict())
        fitted = {"beneath" if beneath else "estimator": f"fitted to {len(seen.truth)} pictures"}
        save_net(out / path.name, net, {**header, **fitted}, half=True)
    return {kind: (errors[0][kind], errors[1][kind]) for kind in errors[0]}


def _shared_estimator(paths: Sequence[Path], nets: Sequence[Any]) -> Estimator:
    for path, net in zip(paths, nets, strict=True):
        if not net.num_coarseness:
            raise ModelError(f"{path}: its network has no estimator; train one with net_g.hparams.num_coarseness")
        states = (net.estimator.look.state_dict(), nets[0].estimator.look.state_dict())
        if net.num_coarseness != nets[0].num_coarseness:
            raise ModelError(f"{path}: estimates {net.num_coarseness} families, {paths[0]} {nets[0].num_coarseness}")
        if any(not torch.equal(value, states[1][key]) for key, value in states[0].items()):
            raise ModelError(f"{path}: holds another estimator than {paths[0]}")
    estimator: Estimator = nets[0].estimator
    return estimator


def _picture(name: str, store: PairSet, index: int, num: int, cut: np.ndarray) -> Coded | None:
    """A compressed picture, cut; None where nobody knows how it was compressed, or it is too small to be cut."""
    info = store.infos[index]
    truth = coarseness(info.codec, info.level, num, info.chroma)
    if math.isnan(truth[0]) or min(info.height, info.width) < _LEAST_PX:
        return None
    top, left = map(int, cut)
    lq, _ = store.crop(index, top, left, info.height - top, info.width - left)
    return Coded(lq, truth, (name, info.level))


def _look(estimator: Estimator, lq: RGB) -> Tensor:
    """Features of a picture; patches lie where `Enhancer.look` takes them."""
    height, width = lq.shape[:2]
    patches = [
        lq[row : row + LOOK_PX, col : col + LOOK_PX] for row in look_places(height) for col in look_places(width)
    ]
    pixels = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        x = estimator.features(pixels)
        return torch.stack((x.mean((2, 3)), x.square().mean((2, 3))), dim=1)


def _packed(found: Sequence[tuple[Tensor, Tensor, tuple[str, int]]]) -> Seen:
    features, truth, kinds = zip(*found, strict=True)
    packed = nn.utils.rnn.pad_sequence(list(features), batch_first=True)
    there = nn.utils.rnn.pad_sequence([torch.ones(len(patches)) for patches in features], batch_first=True)
    return Seen(packed, there, torch.stack(truth), list(kinds))


def _together(features: Tensor, there: Tensor) -> Tensor:
    """The features of whole pictures, from those of the patches that count, (N, 2C)."""
    share = (there / there.sum(1, keepdim=True))[..., None]
    return pooled((features[:, :, 0] * share).sum(1), (features[:, :, 1] * share).sum(1))


def _with_scale(said: Tensor, truth: Tensor) -> Tensor:
    """Loss of values and their scales, (N, 2K)."""
    return estimate_loss(said.view(len(said), 2, -1), truth)


def _cautious(said: Tensor, truth: Tensor) -> Tensor:
    """Loss of what lies beneath, (N, K): what is said in all is too much for one picture of four, and of its family.

    Families that leave much the same share what is said, so that none is said to be likely where all together are.

    Source: Koenker and Bassett, "Regression quantiles", Econometrica 1978.
    """
    total, known = said.sum(1), truth.sum(1)
    off = total - known
    of_family = total.detach()[:, None] * (truth > 0)
    mixed_up = (said - of_family) * (known > 0)[:, None]
    return torch.where(off > 0, _TOO_MUCH * off, -off).mean() + _MIXED_UP * mixed_up.square().mean()


def _fit(
    think: nn.Sequential, seen: Seen, loss_of: Callable[[Tensor, Tensor], Tensor], decay: float, dropout: float
) -> None:
    """Trains the layers anew, in place, with more or fewer of each picture's patches."""
    torch.manual_seed(0)
    whole = _together(seen.features, seen.there)
    middle, scale = whole.mean(0), whole.std(0) + 1e-3
    for layer in think:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    layers: list[nn.Module] = []
    for layer in think:
        layers += [layer] if isinstance(layer, nn.Linear) else [layer, nn.Dropout(dropout)]
    net = nn.Sequential(*layers).requires_grad_(True)
    optimizer = torch.optim.AdamW(net.parameters(), _LR, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, _STEPS)
    for _ in range(_STEPS):
        chosen = torch.randint(len(seen.truth), (_BATCH,))
        there = seen.there[chosen]
        kept = there * (torch.rand(there.shape) < 0.1 + 0.9 * torch.rand(_BATCH, 1))
        kept = torch.where(kept.any(1, keepdim=True), kept, there)
        x = (_together(seen.features[chosen], kept) - middle) / scale
        loss: Any = loss_of(net(x), seen.truth[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    first: Any = think[0]
    with torch.no_grad():  # features as they are from here on
        first.weight /= scale
        first.bias -= first.weight @ middle


def _errors(think: nn.Sequential, seen: Seen | None) -> dict[tuple[str, int], float]:
    """Mean absolute error of each kind, of the codec's own family, or of the largest where there is none."""
    if seen is None:
        return {}
    num = seen.truth.shape[1]
    with torch.inference_mode():
        value = think(_together(seen.features, seen.there))[:, :num]
    family = torch.where(seen.truth.any(1), seen.truth.argmax(1), value.argmax(1))[:, None]
    off = (value - seen.truth).gather(1, family).abs().flatten()
    kinds = sorted(set(seen.kinds))
    return {kind: off[[k for k, other in enumerate(seen.kinds) if other == kind]].mean().item() for kind in kinds}
