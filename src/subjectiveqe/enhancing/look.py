"""What is found out about a picture as a whole before its first tile: what compressed it, and how coarsely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..codecs.coarseness import FAMILIES
from .earlier_jpeg import EarlierJpeg, Traces, find_earlier_jpeg, find_traces
from .network import Floats
from .tells import find_grid, is_mostly_flat, spare_enlarged, whole_blocks

LOOK_PX, _LOOKS = 192, 5
"""Side of the patches that are looked at, and how many there are along a side at most."""


class Look(NamedTuple):
    """What a network is told of a picture.

    Attributes:
        coarseness: (K,), see `codecs.coarseness`; None where the network does not ask.
        grid: row and column, 0..7, where the codec's blocks begin. Networks see pictures as if that were 0, as it is in
            all files but those cut out of others.
        is_gray: whether the picture has no colour anywhere, and is to get none.
        surface: coarseness of the fine JPEG where `coarseness` is that of what lies beneath, else None.
        earlier: the JPEG that it was, where that is what `coarseness` tells of.
        traces: of an earlier JPEG in these blocks.
    """

    coarseness: Floats | None
    grid: tuple[int, int] = (0, 0)
    is_gray: bool = False
    surface: Floats | None = None
    earlier: EarlierJpeg | None = None
    traces: Traces | None = None


def mean_look(looks: Sequence[Look]) -> Look:
    """One look for pictures that belong together: their mean coarseness, and where the blocks of most begin.

    Frames of few colours, which are taken for drawings, tell nothing among others: a film begins with black ones. They
    are gray if all are.
    """
    surfaces = [look.coarseness if look.surface is None else look.surface for look in looks]
    surface = _mean(surfaces) if any(look.surface is not None for look in looks) else None
    [(grid, _)] = Counter(look.grid for look in looks).most_common(1)
    return Look(_mean([look.coarseness for look in looks]), grid, all(look.is_gray for look in looks), surface)


def _mean(coarseness: Sequence[Floats | None]) -> Floats | None:
    known = [values for values in coarseness if values is not None]
    telling = [values for values in known if values.any()] or known
    mean: Floats | None = np.mean(telling, axis=0, dtype=np.float32) if telling else None
    return mean


def look_places(side: int) -> list[int]:
    """Where patches begin along a side: evenly spread on the codec's 16-px grid, apart where there is room."""
    count = min(max(side // LOOK_PX, 1), _LOOKS)
    return [int(place) // 16 * 16 for place in np.linspace(0, max(side - LOOK_PX, 0), count)]


_FINE_JPEG = (0.25, 0.6)
"""How coarse a JPEG is taken to be beneath which there may be something: QF 97 or so to 74."""

_LEAST_PATCHES = 4
"""To look beneath a JPEG; one patch tells too little of it."""

LEAST_BENEATH, _LEAST_CHANCE = 0.3, 0.7
"""How coarse it has to be at least, all families together, and no finer than the JPEG; and how likely."""


def look_at(patches: Floats, estimate: Callable[[Floats], Floats], is_gray: bool) -> Look:
    """Decides what compressed a picture, by the first of these that has an answer.

    1. An earlier JPEG whose steps still show, where it is coarser than the JPEG that the picture looks like.
    2. What lies beneath the fine JPEG that the picture looks like.
    3. What it looks like; enlarged pictures, and JPEGs without traces of it, are taken for less.

    Args:
        patches: RGB, (N, 3, H, W), in [0, 1], all cut at multiples of 16 px, of no drawing.
        estimate: gives for patches cut where blocks begin what `Estimator` says of each, (N, 2 or 4, K).
        is_gray: whether the picture is.
    """
    grid = find_grid(patches)
    blocks = np.ascontiguousarray(whole_blocks(patches, grid)) if any(grid) else patches
    value, log_scale, *beneath = estimate(blocks).transpose(1, 0, 2)
    certainty = np.exp(-log_scale)
    seen: Floats = (value * certainty).sum(0) / certainty.sum(0)
    earlier = find_earlier_jpeg(patches)
    if earlier is not None and earlier.is_more_than(seen):
        return Look(earlier.told(len(seen)), earlier.grid, is_gray, earlier=earlier)
    traces = find_traces(blocks)
    if beneath and len(patches) >= _LEAST_PATCHES:
        deepest = look_beneath(seen, *(values.mean(0) for values in beneath))
        if deepest is not None and not is_mostly_flat(blocks):
            return Look(spare_enlarged(deepest, patches), grid, is_gray, surface=seen, traces=traces)
    found = spare_enlarged(seen, patches)
    if found.argmax() == FAMILIES.index("jpeg"):
        found[found.argmax()] = traces.most(float(found.max()))
    return Look(found, grid, is_gray, traces=traces)


def look_beneath(coarseness: Floats, beneath: Floats, log_odds: Floats) -> Floats | None:
    """What compressed a picture before somebody saved it as the fine JPEG that it looks like; None for nothing.

    Where several families may lie beneath, each is told its share, and the network does a little of what each asks for.
    Where a JPEG is the likeliest, all counts as one: its blocks, cut or scaled and coded over, ask for less than those
    of one that is as it was, half-way.

    Args:
        coarseness: estimated, (K,).
        beneath: how coarse that is which lies beneath a fine JPEG, if it is of that family, (K,).
        log_odds: for that, against nothing, (K,).
    """
    jpeg = FAMILIES.index("jpeg")
    least, most = _FINE_JPEG
    is_fine = int(coarseness.argmax()) == jpeg and least <= coarseness[jpeg] <= most
    largest = max(log_odds.max(), 0)  # that of nothing is 0
    odds, nothing = np.exp(log_odds - largest), np.exp(-largest)
    found: Floats = np.maximum(beneath, 0) * odds / max(odds.sum(), 1e-30)
    is_likely = odds.sum() >= _LEAST_CHANCE * (odds.sum() + nothing)
    if not is_fine or not is_likely or found.sum() < max(LEAST_BENEATH, coarseness[jpeg]):
        return None
    if int(found.argmax()) != jpeg:
        return found
    half_way = coarseness.copy()
    half_way[jpeg] = (coarseness[jpeg] + found.sum()) / 2
    return half_way


_DOUBT, _DOUBT_OF = 0.15, {"jpeg": 0.05, "webp": 0.0, "avif": 0.23}
"""By how much an estimate may exceed what a file says, and what other codecs may seem to have left, for the file to be
believed. What once was JPEG is taken for nothing else: of 16 photos coded once no estimate was more than 0.03 too
coarse, of those coded as JPEG at 50 and again at 75 each was by 0.1. Some WebP that was saved again looks no coarser
than some that was not, so its files are believed only where they say more than is seen, as of text. AVIF by fast
encoders, and in 4:4:4, looks up to 0.22 coarser than it is."""

_TAKEN_FOR = {
    "hevc": {"avif": 0.25},
    "hevc-420": {"avif": 0.25, "hevc": 0.25},
    "jpeg": {"hevc": 0.0, "webp": 0.0, "avif": 0.0, "hevc-420": 0.0},
    "webp": {"hevc": 0.0, "avif": 0.0, "hevc-420": 0.0},
    "avif": {"hevc": 1.0, "hevc-420": 1.0},
}
"""What other families a codec's pictures are taken for, and by how much the estimate of such a one may exceed what the
file says: libheif's HEVC for AVIF; text and drawings, as JPEG or WebP, for anything; AVIF of text and in 4:4:4 for
HEVC."""


def with_file(look: Look, file_says: Sequence[float] | None) -> Look:
    """A look that goes by what the file says of its quantiser, unless the picture shows more than that.

    The look wins where the picture shows coarser compression than its file admits, or another codec's: it was
    compressed before. Otherwise the file wins: a picture that looks finer has little for the quantiser to spoil, or for
    an estimate to go by. It wins too for a JPEG without a trace of a coarser one, whatever that looks like. A drawing,
    which looks like nothing at all, stays one. What lies beneath a fine JPEG counts for JPEG files. The blocks stay
    where they were found.

    Args:
        look: at the picture.
        file_says: as `codecs.coarseness` gives it, for one codec; None where the file says nothing.
    """
    if look.coarseness is None or file_says is None or not look.coarseness.any():
        return look
    said: Floats = np.array(file_says[: len(look.coarseness)], np.float32)
    family = FAMILIES[int(said.argmax())]
    if family == "jpeg" and look.surface is not None and look.coarseness.sum() > said.max() + _DOUBT_OF[family]:
        return look  # shares of what lies beneath, none of which need be as coarse as the file says
    is_plain = family == "jpeg" and look.surface is None and look.earlier is None
    # Nothing is looked for beneath a JPEG that is finer than that: what was there before is seen at once.
    is_plain &= said.max() >= _FINE_JPEG[0] or FAMILIES[int(look.coarseness.argmax())] == family
    if is_plain and look.traces is not None and look.traces.deny(float(look.coarseness.sum()), float(said.max())):
        return look._replace(coarseness=said)
    seen = look.coarseness if family == "jpeg" or look.surface is None else look.surface
    most = np.full_like(said, _DOUBT)
    if family == "avif":  # in 10 bits it looks a little like JPEG as well, and what was JPEG before looks so rather
        most = np.maximum(most, seen[FAMILIES.index("avif")])
    most[FAMILIES.index(family)] = said.max() + _DOUBT_OF.get(family, _DOUBT)
    for other, more in _TAKEN_FOR.get(family, {}).items():
        if (place := FAMILIES.index(other)) < len(most):
            most[place] = said.max() + more
    if not (seen > most).any():
        return look._replace(coarseness=said, surface=None, earlier=None)
    return look if seen is look.coarseness else look._replace(coarseness=seen, surface=None)
