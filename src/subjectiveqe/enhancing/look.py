"""What is found out about a picture as a whole before its first tile: how coarse it is, and where its blocks begin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..codecs.coarseness import FAMILIES
from ..color import LUMA
from ..formats.rows import Pixels
from .blocks import BLOCK_PX, busiest_luma, dct, to_blocks
from .earlier_jpeg import EarlierJpeg, Traces
from .network import Floats

LOOK_PX, _LOOKS = 192, 5
"""Side of the patches that are looked at, and how many there are along a side at most."""

_BUSIEST = 4
"""How many patches are asked where blocks begin: those with most in them."""

_NOTHING = 1
"""Coefficients below this, in levels, have vanished: rounding to 8 bits leaves a third of it."""

_LEAST_RANGE = 8
"""Levels from the darkest to the brightest pixel of a block that tells anything."""

_LEAST_GAP, _OF_CHANCE = 0.02, 0.3
"""By how large a share of coefficients the best phase has to stand out at least, and by how large a one where a single
block tells: that of n is due to chance by as much over the root of n. Of 14 photos and 15 contents that are none, cut
at odd places, whole and to 100, 64 and 40 px, 1 of 1,508 was told wrong (JPEG at QF 5 to 95, HEVC, WebP, AVIF,
originals). Whole photos were right at every QF and nearly all at HEVC QP 22; of WebP, of 4-px blocks, none was."""


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


def with_file(look: Look, told: Sequence[float] | None) -> Look:
    """A look that goes by what the file says of its quantiser, unless the picture shows more than that.

    A picture that was compressed before, more coarsely or by another codec, is as coarse as it looks, whatever its file
    says, but a JPEG that nothing else says was coarser. One that looks finer than its file says has little for the
    quantiser to spoil, or for an estimate to go by. A
    drawing of few colours, which looks like nothing at all, stays one. What lies beneath a JPEG counts for JPEG files.
    The blocks stay where they were found.

    Args:
        look: at the picture.
        told: as `codecs.coarseness` gives it, for one codec; None where the file says nothing.
    """
    if look.coarseness is None or told is None or not look.coarseness.any():
        return look
    said: Floats = np.array(told[: len(look.coarseness)], np.float32)
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


def look_places(side: int) -> list[int]:
    """Where patches begin along a side: evenly spread on the codec's 16-px grid, apart where there is room."""
    count = min(max(side // LOOK_PX, 1), _LOOKS)
    return [int(place) // 16 * 16 for place in np.linspace(0, max(side - LOOK_PX, 0), count)]


def find_grid(patches: Floats) -> tuple[int, int]:
    """Finds where 8-px blocks begin: there more of the DCT's coefficients have vanished than anywhere else.

    Args:
        patches: RGB, (N, 3, H, W), in [0, 1], all cut at multiples of 8 px.
    Returns:
        Row and column, 0..7; both 0 where no place stands out.
    """
    if min(patches.shape[2:]) < 2 * BLOCK_PX - 1:  # less than a whole block at some phase
        return 0, 0
    busiest = busiest_luma(patches, _BUSIEST)
    places = list(np.ndindex(BLOCK_PX, BLOCK_PX))
    shares, counts = zip(*(_vanished(busiest, row, col) for row, col in places), strict=True)
    second, first = np.sort(shares)[-2:]
    least = max(_LEAST_GAP, _OF_CHANCE / np.sqrt(max(min(counts), 1)))
    return places[int(np.argmax(shares))] if first - second > least else (0, 0)


def _vanished(y: Floats, row: int, col: int) -> tuple[float, int]:
    """What share of coefficients has vanished in the blocks that begin there, and how many blocks were asked.

    All phases get the same number of blocks.

    Args:
        y: luma, (N, H, W), in levels.
        row: of the first block.
        col: of the first block.
    """
    rows, cols = ((side - BLOCK_PX + 1) // BLOCK_PX * BLOCK_PX for side in y.shape[1:])
    blocks = to_blocks(y[:, row : row + rows, col : col + cols].reshape(-1, cols))
    busy = blocks[np.ptp(blocks, axis=(1, 2)) > _LEAST_RANGE]
    return (float((np.abs(dct(busy)) < _NOTHING).mean()), len(busy)) if len(busy) else (0.0, 0)


_FINE_JPEG = (0.25, 0.6)
"""How coarse a JPEG is taken to be beneath which there may be something: QF 97 or so to 74."""

LEAST_PATCHES = 4
"""To look beneath a JPEG; one patch tells too little of it."""

LEAST_BENEATH, _LEAST_CHANCE = 0.3, 0.7
"""How coarse it has to be at least, all families together, and no finer than the JPEG; and how likely."""


def look_beneath(coarseness: Floats, beneath: Floats, log_odds: Floats) -> Floats:
    """What compressed a picture before somebody saved it as the fine JPEG that it looks like, or that JPEG.

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
        return coarseness
    if int(found.argmax()) != jpeg:
        return found
    half_way = coarseness.copy()
    half_way[jpeg] = (coarseness[jpeg] + found.sum()) / 2
    return half_way


_MOST_FLAT = 0.6
"""Share of blocks. Of 60 icons and plots that were JPEGs of their own 22 were taken for something else beneath, and 21
of these are flatter; of 20 validation pictures a drawing, and, as AVIF at QF 30, drops before a sky."""


def is_mostly_flat(patches: Floats) -> bool:
    """Tells icons and other drawings, of whose surface too little is left to say what lies beneath.

    Args:
        patches: RGB, (N, 3, H, W), in [0, 1], H and W multiples of 8.
    """
    y = 255 * patches.mean(axis=1)
    blocks = to_blocks(y.reshape(-1, y.shape[2]))
    return bool((np.ptp(blocks, axis=(1, 2)) <= 1).mean() > _MOST_FLAT)


_AT_BORDERS, _UNEVEN = 0.85, 2.2
"""What of all steps between pixels lies between blocks, at least, and how much larger than the small ones of these the
middle one is. Mosaics of photos as JPEG at QF 30 to 95 have 0.88 at least, and 2.5 mostly. Photos have less of the
first even at QF 1; blurred ones have as much at QF 1 to 5, but one or two steps of the quantiser between blocks."""


def is_mosaic(patches: Floats) -> bool:
    """Tells pictures of even squares that fill whole blocks of 8 px, as pixel art that was enlarged, or hidden faces.

    They look like blocks of a coarse JPEG and are what they should be.

    Args:
        patches: RGB, (N, 3, H, W), in [0, 1], all cut at multiples of 8 px.
    """
    y = 255 * np.einsum("nchw,c->nhw", patches, np.array(LUMA, np.float32))
    firsts = []
    for axis in (1, 2):
        steps = np.abs(np.diff(y, axis=axis)).sum(axis=(0, 3 - axis))
        at_places = [steps[place::BLOCK_PX].sum() for place in range(BLOCK_PX)]
        if max(at_places) <= _AT_BORDERS * steps.sum():
            return False
        firsts.append((int(np.argmax(at_places)) + 1) % BLOCK_PX)
    blocks = whole_blocks(y[:, None], (firsts[0], firsts[1]))
    number, _, height, width = blocks.shape
    means = to_blocks(blocks.reshape(-1, width)).mean(axis=(1, 2))
    means = means.reshape(number, height // BLOCK_PX, width // BLOCK_PX)
    between = np.abs(np.concatenate([np.diff(means, axis=axis).ravel() for axis in (1, 2)]))
    telling = between[between > 1.5]
    if not telling.size:
        return False
    small, middle = np.percentile(telling, (10, 50))
    return bool(middle > _UNEVEN * small)


_MOST_OF_ENLARGED = 0.6
_LEAST_HIGH = {"webp": -1.5, "avif": -2.0, "hevc-420": -2.0}
"""What `_high_frequencies` are of pictures that these codecs left, at least. Of 41 photos coded as WebP at QF 1 to 50
all were above -1.3, as AVIF and HEVC above -1.8; enlarged JPEGs by 1.5 to 2 times are at -1.7 and -2.4, and those saved
again as WebP or AVIF above -1.6 and -2."""


def spare_enlarged(coarseness: Floats, patches: Floats) -> Floats:
    """Limits how coarse a picture is taken to be that was enlarged: its blocks are no longer what networks know.

    JPEGs that were enlarged are taken for coarse WebP, since they are smooth, and would get coloured grain. Of 72 such
    pictures (QF 20 to 85, enlarged by 1.5 or 2 times) those above the limit gain up to 1.1 dB by it, and LPIPS too.

    Args:
        coarseness: estimated, (K,).
        patches: RGB, (N, 3, H, W), in [0, 1].
    """
    limited = coarseness.copy()
    for family, least in _LEAST_HIGH.items():
        place = FAMILIES.index(family)
        if place < len(limited) and limited[place] > _MOST_OF_ENLARGED and _high_frequencies(patches) < least:
            limited[place] = _MOST_OF_ENLARGED
    return limited


def _high_frequencies(patches: Floats) -> float:
    """Power beyond 0.85 of the highest frequency over that at 0.3 to 0.5 of it, as a logarithm (base 10).

    Of rows or columns, whichever have more: one that was enlarged lacks them in both.
    """
    y = patches.mean(axis=1)
    y -= y.mean(axis=(1, 2), keepdims=True)
    window = np.outer(*(np.hanning(side) for side in y.shape[1:]))
    power = (np.abs(np.fft.fft2(y * window)) ** 2).mean(axis=0)
    ratios = []
    for along in (power.mean(axis=1), power.mean(axis=0)):
        half = along[: len(along) // 2 + 1]
        high, middle = (half[int(low * len(half)) : int(top * len(half))] for low, top in ((0.85, 1), (0.3, 0.5)))
        ratios.append(high.mean() / middle.mean() if middle.any() else 1.0)
    return float(np.log10(max(*ratios, 1e-9)))


def is_gray(rgb: Pixels) -> bool:
    """Tells whether the channels of (H, W, 3) differ by no more than a level of 8 bits, as conversions leave it."""
    red, green, blue = np.moveaxis(rgb, 2, 0)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return bool((spread <= np.iinfo(rgb.dtype).max // 255).all())


_FEW_COLOURS = 16
"""No codec leaves so few, but of what is flat nearly everywhere."""


def has_few_colours(patches: Iterable[Pixels]) -> bool:
    """Tells drawings whose pixels were chosen one by one: pixel art, QR codes, dithered and black-and-white pages."""
    colours: set[int] = set()
    for patch in patches:
        red, green, blue = patch.astype(np.uint64).transpose(2, 0, 1)
        colours.update(np.unique(red << 32 | green << 16 | blue).tolist())
        if len(colours) > _FEW_COLOURS:
            return False
    return True


def whole_blocks(patches: Floats, grid: tuple[int, int]) -> Floats:
    """What of patches (N, C, H, W) consists of whole blocks; a view."""
    rows, cols = (
        slice(first, first + (side - first) // BLOCK_PX * BLOCK_PX)
        for first, side in zip(grid, patches.shape[2:], strict=True)
    )
    return patches[:, :, rows, cols]
