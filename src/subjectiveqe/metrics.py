"""How close two pictures are, and how much of the codec's grid is left: NumPy and ONNX Runtime, no PyTorch.

Every function takes 8-bit RGB pictures, uint8 (H, W, 3), and gives one number. `out` is the picture that is judged and
`gt` the pristine one; all distances are symmetric in the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .color import luma
from .errors import ShapeError
from .images import RGB
from .machine import cpu_count
from .weights import locate, read_arrays

if TYPE_CHECKING:
    import onnxruntime

SSIM_MIN_PX = 11
LPIPS_MIN_PX = 31  # below it AlexNet's second pooling has nothing left to pool
DISTS_MIN_PX = 16


def psnr(out: RGB, gt: RGB) -> float:
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
    _check(out, gt)
    return _psnr_of(float(np.mean(np.square(out.astype(np.float64) - gt))))


def psnr_y(out: RGB, gt: RGB) -> float:
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
    _check(out, gt)
    # The offset of 16 drops out of the difference.
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return _psnr_of(float(np.mean(np.square((out.astype(np.float64) - gt) @ weights))))


def ssim(out: RGB, gt: RGB) -> float:
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
    _check(out, gt, SSIM_MIN_PX, "SSIM")
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    total = 0.0
    strip = 64  # rows at a time: the maps stay in the cache and memory does not grow with the picture
    for top in range(0, out.shape[0] - SSIM_MIN_PX + 1, strip):
        x, y = (image[top : top + strip + SSIM_MIN_PX - 1].astype(np.float64) for image in (out, gt))
        mean_x, mean_y = _blur(x), _blur(y)
        both = mean_x * mean_y
        squares = mean_x**2 + mean_y**2
        variances = _blur(x**2 + y**2) - squares
        covariance = _blur(x * y) - both
        total += float(np.sum((2 * both + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))))
    return float(total / ((out.shape[0] - SSIM_MIN_PX + 1) * (out.shape[1] - SSIM_MIN_PX + 1) * 3))


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


def lpips(out: RGB, gt: RGB, legacy: bool = False) -> float:
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
    scale, shift = (1 / 255, 0) if legacy else (2 / 255, -1)
    feeds = {
        name: _planes(image) * np.float32(scale) + np.float32(shift) for name, image in (("in0", out), ("in1", gt))
    }
    (distance,) = _lpips_session().run(["distance"], feeds)
    return float(distance[0])


def dists(out: RGB, gt: RGB) -> float:
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
    _check(out, gt, DISTS_MIN_PX, "DISTS")
    session = _dists_session()
    (score,) = session.run(["distance"], {"in0": _planes(out) / 255, "in1": _planes(gt) / 255})
    return float(score[0])


def grid_lines(pairs: Iterable[tuple[RGB, RGB]], periods_px: tuple[int, ...] = (2, 4, 8)) -> dict[int, float]:
    """How far the spectrum of output minus original stands out at the periods of a grid.

    Networks leave grids that no distance shows. The difference is cut into 128x128 patches (half overlapping, mean
    removed, Hann window), and the power of their spectra is averaged over patches, channels and pictures. Two profiles
    are taken along each axis: the mean over all cross frequencies, and the cross frequencies next to zero alone, where
    a coherent grid gathers. At each harmonic k / period, k <= period / 2, the power is divided by the mean of the bins
    3 to 6 away on both sides (nearer ones hold the window's own lobe); the largest ratio counts. Spectra of real
    pictures are mirrored at the half frequency, so there both sides are the same bins. Harmonics that a shorter period
    in the list has as well are left to that one. A pattern of the original that the output lacks counts too, such as
    the 2-px mosaic of some cameras.

    Args:
        pairs: (out, gt), each uint8 RGB, (H, W, 3), at least 128x128. The more patches the less noise: white noise
            gives up to 1.3 with 100 patches.
        periods_px: divisors of 16 from 2 up.
    Returns:
        Ratio of power per period; about 1 where nothing stands out.
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
    for period in sorted(periods_px):
        bins = {k * size // period for k in range(1, period // 2 + 1)} - seen
        seen |= bins
        ratios[period] = max(_ratio(p[b], p[(b + around) % size].mean()) for p in profiles for b in bins)
    return ratios


def _ratio(line: float, neighbours: float) -> float:
    """Two spectra that are empty alike (equal pictures) do not stand out from each other."""
    return float(line / neighbours) if neighbours > 0 else (math.inf if line > 0 else 1.0)


def _check(out: RGB, gt: RGB, least_px: int = 1, name: str = "a metric") -> None:
    for image in (out, gt):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ShapeError(f"{name} needs uint8 RGB pictures (H, W, 3), got {image.dtype} {image.shape}")
    if out.shape != gt.shape:
        raise ShapeError(
            f"{name} needs two pictures of one shape, got {out.shape} and {gt.shape}; crop one to the other"
        )
    if min(out.shape[:2]) < least_px:
        height, width = out.shape[:2]
        raise ShapeError(f"{name} needs pictures of at least {least_px}x{least_px} px, got {width}x{height}")


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


def _planes(image: RGB) -> NDArray[np.float32]:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


def _session_options() -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_count()  # it would count, and pin threads to, all of the machine's
    options.log_severity_level = 3
    # Idle threads would spin on cores that the model under test or a training run needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


@cache
def _lpips_session() -> onnxruntime.InferenceSession:
    import onnxruntime

    return onnxruntime.InferenceSession(
        str(locate("lpips-alex")), _session_options(), providers=["CPUExecutionProvider"]
    )


@cache
def _dists_session() -> onnxruntime.InferenceSession:
    """The graph is bundled, its weights are not: they are handed over as external initializers."""
    import onnxruntime

    arrays = read_arrays("vgg16") | read_arrays("dists")
    options = _session_options()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    options.add_external_initializers(list(arrays), values)
    graph = Path(__file__).parent / "assets" / "dists.onnx"
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
