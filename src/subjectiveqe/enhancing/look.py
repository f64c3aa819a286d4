"""What is found out about a picture as a whole before its first tile: how coarse it is, and where its blocks begin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..codecs.coarseness import FAMILIES
from ..color import luma
from .network import Floats

BLOCK_PX = 8

LOOK_PX, _LOOKS = 192, 5
"""Side of the patches that are looked at, and how many there are along a side at most."""

_LEAST_GAP = 0.2
"""By how many levels steps at one phase have to exceed those at all others. Of 20 photos cut at odd places they do at
JPEG QF 10 and 40, always rightly, and nearly always at QF 70; of HEVC, WebP and originals hardly any do."""

_MOST_STEP = 8
"""Larger steps, in levels, are edges of things."""

_FEWEST_BLOCKS, _LEAST_CERTAINTY = 8, 4
"""Along an axis, and by how many of its standard errors the best phase has to stand out; with less, chance decides."""


class Look(NamedTuple):
    """What a network is told of a picture.

    Attributes:
        coarseness: (K,), see `codecs.coarseness`; None where the network does not ask.
        grid: row and column, 0..7, where the codec's blocks begin. Networks see pictures as if that were 0, as it is in
            all files but those cut out of others.
    """

    coarseness: Floats | None
    grid: tuple[int, int] = (0, 0)


def mean_look(looks: Sequence[Look]) -> Look:
    """One look for pictures that belong together: their mean coarseness, and where the blocks of most begin."""
    known = [look.coarseness for look in looks if look.coarseness is not None]
    mean: Floats | None = np.mean(known, axis=0, dtype=np.float32) if known else None
    [(grid, _)] = Counter(look.grid for look in looks).most_common(1)
    return Look(mean, grid)


_DOUBT = 0.15
"""By how much an estimate may exceed what a file says, and what other codecs may seem to have left, for the file to be
believed. Ten photos coded once as AVIF at qualities 15 to 90 all were, those coded as JPEG at 20 before were not."""

_TAKEN_FOR = {"hevc": ("avif",), "hevc-420": ("avif", "hevc")}
"""What other families a codec's pictures are taken for: libheif's HEVC for AVIF."""

_MORE_DOUBT = 0.25
"""By how much the estimate of such another family may exceed what the file says."""


def with_file(look: Look, told: Sequence[float] | None) -> Look:
    """A look that goes by what the file says of its quantiser, unless the picture shows more than that.

    A picture that was compressed before, more coarsely or by another codec, is as coarse as it looks, whatever its file
    says. One that looks finer than its file says has little for the quantiser to spoil, or for an estimate to go by.

    Args:
        look: at the picture.
        told: as `codecs.coarseness` gives it, for one codec; None where the file says nothing.
    """
    if look.coarseness is None or told is None:
        return look
    said: Floats = np.array(told[: len(look.coarseness)], np.float32)
    most = said + _DOUBT
    for other in _TAKEN_FOR.get(FAMILIES[int(said.argmax())], ()):
        if (place := FAMILIES.index(other)) < len(most):
            most[place] = said.max() + _MORE_DOUBT
    return look if (look.coarseness > most).any() else look._replace(coarseness=said)


def look_places(side: int) -> list[int]:
    """Where patches begin along a side: evenly spread on the codec's 16-px grid, apart where there is room."""
    count = min(max(side // LOOK_PX, 1), _LOOKS)
    return [int(place) // 16 * 16 for place in np.linspace(0, max(side - LOOK_PX, 0), count)]


def find_grid(patches: NDArray[np.float32]) -> tuple[int, int]:
    """Finds where 8-px blocks begin, by steps between pixels that stand out from the steps on either side of them.

    Args:
        patches: RGB, (N, 3, H, W), in [0, 1], all cut at multiples of 8 px.
    Returns:
        Row and column, 0..7; 0 along an axis where no phase stands out.
    """
    y = np.stack([luma(np.rint(patch.transpose(1, 2, 0) * 255).astype(np.uint8)) for patch in patches])
    return _find_phase(y), _find_phase(y.swapaxes(1, 2))


def whole_blocks(patches: Floats, grid: tuple[int, int]) -> Floats:
    """What of patches (N, C, H, W) consists of whole blocks, all of an axis that holds none; a view."""

    def whole(first: int, side: int) -> slice:
        count = (side - first) // BLOCK_PX
        return slice(first, first + count * BLOCK_PX) if count > 0 else slice(side)

    rows, cols = map(whole, grid, patches.shape[2:])
    return patches[:, :, rows, cols]


def _find_phase(y: NDArray[np.floating]) -> int:
    """Of rows of luma, (N, H, W)."""
    if y.shape[1] < _FEWEST_BLOCKS * BLOCK_PX:
        return 0
    steps = np.abs(np.diff(y, axis=1))
    excess = steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2
    of_rows = np.clip(excess, -_MOST_STEP, _MOST_STEP).mean(axis=(0, 2))  # the k-th is between rows k + 1 and k + 2
    by_phase = [of_rows[phase::BLOCK_PX] for phase in range(BLOCK_PX)]
    means = np.array([values.mean() for values in by_phase])
    best = by_phase[int(means.argmax())]
    second, first = np.sort(means)[-2:]
    least = max(_LEAST_GAP, _LEAST_CERTAINTY * float(best.std()) / np.sqrt(len(best)))
    return (int(means.argmax()) + 2) % BLOCK_PX if first - second > least else 0
