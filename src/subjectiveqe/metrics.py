"""How close two pictures are, and how much of the codec's grid is left: NumPy and ONNX Runtime, no PyTorch.

Functions take 8-bit RGB pictures, uint8 (H, W, 3), and give one number, but `grid_lines`. `out` is the picture that is
judged and `gt` the pristine one; SSIMULACRA2 and PSNR-B change where the two are swapped, the others do not. Whoever
compares many pictures with one original hands it over as an `Original`, and what a network sees in it is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import ssimulacra
from .color import LUMA, luma
from .errors import ShapeError, SubjectiveQEError, WeightsError, first_line
from .images import RGB
from .sessions import ONNX_FAILED, onnx_session
from .weights import locate, read_arrays

if TYPE_CHECKING:
    import onnxruntime

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]

SSIM_MIN_PX = 11
MS_SSIM_MIN_PX = 11 * 2**4
LPIPS_MIN_PX = 31  # below it AlexNet's second pooling has nothing left to pool
VGG_MIN_PX = 16
GRID_PERIODS_PX = (2, 4, 8)
"""Those of `grid_lines`; divisors of 16 from 2 up."""


@dataclass(frozen=True)
class Original:
    """A pristine picture that several others are compared with.

    Attributes:
        rgb: uint8 RGB, (H, W, 3).
        seen: what the networks have seen in it so far, by their names; about 500 bytes a pixel for those on VGG16.
    """

    rgb: RGB
    seen: dict[str, Any] = field(default_factory=dict)


def psnr(out: RGB, gt: RGB | Original) -> float:
    """Peak signal-to-noise ratio over the three channels together, 10 log10(255^2 / MSE).

    Args:
        out: uint8 RGB, (H, W, 3).
        gt: uint8 RGB, the same shape.
    Returns:
        dB; inf where the pictures are equal.
    Raises:
        ShapeError: the shapes differ or are not (H, W, 3).
    Example:
        >>> round(psnr(np.full((8, 8, 3), 9, np.uint8), np.full((8, 8, 3), 8, np.uint8)), 4)
        48.1308
    """
    gt = _check(out, gt)
    return _psnr_of(float(np.mean(np.square(out.astype(np.float64) - gt))))


def psnr_y(out: RGB, gt: RGB | Original) -> float:
    """PSNR of BT.601 luma in limited range (MATLAB `rgb2ycbcr`: 16 + 219 steps), peak 255, luma not rounded to 8 bits.

    This is what restoration papers print as "PSNR (Y)" (MATLAB on floats, BasicSR's `test_y_channel`). The HEVC world
    measures on the codec's own rounded planes, which differs in the second decimal.

    Args:
        out: uint8 RGB, (H, W, 3).
        gt: uint8 RGB, the same shape.
    Returns:
        dB; inf where the luma is equal.
    Raises:
        ShapeError: the shapes differ or are not (H, W, 3).
    """
    gt = _check(out, gt)
    weights = 219 * np.array(LUMA) / 255  # the offset of 16 drops out of the difference
    return _psnr_of(float(np.mean(np.square((out.astype(np.float64) - gt) @ weights))))


def ssim(out: RGB, gt: RGB | Original) -> float:
    """Structural similarity with an 11x11 Gaussian window of sigma 1.5, mean over pixels and the three channels.

    Only windows that lie wholly inside the picture count, as in scikit-image with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, channel_axis=2, data_range=255`, with which it agrees to 1e-7.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004.

    Args:
        out: uint8 RGB, (H, W, 3), at least 11x11.
        gt: uint8 RGB, the same shape.
    Returns:
        -1..1; 1 where the pictures are equal.
    Raises:
        ShapeError: the shapes differ, are not (H, W, 3) or are below 11x11.
    """
    gt = _check(out, gt, SSIM_MIN_PX, "SSIM")
    return float(_similarity(out.astype(np.float64), gt.astype(np.float64))[0].mean())


_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(out: RGB, gt: RGB | Original) -> float:
    """SSIM over five scales, each half as large as the one before (means of 2x2 pixels).

    Contrast and structure come from all scales, luminance from the coarsest one, with the published exponents; each
    channel by itself, and the mean over them at the end. Windows are those of `ssim`; an odd last row or column is left
    out when a picture is halved; what is negative counts as 0.

    Source: Wang et al., "Multi-scale structural similarity for image quality assessment", Asilomar 2003.

    Args:
        out: uint8 RGB, (H, W, 3), at least 176x176.
        gt: uint8 RGB, the same shape.
    Returns:
        0..1; 1 where the pictures are equal.
    Raises:
        ShapeError: the shapes differ, are not (H, W, 3) or are below 176x176.
    """
    gt = _check(out, gt, MS_SSIM_MIN_PX, "MS-SSIM")
    x, y = out.astype(np.float64), gt.astype(np.float64)
    product = np.ones(3)
    for scale, weight in enumerate(_MS_SSIM_WEIGHTS):
        if scale:
            x, y = _halve(x), _halve(y)
        is_last = scale == len(_MS_SSIM_WEIGHTS) - 1
        product *= np.maximum(_similarity(x, y)[0 if is_last else 1], 0) ** weight
    return float(product.mean())


def psnr_b(out: RGB, gt: RGB | Original) -> float:
    """PSNR that counts steps across 8-px borders as an error of their own, on BT.601 luma in limited range.

    Source: Yim and Bovik, "Quality assessment of deblocked images", IEEE TIP 2011, for blocks of 8 px: to the mean
    squared error comes what the mean squared step at borders is above that elsewhere, times log2 8 / log2 min(H, W).

    Args:
        out: uint8 RGB, (H, W, 3), more than 8 px in both directions; its grid starts at the top left.
        gt: uint8 RGB, the same shape.
    Returns:
        dB; inf where the luma is equal and shows no borders.
    Raises:
        ShapeError: the shapes differ, are not (H, W, 3) or are below 9x9.
    """
    gt = _check(out, gt, 9, "PSNR-B")
    y = luma(out) * (219 / 255)  # the offset of 16 drops out of all differences
    error = float(np.mean(np.square(y - luma(gt) * (219 / 255))))
    at_borders, elsewhere = [], []
    for axis in (0, 1):
        steps = np.square(np.diff(y, axis=axis))
        is_border = np.arange(1, y.shape[axis]) % 8 == 0
        at_borders.append(np.compress(is_border, steps, axis).ravel())
        elsewhere.append(np.compress(~is_border, steps, axis).ravel())
    excess = float(np.concatenate(at_borders).mean() - np.concatenate(elsewhere).mean())
    return _psnr_of(error + max(excess, 0.0) * 3 / math.log2(min(y.shape)))


def blockiness(image: RGB) -> float:
    """Block-edge ratio: the mean absolute step of BT.601 luma across 8-px borders over the mean step inside blocks.

    The grid starts at the top left, as that of a decoded file does; horizontal and vertical ratios are averaged.
    Pristine photos have about 1, JPEG at QF 10 about 2.4. LPIPS hardly sees these borders, so this stands beside it.

    Args:
        image: uint8 RGB, (H, W, 3).
    Returns:
        Ratio, 0 and up; 1 for a picture without any step or without a border; inf where all steps are at the borders.
    Raises:
        ShapeError: not (H, W, 3).
    """
    _check(image, image)
    y = luma(image)
    ratios = []
    for steps in (np.abs(np.diff(y, axis=1)).mean(axis=0), np.abs(np.diff(y, axis=0)).mean(axis=1)):
        if len(steps) < 8:  # no border in this direction
            continue
        is_border = np.arange(1, len(steps) + 1) % 8 == 0
        border, inside = (float(steps[mask].mean()) for mask in (is_border, ~is_border))
        ratios.append(border / inside if inside else (math.inf if border else 1.0))
    return float(np.mean(ratios)) if ratios else 1.0


def lpips(out: RGB, gt: RGB | Original, legacy: bool = False) -> float:
    """Learned perceptual distance with AlexNet, version 0.1, whole picture.

    Weights are rounded to 16-bit floats on disk, which moves values by less than 1e-3.

    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018
    (arXiv:1801.03924). The standard reading scales pictures to [-1, 1]. The legacy one feeds [0, 1] to the same
    network, as RyanXingQL/SubjectiveQE-ESRGAN does (there on floats that were not clipped, here on 8-bit values): its
    values compare with no other paper.

    Args:
        out: uint8 RGB, (H, W, 3), at least 31x31.
        gt: uint8 RGB, the same shape.
        legacy: use the [0, 1] reading.
    Returns:
        Distance, 0 for equal pictures; lower is better.
    Raises:
        ShapeError: the shapes differ, are not (H, W, 3) or are below 31x31.
    """
    _check(out, gt, LPIPS_MIN_PX, "LPIPS")
    return _squared_distance(*_both_seen("lpips_alex", out, gt, *((1 / 255, 0) if legacy else (2 / 255, -1))))


def lpips_vgg(out: RGB, gt: RGB | Original) -> float:
    """Learned perceptual distance with VGG16, version 0.1; otherwise as `lpips`.

    Args:
        out: uint8 RGB, (H, W, 3), at least 16x16.
        gt: uint8 RGB, the same shape.
    Returns:
        Distance, 0 for equal pictures; lower is better.
    Raises:
        ShapeError: the shapes differ, are not (H, W, 3) or are below 16x16.
        WeightsError: "vgg16" or "lpips-vgg" are not on this machine (`sqe weights`).
    """
    _check(out, gt, VGG_MIN_PX, "LPIPS-VGG")
    return _squared_distance(*_both_seen("lpips_vgg", out, gt, 2 / 255, -1))


def dists(out: RGB, gt: RGB | Original) -> float:
    """Deep image structure and texture similarity: VGG16 statistics, lenient with resampled texture.

    Source: Ding et al., "Image quality assessment: unifying structure and texture similarity", TPAMI 2020
    (arXiv:2004.07728), with the authors' alpha and beta and L2 pooling; on the full picture, not resized.

    Args:
        out: uint8 RGB, (H, W, 3), at least 16x16.
        gt: uint8 RGB, the same shape.
    Returns:
        Distance, 0 for equal pictures; lower is better.
    Raises:
        ShapeError: the shapes differ, are not (H, W, 3) or are below 16x16.
        WeightsError: "vgg16" or "dists" are not on this machine (`sqe weights`).
    """
    _check(out, gt, VGG_MIN_PX, "DISTS")
    ours, theirs = _both_seen("dists", out, gt, 1 / 255, 0)
    similar = np.concatenate([_statistics_alike(a, b) for a, b in zip(ours, theirs, strict=True)], axis=1)
    weights = read_arrays("dists")
    return float(1 - (similar * [weights["alpha"], weights["beta"]]).sum() / (weights["alpha"] + weights["beta"]).sum())


def ssimulacra2(out: RGB, gt: RGB | Original) -> float:
    """SSIMULACRA2, version 2.1: 100 for equal pictures, 90 for hardly any difference, below 30 poor, also below 0.

    Source: see `ssimulacra`. As there, pictures below 113 px on a side are judged at fewer scales, by the weights of
    others, so that their values compare with none of larger pictures.

    Args:
        out: uint8 RGB, (H, W, 3), at least 8x8.
        gt: uint8 RGB, the same shape.
    Returns:
        Score, 100 or less; higher is better.
    Raises:
        ShapeError: the shapes differ, are not (H, W, 3) or are below 8x8.
    """
    return ssimulacra.score(out, _check(out, gt, ssimulacra.MIN_PX, "SSIMULACRA2"))


def grid_lines(pairs: Iterable[tuple[RGB, RGB]]) -> dict[int, float]:
    """How far the spectrum of output minus original stands out at the periods of a grid.

    Networks leave grids that no distance shows. The difference is cut into 128x128 patches (half overlapping, mean
    removed, Hann window), and the power of their spectra is averaged over patches, channels and pictures. Two profiles
    are taken along each axis: the mean over all cross frequencies, and the cross frequencies next to zero alone, where
    a coherent grid gathers. At each harmonic k / period, k <= period / 2, the power is divided by the mean of the bins
    3 to 6 away on both sides (nearer ones hold the window's own lobe); the largest ratio counts. Spectra of real
    pictures are mirrored at the half frequency, so there both sides are the same bins. Harmonics that a shorter period
    has as well are left to that one. A pattern of the original that the output lacks counts too, such as the 2-px
    mosaic of some cameras.

    Args:
        pairs: (out, gt), each uint8 RGB, (H, W, 3), at least 128x128. The more patches the less noise: white noise
            gives up to 1.3 with 100 patches.
    Returns:
        Ratio of power for each of `GRID_PERIODS_PX`; about 1 where nothing stands out.
    Raises:
        ShapeError: shapes differ, a picture is too small, or there is none.
    """
    size = 128
    window = np.hanning(size + 1)[:-1]
    window2 = (window[:, None] * window)[..., None]
    power = np.zeros((size, size))
    count = 0
    for out, gt in pairs:
        _check(out, gt, size, "the spectrum")
        difference = out.astype(np.float64) - gt
        for top in range(0, out.shape[0] - size + 1, size // 2):
            for left in range(0, out.shape[1] - size + 1, size // 2):
                patch = difference[top : top + size, left : left + size]
                spectrum = np.fft.fft2((patch - patch.mean(axis=(0, 1))) * window2, axes=(0, 1))
                power += np.square(np.abs(spectrum)).sum(axis=2)
                count += 1
    if count == 0:
        raise ShapeError("the spectrum needs at least one pair of pictures, got none")
    profiles = [
        power.mean(axis=0),
        power.mean(axis=1),
        power[[0, 1, -1]].mean(axis=0),
        power[:, [0, 1, -1]].mean(axis=1),
    ]
    around = np.array([-6, -5, -4, -3, 3, 4, 5, 6])
    ratios = {}
    seen: set[int] = set()
    for period in GRID_PERIODS_PX:
        bins = {k * size // period for k in range(1, period // 2 + 1)} - seen
        seen |= bins
        ratios[period] = max(_ratio(p[b], p[(b + around) % size].mean()) for p in profiles for b in bins)
    return ratios


def _ratio(line: float, neighbours: float) -> float:
    """Two spectra that are empty alike (equal pictures) do not stand out from each other."""
    return float(line / neighbours) if neighbours > 0 else (math.inf if line > 0 else 1.0)


def _check(out: RGB, gt: RGB | Original, least_px: int = 1, name: str = "a metric") -> RGB:
    """Refuses what cannot be compared; gives the pixels of `gt`."""
    pixels = gt.rgb if isinstance(gt, Original) else gt
    for image in (out, pixels):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ShapeError(f"{name} needs uint8 RGB pictures (H, W, 3), got {image.dtype} {image.shape}")
    if out.shape != pixels.shape:
        raise ShapeError(
            f"{name} needs two pictures of one shape, got {out.shape} and {pixels.shape}; crop one to the other"
        )
    if min(out.shape[:2]) < least_px:
        height, width = out.shape[:2]
        raise ShapeError(f"{name} needs pictures of at least {least_px}x{least_px} px, got {width}x{height}")
    return pixels


def _psnr_of(mse: float) -> float:
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def _gaussian() -> NDArray[np.float64]:
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    normed: NDArray[np.float64] = weights / weights.sum()
    return normed


def _blur(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian window along both axes, valid part only: (H, W, 3) -> (H - 10, W - 10, 3)."""
    height, width = maps.shape[0] - 10, maps.shape[1] - 10
    rows = sum(w * maps[k : k + height] for k, w in enumerate(_gaussian()))
    return np.asarray(sum(w * rows[:, k : k + width] for k, w in enumerate(_gaussian())))


def _similarity(x: Doubles, y: Doubles) -> Doubles:
    """SSIM of two pictures (H, W, 3) in 0..255, and its part without luminance; means over pixels, (2, 3)."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    totals = np.zeros((2, 3))
    strip = 64  # rows at a time: the maps stay in the cache and memory does not grow with the picture
    for top in range(0, x.shape[0] - SSIM_MIN_PX + 1, strip):
        a, b = (image[top : top + strip + SSIM_MIN_PX - 1] for image in (x, y))
        mean_a, mean_b = _blur(a), _blur(b)
        both = mean_a * mean_b
        squares = mean_a**2 + mean_b**2
        variances = _blur(a**2 + b**2) - squares
        structure = (2 * (_blur(a * b) - both) + c2) / (variances + c2)
        totals[0] += ((2 * both + c1) / (squares + c1) * structure).sum(axis=(0, 1))
        totals[1] += structure.sum(axis=(0, 1))
    means: Doubles = totals / ((x.shape[0] - SSIM_MIN_PX + 1) * (x.shape[1] - SSIM_MIN_PX + 1))
    return means


def _halve(image: Doubles) -> Doubles:
    height, width = (side // 2 * 2 for side in image.shape[:2])
    means: Doubles = image[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
    return means


def _both_seen(
    judge: str, out: RGB, gt: RGB | Original, scale: float, shift: float
) -> tuple[list[Floats], list[Floats]]:
    """What a network sees in two pictures, scaled and shifted before: maps (1, C, h, w). The original keeps its own."""
    if not isinstance(gt, Original):
        return _see(judge, out, scale, shift), _see(judge, gt, scale, shift)
    key = f"{judge} {scale:.6f}"
    if key not in gt.seen:
        gt.seen[key] = _see(judge, gt.rgb, scale, shift)
    return _see(judge, out, scale, shift), gt.seen[key]


def _see(judge: str, image: RGB, scale: float, shift: float) -> list[Floats]:
    picture = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) * np.float32(scale) + np.float32(shift)
    session = _session(judge)
    try:
        seen: list[Floats] = session.run(None, {"picture": picture})
    except ONNX_FAILED as error:
        size = f"{image.shape[1]}x{image.shape[0]} px"
        raise SubjectiveQEError(
            f"{judge}: {size} cannot be judged ({first_line(error)}); is the memory too small?"
        ) from None
    return seen


def _squared_distance(ours: list[Floats], theirs: list[Floats]) -> float:
    """Sum over maps of the mean over their places of the squared distance there."""
    return float(sum(np.square(a - b).sum(axis=1).mean() for a, b in zip(ours, theirs, strict=True)))


def _statistics_alike(a: Floats, b: Floats) -> Doubles:
    """DISTS's similarity of the means, and of structure, of two maps (1, C, h, w): (2, C)."""
    x, y = (maps.reshape(maps.shape[1], -1) for maps in (a, b))
    mean_x, mean_y = (maps.mean(axis=1, dtype=np.float64) for maps in (x, y))
    # Of centred values: the published E[xy] - E[x] E[y] cancels.
    x, y = x - mean_x[:, None].astype(np.float32), y - mean_y[:, None].astype(np.float32)
    var_x, var_y, covariance = (np.einsum("cp,cp->c", m, n) / m.shape[1] for m, n in ((x, x), (y, y), (x, y)))
    c = 1e-6
    texture = (2 * mean_x * mean_y + c) / (mean_x**2 + mean_y**2 + c)
    return np.stack((texture, (2 * covariance + c) / (var_x + var_y + c)))


_NEEDED = {"lpips_alex": (), "lpips_vgg": ("vgg16", "lpips-vgg"), "dists": ("vgg16",)}
"""Weights that do not ship, by graph; they are handed over as external initializers."""


@cache
def _session(judge: str) -> onnxruntime.InferenceSession:
    arrays: dict[str, Floats] = {}
    for name in _NEEDED[judge]:
        arrays |= read_arrays(name)
    graph = Path(__file__).parent / "assets" / f"{judge}.onnx"
    try:
        return onnx_session(graph, initializers=arrays)
    except ONNX_FAILED as error:
        if not arrays:
            raise WeightsError(f"{graph}: damaged ({first_line(error)}); install the package again") from None
        files = " or ".join(str(locate(name)) for name in _NEEDED[judge])
        raise WeightsError(
            f"{files}: not the weights that {judge} needs ({first_line(error)}); remove what is there, then see "
            "`sqe weights list`"
        ) from None
