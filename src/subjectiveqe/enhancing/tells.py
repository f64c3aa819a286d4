"""What the pixels of a picture tell: where its blocks begin, whether it is gray, drawn or enlarged."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..codecs.coarseness import FAMILIES
from ..color import LUMA
from ..formats.rows import Pixels
from .blocks import BLOCK_PX, busiest_luma, dct, to_blocks
from .network import Floats

_BUSIEST = 4
"""How many patches are asked where blocks begin: those with most in them."""

_NOTHING = 1
"""Coefficients below this, in levels, have vanished: rounding to 8 bits leaves a third of it."""

_LEAST_RANGE = 8
"""Levels from the darkest to the brightest pixel of a block that tells anything."""

_LEAST_GAP, _OF_CHANCE = 0.02, 0.3
"""How far the best phase has to lead the second at least: by 0.02 of the coefficients, or by 0.3 over the root of the
number of blocks, whichever is more. Of 14 photos and 15 contents that are none, cut
at odd places, whole and to 100, 64 and 40 px, 1 of 1,508 was told wrong (JPEG at QF 5 to 95, HEVC, WebP, AVIF,
originals). Whole photos were right at every QF and nearly all at HEVC QP 22; of WebP, of 4-px blocks, none was."""


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
    if not blocks.size:
        return False
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
