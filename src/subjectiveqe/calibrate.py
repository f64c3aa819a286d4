"""Fitting the end of an estimator to whole pictures; what it sees of them stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .codecs.coarseness import FAMILIES, coarseness
from .data.again import SavedAgain, saved_again
from .data.pairs import PairSet
from .data.store import open_pairs
from .enhancing.look import LEAST_BENEATH, LOOK_PX, look_places
from .errors import ConfigError, ModelError
from .files import held
from .images import RGB
from .losses import estimate_loss
from .machine import cpu_count
from .nets.checkpoint import load_net, save_net
from .nets.estimator import Estimator, pooled

_ANYWHERE = 0.25
"""Share of the pictures that are seen as if they had been cut at an odd place."""

_LEAST_PX = LOOK_PX + 16
"""Of a picture's sides; one patch is left of it wherever it is cut."""

_BATCH, _LR = 64, 2e-3

_JPEG = FAMILIES.index("jpeg")

_OFF_BENEATH = 8
"""How much squared errors of how coarse that is count, where not to know of what family counts as nats."""


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
        ConfigError: fewer than two pictures whose coarseness is known, checkpoints that would be written over, two of
            `valid` of one name, an output that is a file, or another process that writes there.
        ModelError: a checkpoint that cannot be used, or whose estimator is another.
        StoreError: pairs that cannot be read.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, expected a folder or a new name; choose another --out")
    for number, path in enumerate(checkpoints):
        if any(path.name == other.name for other in checkpoints[:number]):
            raise ConfigError(f"{out / path.name}: two of the checkpoints would become it; rename one")
        if (out / path.name).exists():
            raise ConfigError(f"{out / path.name}: is there already; choose another --out")
    for number, path in enumerate(valid):
        if any(path.name == other.name and path != other for other in valid[:number]):
            raise ConfigError(f'{path}: another of --valid is called "{path.name}" too; rename one')
    loaded = [load_net(path) for path in checkpoints]
    nets: list[Any] = [net for net, _ in loaded]
    estimator = _shared_estimator(checkpoints, nets)
    if beneath and estimator.num_coarseness <= _JPEG:
        raise ModelError(f"{checkpoints[0]}: is not told of JPEG, beneath which there would be something")
    stores = {path: open_pairs(path) for path in (*pairs, *valid)}
    total, done = sum(len(stores[path]) for path in (*pairs, *valid)), 0

    def look(paths: Sequence[Path], odd: float) -> Seen:
        nonlocal done
        jobs = [(number, path, index) for number, path in enumerate(paths) for index in range(len(stores[path]))]

        def see(job: tuple[int, Path, int]) -> _Found | None:
            number, path, index = job
            rng = np.random.default_rng((number, index))
            if beneath:
                return _see_beneath(estimator, saved_again(stores[path], index, estimator.num_coarseness, rng))
            cut = rng.integers(16, size=2) * (rng.random() < odd)
            picture = _picture(path.name, stores[path], index, estimator.num_coarseness, cut)
            if picture is None:
                return None
            return Estimator.last(_look(estimator, picture.rgb)), torch.tensor(picture.truth), picture.kind

        found, pool = [], ThreadPoolExecutor(cpu_count())  # codecs work side by side
        try:
            for one in pool.map(see, jobs):
                found += [] if one is None else [one]
                done += 1
                if progress is not None:
                    progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)
        if not found:
            names = ", ".join(map(str, paths))
            raise ConfigError(f"{names}: no picture of at least {_LEAST_PX}x{_LEAST_PX} px that was compressed once")
        return _packed(found)

    with held(out, "another process writes here; wait for it, or give another --out"):
        judged = look(valid, 0) if valid else None  # first, since these are few: they may be too small
        seen = look(pairs, _ANYWHERE)
        if len(seen.truth) < 2:
            number = sum(len(stores[path]) for path in pairs)
            raise ConfigError(
                f"{', '.join(map(str, pairs))}: one picture of {number} can be used, which is not enough to fit to; "
                f"give hundreds, of at least {_LEAST_PX}x{_LEAST_PX} px"
            )
        question = _BENEATH if beneath else _SURFACE
        errors = [_errors(estimator, question, judged)]
        _fit(question.layers(estimator), seen, question)
        errors.append(_errors(estimator, question, judged))
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


def _picture(name: str, store: PairSet, index: int, num: int, cut: np.ndarray) -> SavedAgain | None:
    """A compressed picture, cut; None where nobody knows how it was compressed, or it is too small to be cut."""
    info = store.infos[index]
    truth = coarseness(info.codec, info.level, num, info.chroma)
    if math.isnan(truth[0]) or min(info.height, info.width) < _LEAST_PX:
        return None
    top, left = map(int, cut)
    lq, _ = store.crop(index, top, left, info.height - top, info.width - left)
    return SavedAgain(lq, truth, (name, info.level))


_Found = tuple[Tensor, Tensor, tuple[str, int]]
"""What is seen of a picture, (M, 2, C), its truth, (K,), and its kind."""


def _see_beneath(estimator: Estimator, picture: SavedAgain | None) -> _Found | None:
    """With nothing beneath where that is finer than the JPEG; None for a picture that is too small."""
    if picture is None or min(picture.rgb.shape[:2]) < _LEAST_PX:
        return None
    seen, truth = _look(estimator, picture.rgb), torch.tensor(picture.truth)
    with torch.inference_mode():
        surface = estimator.think(pooled(Estimator.last(seen).mean(0, keepdim=True)))[0]
    is_coarser = truth.sum() > max(LEAST_BENEATH, surface[_JPEG].item())
    return seen, truth * is_coarser, picture.kind


def _look(estimator: Estimator, lq: RGB) -> Tensor:
    """What is seen of a picture; patches lie where `Enhancer.look` takes them."""
    height, width = lq.shape[:2]
    patches = [
        lq[row : row + LOOK_PX, col : col + LOOK_PX] for row in look_places(height) for col in look_places(width)
    ]
    pixels = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return estimator.seen(pixels)


def _packed(found: Sequence[_Found]) -> Seen:
    features, truth, kinds = zip(*found, strict=True)
    packed = nn.utils.rnn.pad_sequence(list(features), batch_first=True)
    there = nn.utils.rnn.pad_sequence([torch.ones(len(patches)) for patches in features], batch_first=True)
    return Seen(packed, there, torch.stack(truth), list(kinds))


def _together(features: Tensor, there: Tensor) -> Tensor:
    """The features of whole pictures, from those of the patches that count, (N, 2C)."""
    share = (there / there.sum(1, keepdim=True))[..., None, None]
    return pooled((features * share).sum(1))


def _told(said: Tensor) -> Tensor:
    """Coarseness, (N, 2K) -> (N, K)."""
    return said[:, : said.shape[1] // 2]


def _loss(said: Tensor, truth: Tensor) -> Tensor:
    """Loss of values and their scales, (N, 2K)."""
    return estimate_loss(said.view(len(said), 2, -1), truth)


def _told_beneath(said: Tensor) -> Tensor:
    """Coarseness of what lies beneath, as it may be expected, (N, 2K) -> (N, K)."""
    value, log_odds = said.view(len(said), 2, -1).unbind(1)
    return value * _with_nothing(log_odds).softmax(1)[:, 1:]


def _loss_beneath(said: Tensor, truth: Tensor) -> Tensor:
    """Loss of values of what lies beneath, and of the odds of families, (N, 2K)."""
    value, log_odds = said.view(len(said), 2, -1).unbind(1)
    family = torch.where(truth.any(1), truth.argmax(1) + 1, 0)
    off = (value - truth) * (truth > 0)
    return F.cross_entropy(_with_nothing(log_odds), family) + _OFF_BENEATH * off.square().sum(1).mean()


def _with_nothing(log_odds: Tensor) -> Tensor:
    """Odds of families are against those of nothing."""
    return torch.cat((torch.zeros_like(log_odds[:, :1]), log_odds), dim=1)


class _Question(NamedTuple):
    """What is asked of an estimator, and how the layers that answer are fitted.

    Attributes:
        layers: of the estimator, which answer.
        told: coarseness by their answer, (N, 2K) -> (N, K).
        loss: of their answer and the truth, (N, K).
        steps: as many as it takes.
        decay: of weights, which keeps them from learning pictures by heart, as the next does.
        dropout: share of features that are left out.
    """

    layers: Callable[[Estimator], nn.Sequential]
    told: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    steps: int
    decay: float
    dropout: float


_SURFACE = _Question(lambda estimator: estimator.think, _told, _loss, 4000, 0.01, 0.1)
_BENEATH = _Question(lambda estimator: estimator.beneath, _told_beneath, _loss_beneath, 8000, 0.1, 0.3)
"""There is little to go by beneath a JPEG."""


def _fit(think: nn.Sequential, seen: Seen, how: _Question) -> None:
    """Trains the layers anew, in place, with more or fewer of each picture's patches."""
    torch.manual_seed(0)
    whole = _together(seen.features, seen.there)
    middle, scale = whole.mean(0), whole.std(0) + 1e-3
    for layer in think:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    layers: list[nn.Module] = []
    for layer in think:
        layers += [layer] if isinstance(layer, nn.Linear) else [layer, nn.Dropout(how.dropout)]
    net = nn.Sequential(*layers).requires_grad_(True)
    optimizer = torch.optim.AdamW(net.parameters(), _LR, weight_decay=how.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, how.steps)
    for _ in range(how.steps):
        chosen = torch.randint(len(seen.truth), (_BATCH,))
        there = seen.there[chosen]
        kept = there * (torch.rand(there.shape) < 0.1 + 0.9 * torch.rand(_BATCH, 1))
        kept = torch.where(kept.any(1, keepdim=True), kept, there)
        x = (_together(seen.features[chosen], kept) - middle) / scale
        loss: Any = how.loss(net(x), seen.truth[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    first: Any = think[0]
    with torch.no_grad():  # features as they are from here on
        first.weight /= scale
        first.bias -= first.weight @ middle


def _errors(estimator: Estimator, asked: _Question, seen: Seen | None) -> dict[tuple[str, int], float]:
    """Mean absolute error of each kind, of the codec's own family, or of the largest where there is none."""
    if seen is None:
        return {}
    with torch.inference_mode():
        value = asked.told(asked.layers(estimator)(_together(seen.features, seen.there)))
    family = torch.where(seen.truth.any(1), seen.truth.argmax(1), value.argmax(1))[:, None]
    off = (value - seen.truth).gather(1, family).abs().flatten()
    kinds = sorted(set(seen.kinds))
    return {kind: off[[k for k, other in enumerate(seen.kinds) if other == kind]].mean().item() for kind in kinds}
