"""The JPEG that a picture once was, before it was cut or saved again: its coefficients still gather about its steps.

Source: the periodicity is that of Bianchi and Piva, "Detection of Nonaligned Double JPEG Compression Based on Integer
Periodicity Maps", IEEE Transactions on Information Forensics and Security 7(2), 2012, who look at the DC coefficient
step by step; here eight others are looked at together, for the tables that libjpeg makes of a quality.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..codecs.coarseness import FAMILIES, coarseness, jpeg_steps
from .blocks import BASIS, BLOCK_PX, busiest_luma, dct, to_blocks
from .network import Floats

_BUSIEST = 9
"""How many patches are asked, those with most in them."""

_FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2))
"""Vertical and horizontal, from 0. Higher ones have little but zeros, and the constant one is the picture's own."""

_TABLE = np.array((11, 12, 12, 10, 14, 14, 13, 16))
"""Steps of luma for these at QF 50 (ITU-T T.81, table K.1)."""

_QFS = np.array([qf for qf in range(5, 93) if qf not in (47, 49, 51, 54, 74)])
"""All but those whose steps here are a neighbour's: libjpeg rounds them, and each step that is off by one tells."""

_STEPS = np.array([jpeg_steps(_TABLE, int(qf)) for qf in _QFS])
"""(len(_QFS), len(_FREQUENCIES)), as libjpeg rounds them."""

_COARSENESS = np.array([max(coarseness("jpeg", int(qf))) for qf in _QFS])

_BIN, _BINS = 0.5, 600
"""Width and number of the bins that sizes of coefficients are counted in, in levels."""

_LEAST_MEAN, _LEAST_SCORE = 0.2, 15.0
"""Of the median over frequencies of the mean cosine, and of standard deviations from chance, all of them together."""

_MOST_ELSEWHERE = 0.6
"""The share of these that another place may have, at the same quality or a coarser one. Drawings that had
something that stood out had 0.81 of it elsewhere at least, and echoes 0.64; of 20 photos 17 and more had less than 0.6,
at QF 20 to 70."""

_EVENLY, _TELLING = 0.2, 20
"""How much of the median the least mean cosine has to be, of frequencies with so many coefficients. Photos by libjpeg
had 0.25 at least, those with flat tables -0.04 at most, with Photoshop's less than 0.2 mostly: their high frequencies,
which nothing is known of, are finer than those of libjpeg."""

_DOUBT = 0.1
"""By how much estimates may be wrong: of a JPEG they mostly are by 0.05 or less."""

_LESS = 0.05
"""By how much finer it is told than it was, since what saved it again smoothed it. On 10 validation photos, cut at QF
30 and saved at QF 92, that is +0.04 dB, LPIPS -0.0007, SSIMULACRA2 +0.2, DISTS +0.0015."""


class EarlierJpeg(NamedTuple):
    """A JPEG that a picture once was.

    Attributes:
        qf: its quality, 5..92.
        grid: row and column, 0..7, where its blocks begin.
    """

    qf: int
    grid: tuple[int, int]

    def told(self, num: int) -> Floats:
        """What to tell a network of it that is told of so many `FAMILIES`, JPEG among them; (num,)."""
        told: Floats = np.maximum(np.array(coarseness("jpeg", self.qf, num), np.float32) - np.float32(_LESS), 0)
        return told

    def is_more_than(self, estimated: Floats) -> bool:
        """Whether it is clearly coarser than the JPEG that a picture looks like, and not clearly finer than all else.

        Args:
            estimated: coarseness of the picture, (K,).
        """
        own, jpeg = max(coarseness("jpeg", self.qf)), FAMILIES.index("jpeg")
        return jpeg < len(estimated) and bool(estimated[jpeg] + _DOUBT < own > estimated.max() - _DOUBT)


_GATHERED, _NEAR, _COARSER = 0.25, 0.12, 0.04
"""From which median on coefficients have gathered, at a quality how near to an estimate, and how much coarser than the
file. Of 133 pairs of JPEGs of photos, at QF 10 to 65 and then 75 to 95, whose estimate exceeded what the file says, the
median was above 0.6 for nine of ten, the others clipped or nearly flat; of 197 pictures of all kinds coded once of
which it did so too, it was below 0.2 for 19 of 20."""

_FEWEST = 30
"""Coefficients of one frequency, by whose mean cosine anything is told: of fewer it may be that much by chance."""

_HIGH, _ASKED_FOR_HIGH, _LEAST_SIZE, _LEAST_RANGE = 6, 4, 4, 8
"""Sum of both frequencies from which on they are high, how many patches are asked, how large a coefficient has to be,
in levels, and the range of a block's pixels."""

_MOST_HIGH, _LESS_HIGH, _CERTAINLY = 0.03, 5.3, 0.7
"""Expected share of coefficients of high frequencies at a coarseness of 1, and how fast it falls with coarseness; a
JPEG with more than half of that was no coarser. Of the 197 pictures those that were taken for coarser by 0.15 or more
had too much mostly (89 of 114); of 112 that were JPEGs at QF 15 to 50, scaled and saved at QF 90, a third."""


class Traces(NamedTuple):
    """What speaks for an earlier JPEG in the blocks that are seen, and what against any.

    Attributes:
        gathered: how much coefficients gather about multiples of each quality's steps, 0..1, (len(_QFS),).
        high: share of coefficients of high frequencies that are more than nothing, 0..1.
    """

    gathered: Floats
    high: float

    def deny(self, seen: float, said: float) -> bool:
        """Whether a JPEG file was no coarser before, whatever it looks like: noise, text and patterns look coarse.

        Args:
            seen: coarseness that it looks like, of all families together.
            said: what its file says.
        """
        has_gathered = self._has_gathered(seen, said + _COARSER)
        return not has_gathered and self.high > _MOST_HIGH / 2 * np.exp(_LESS_HIGH * (1 - seen))

    def most(self, seen: float) -> float:
        """How coarse a JPEG can have been that looks so coarse, where no file says more."""
        if self.high <= _MOST_HIGH or self._has_gathered(seen, 0):
            return seen
        return min(seen, 1 - float(np.log(_CERTAINLY * self.high / _MOST_HIGH)) / _LESS_HIGH)

    def _has_gathered(self, seen: float, least: float) -> bool:
        """Whether about the steps of a quality that is as coarse as it looks, and coarser than the least."""
        is_near = (np.abs(_COARSENESS - seen) < _NEAR) & (least < _COARSENESS)
        return bool((self.gathered[is_near] > _GATHERED).any())


def find_traces(patches: Floats) -> Traces:
    """Looks for what `Traces` says.

    Args:
        patches: RGB, (N, 3, H, W), in [0, 1], cut where blocks begin; of less than a block there are none.
    """
    if min(patches.shape[2:]) < BLOCK_PX:
        return Traces(np.zeros(len(_QFS), np.float32), 0.0)
    y = busiest_luma(patches, _BUSIEST)
    coefficients = np.abs(_coefficients(y))
    cosines = np.zeros((len(_FREQUENCIES), len(_QFS)), np.float32)
    for number, (down, across) in enumerate(_FREQUENCIES):
        sums, counts = _cosines_of(_histograms(coefficients[:, down, across]), number)
        cosines[number] = np.where(counts < _FEWEST, 0, sums / np.maximum(counts, 1))[0]
    busy = np.abs(_coefficients(y[:_ASKED_FOR_HIGH], _LEAST_RANGE))
    high = busy[:, np.add.outer(np.arange(BLOCK_PX), np.arange(BLOCK_PX)) >= _HIGH]
    return Traces(np.median(cosines, axis=0), float((high > _LEAST_SIZE).mean()) if high.size else 0.0)


def _coefficients(y: Floats, least_range: float = -1) -> Floats:
    """Those of luma (N, H, W) in whole blocks of more than such a range, (n, 8, 8)."""
    rows, cols = (side // BLOCK_PX * BLOCK_PX for side in y.shape[1:])
    blocks = to_blocks(np.ascontiguousarray(y[:, :rows, :cols]).reshape(-1, cols))
    return dct(blocks[np.ptp(blocks, axis=(1, 2)) > least_range])


def find_earlier_jpeg(patches: Floats) -> EarlierJpeg | None:
    """Finds the JPEG that stands out most of those that a picture was, or is, wherever its blocks began.

    If there were two, it is usually the later one, unless that was much finer. One whose blocks lie where those of the
    last save lie can usually not be told from that.

    What was quantised with a step of q lies at multiples of q, and near them once it has been quantised again by less,
    in blocks of other places or by another codec: the mean of cos(2 pi c / q) over its coefficients c is
    exp(-2 (pi s / q)^2) for an error of standard deviation s, about 0.2 where both steps are alike. In other places it
    is about 0, or below, since coefficients of less than half a step are left out.

    Args:
        patches: RGB, (N, 3, H, W), in [0, 1], all cut at multiples of 8 px.
    Returns:
        None where no such thing stands out.
    """
    if min(patches.shape[2:]) < 2 * BLOCK_PX - 1:  # less than a whole block at some place
        return None
    sums, counts = _cosines(busiest_luma(patches, _BUSIEST))
    score = sums.sum(2) / np.sqrt(np.maximum(counts.sum(2), 1) / 2)
    means = sums / np.maximum(counts, 1)
    middle, least = np.median(means, axis=2), np.where(counts < _TELLING, 1, means).min(2)
    stands_out = (score > _LEAST_SCORE) & (middle > _LEAST_MEAN) & (least > _EVENLY * middle)
    candidates = np.where(stands_out, score, 0)
    if candidates[0].any():  # what is finer elsewhere may be an echo of these blocks, as half a block beside them
        candidates[1:, candidates[0].argmax() :] = 0
    if candidates[1:].any():  # then what begins at the corner is what saved it again
        candidates[0] = 0
    if not candidates.any():
        return None
    place, number = divmod(int(candidates.argmax()), len(_QFS))
    score[[0, place]] = 0
    if score[:, : number + 1].max() > _MOST_ELSEWHERE * candidates[place, number]:
        return None
    return EarlierJpeg(int(_QFS[number]), divmod(place, BLOCK_PX))


def _cosines(y: Floats) -> tuple[Floats, Floats]:
    """Sums of cos(2 pi c / q) over coefficients of at least q / 2, and how many these are.

    Args:
        y: luma, (N, H, W), in levels.
    Returns:
        Twice (64, len(_QFS), len(_FREQUENCIES)), by the place where blocks begin, row by row.
    """
    height, width = (side - BLOCK_PX + 1 for side in y.shape[1:])
    row, col = (np.arange(side) % BLOCK_PX for side in (height, width))
    place = (row[:, None] * BLOCK_PX + col).astype(np.intp)
    along_columns = [_filtered(y, BASIS[frequency], height, axis=1) for frequency in range(3)]
    sums, counts = np.empty((2, BLOCK_PX**2, len(_QFS), len(_FREQUENCIES)), np.float32)
    for number, (down, across) in enumerate(_FREQUENCIES):
        sizes = np.abs(_filtered(along_columns[down], BASIS[across], width, axis=2))
        sums[..., number], counts[..., number] = _cosines_of(_histograms(sizes, place, BLOCK_PX**2), number)
    return sums, counts


def _histograms(sizes: Floats, place: NDArray[np.intp] | int = 0, places: int = 1) -> Floats:
    """How many coefficients of which size there are at each place, but of the largest; (places, _BINS)."""
    bins = np.minimum(sizes / _BIN, _BINS - 1).astype(np.intp) + place * _BINS
    histograms = np.bincount(bins.ravel(), minlength=places * _BINS).reshape(places, _BINS).astype(np.float32)
    histograms[:, -1] = 0  # and all beyond
    return histograms


def _cosines_of(histograms: Floats, number: int) -> tuple[Floats, Floats]:
    """As `_cosines`, of one frequency, for histograms of its coefficients (n, _BINS); twice (n, len(_QFS))."""
    cosines, first, places = _of_steps(number)
    from_there_on = np.cumsum(histograms[:, ::-1], axis=1)[:, ::-1]
    # A product of matrices would wake as many threads as the machine has cores, for what takes a millisecond.
    sums = np.einsum("nb,bs->ns", histograms, cosines)
    return sums[:, places], from_there_on[:, first][:, places]


@cache
def _of_steps(number: int) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp]]:
    """For the different steps of one frequency: cosines of the bins that count, (_BINS, n), and their first one, (n,).

    And for each quality the place of its step among them, (len(_QFS),).
    """
    steps, places = np.unique(_STEPS[:, number], return_inverse=True)
    middles = (np.arange(_BINS, dtype=np.float32) + 0.5) * _BIN
    first = np.searchsorted(middles, steps / 2, side="right")
    cosines = np.cos(2 * np.pi * middles[:, None] / steps) * (np.arange(_BINS)[:, None] >= first)
    return cosines.astype(np.float32), first, places


def _filtered(values: Floats, taps: Floats, length: int, axis: int) -> Floats:
    """Products with eight taps at every place along an axis of (N, H, W) where they fit."""
    at_place = [(slice(None),) * axis + (slice(first, first + length),) for first in range(BLOCK_PX)]
    filtered: Floats = taps[0] * values[at_place[0]]
    share = np.empty_like(filtered)
    for tap, place in zip(taps[1:], at_place[1:], strict=True):
        filtered += np.multiply(tap, values[place], out=share)
    return filtered
