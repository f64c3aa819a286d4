"""What training minimises; metrics live elsewhere. Pictures are float32 NCHW RGB in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .color import LUMA
from .distributed import mean_over_processes

BLOCK_PX = 8
"""Of codecs' blocks, and the longest period of a pattern that is looked for."""


def charbonnier(out: Tensor, gt: Tensor, eps: float = 1e-6) -> Tensor:
    """Mean of sqrt(d^2 + eps) per picture: the absolute difference, smooth at zero.

    Source: Charbonnier et al., "Two deterministic half-quadratic regularization algorithms", ICIP 1994.

    Args:
        out: (N, C, H, W), pictures or feature maps.
        gt: the same shape.
        eps: the seed's value.
    Returns:
        (N,); sqrt(eps) = 0.001 where the two are equal.
    """
    return torch.sqrt((out - gt).square() + eps).flatten(1).mean(1)


def psnr_loss(out: Tensor, gt: Tensor) -> Tensor:
    """PSNR per picture, in dB and negative: what is asked for where means of PSNR are to rise.

    Beside `charbonnier`, it asks for the mean of what may have been there and not for its median, and for as many dB of
    a fine picture as of a coarse one.

    Source: Chen et al., "HINet", CVPR 2021 workshops (arXiv:2105.06086), sec. 3.2.

    Args:
        out: (N, 3, H, W).
        gt: the same shape.
    Returns:
        (N,); -50 where the two are equal.
    """
    return 10 * ((out - gt).square().flatten(1).mean(1) + 1e-5).log10()


def chroma_loss(out: Tensor, gt: Tensor) -> Tensor:
    """Charbonnier distance of Cb and Cr (BT.601, full range).

    Losses that ask for texture ask for it in R, G and B, each for itself, and get coloured grain where chroma was
    coarse: they hardly see it, people do. Chroma has little texture of its own, so that its pixels can be asked for.

    Args:
        out: (N, 3, H, W).
        gt: the same shape.
    Returns:
        (N,); 0.001 where the colours are equal.
    """
    difference = out - gt
    red, _, blue = difference.unbind(1)
    y = _luma(difference)
    cb_cr = torch.stack([(blue - y) / (2 - 2 * LUMA[2]), (red - y) / (2 - 2 * LUMA[0])], 1)
    return charbonnier(cb_cr, torch.zeros_like(cb_cr))


def _luma(rgb: Tensor) -> Tensor:
    """BT.601: (N, 3, H, W) -> (N, H, W)."""
    red, green, blue = rgb.unbind(1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


SPECTRUM_PX = 32
"""Side of the windows of `spectrum_loss`."""


def spectrum_loss(out: Tensor, gt: Tensor) -> Tensor:
    """Charbonnier distance of the amplitudes of short-time spectra: how much texture there is, not where it lies.

    Windows of Hann, half of one from each to the next. It needs no network, and knows nothing of any judge.

    Source: Fuoli et al., "Fourier Space Losses", ICCV 2021 (arXiv:2106.00783), sec. 3.2, on windows in place of whole
    patches and without the phases, whose gradient has no bound where an amplitude is small; the place of things is
    left to the loss on pixels.

    Args:
        out: (N, 3, H, W), sides of SPECTRUM_PX or more.
        gt: the same shape.
    Returns:
        (N,); 0.001 where the amplitudes are equal.
    """
    hann = torch.hann_window(SPECTRUM_PX, device=out.device)
    window, step = torch.outer(hann, hann), SPECTRUM_PX // 2

    def amplitudes(x: Tensor) -> Tensor:  # (N, 3, rows, columns, 32, 17)
        windows = x.unfold(2, SPECTRUM_PX, step).unfold(3, SPECTRUM_PX, step) * window
        return (torch.view_as_real(torch.fft.rfft2(windows, norm="ortho")).square().sum(-1) + 1e-8).sqrt()

    return charbonnier(amplitudes(out), amplitudes(gt))


SSIM_SCALES = 3
"""Of `ssim_loss`: whole, halved and quartered."""
SSIM_PX = 11 * 2 ** (SSIM_SCALES - 1)
"""Smallest side for `ssim_loss`: a window at the coarsest scale."""


def ssim_loss(out: Tensor, gt: Tensor) -> Tensor:
    """One minus structural similarity of luma, the mean of three scales.

    It asks texture to lie where the original's does, each place relative to how much goes on there, where the loss on
    pixels asks for the same everywhere.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE Transactions
    on Image Processing 13 (2004), with its windows (Gaussian of sigma 1.5 px, 11 px) and constants.

    Args:
        out: (N, 3, H, W), sides of SSIM_PX or more.
        gt: the same shape.
    Returns:
        (N,); 0 where the two are equal, 2 at most.
    """
    x, y = _luma(out), _luma(gt)
    similar = []
    for _ in range(SSIM_SCALES):
        down, across = (_gauss_windows(side, out.device) for side in x.shape[1:])
        mean_x, mean_y, xx, yy, xy = down @ torch.stack([x, y, x * x, y * y, x * y]) @ across.T
        luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x * mean_x + mean_y * mean_y + 0.01**2)
        covariance, variances = xy - mean_x * mean_y, xx + yy - mean_x * mean_x - mean_y * mean_y
        similar.append((luminance * (2 * covariance + 0.03**2) / (variances + 0.03**2)).flatten(1).mean(1))
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return 1 - torch.stack(similar).mean(0)


def _gauss_windows(side: int, device: torch.device) -> Tensor:
    """(side - 10, side): a row for each window of 11 px. As a matrix product, a tenth of what a convolution takes."""
    place = torch.arange(side, device=device)
    off = place - place[: side - 10, None] - 5
    windows = torch.exp(-off.square() / (2 * 1.5**2)) * (off.abs() <= 5)
    return windows / windows.sum(1, keepdim=True)


def balance_weights(lq: Tensor, gt: Tensor, balance: float) -> Tensor:
    """How much each patch of a batch counts, so that fine levels are not drowned by coarse ones.

    A distance from the original is several times larger at a coarse level than at a fine one, and so is its gradient: a
    blind network taught by the plain mean learns coarse levels and spoils pictures that were nearly good.

    Args:
        lq: (N, 3, H, W).
        gt: the same shape.
        balance: 0 weighs all alike, 1 in inverse proportion to the input's error; perceptual distances grow faster
            than that error, so that a little more than 1 gives fine levels their share of them.
    Returns:
        (N,), 1 for an error of 0.02 of the range (HEVC at QP 37 or so), bounded by a fifth and eight.
    """
    return (0.02 / charbonnier(lq, gt)).pow(balance).clamp(0.2, 8.0)


def harm_loss(distances: Tensor, before: Tensor, floor: float = 0.01) -> Tensor:
    """How much farther than its input an output is from the original, relative to the input's own distance.

    A blind network is taught mostly by coarse levels, where distances are large. This speaks up where it spoils a
    picture that was nearly good, and is silent everywhere else.

    Args:
        distances: of the outputs from the originals, (N,); carries the gradient.
        before: of the inputs, (N,), by the same measure; constants.
        floor: keeps inputs that are all but perfect from drowning all others.
    Returns:
        Scalar; 0 where no output is worse than its input.
    """
    return (F.relu(distances - before) / (before + floor)).mean()


def relativistic_g_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Asks D to rate outputs above the average GT image, and GT images below the average output.

    The averages are taken over all processes, so that several of them equal one at the same global batch.

    Source: Jolicoeur-Martineau, "The relativistic discriminator", ICLR 2019 (arXiv:1807.00734); we average the terms.

    Args:
        real_logits: D(gt) before the sigmoid, (N, 1) or (N, 1, h, w); treated as a constant.
        fake_logits: D(out), same shape; carries the gradient.
    Returns:
        Scalar in nats; ln 2 = 0.693 when D rates every image alike.
    """
    real = real_logits.detach()
    lift_fake = F.softplus(mean_over_processes(real.mean()) - fake_logits).mean()
    sink_real = F.softplus(real - mean_over_processes(fake_logits.mean())).mean()
    return (lift_fake + sink_real) / 2


def relativistic_d_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Asks D to rate GT images above the average output, and outputs below the average GT image.

    Source and averages: as `relativistic_g_loss`.

    Args:
        real_logits: D(gt) before the sigmoid, (N, 1) or (N, 1, h, w).
        fake_logits: D(out) of detached outputs, same shape.
    Returns:
        Scalar in nats; ln 2 = 0.693 when D rates every image alike.
    """
    lift_real = F.softplus(mean_over_processes(fake_logits.mean()) - real_logits).mean()
    sink_fake = F.softplus(fake_logits - mean_over_processes(real_logits.mean())).mean()
    return (lift_real + sink_fake) / 2


def border_loss(out: Tensor, gt: Tensor, grid: Tensor) -> Tensor:
    """How much more than the original an output steps at the codec's block borders.

    A step is the absolute difference of neighbouring pixels. Per picture and direction, the mean step across block
    borders is set against the mean step inside blocks; the loss is how far the log of that ratio is above the
    original's, but for a slack of a tenth. It is one-sided, since a step that is too small is no block, and the steps
    inside are constants: the border has to come down to them, they need not rise to it.

    Args:
        out: (N, 3, H, W); carries the gradient.
        gt: the same shape.
        grid: int, (N, 2): rows y with (y - grid[0]) % 8 == 0 start a block, columns likewise with grid[1].
    Returns:
        Scalar; 0 where the borders stand out no more than in the original, 0.59 where twice as much.
    """
    terms = []
    slack = 0.1  # two patches of one texture differ by less; without it the loss would flatten all texture at the grid
    for axis, first in ((2, grid[:, 0]), (3, grid[:, 1])):
        place = torch.arange(1, out.shape[axis], device=out.device)
        is_border = ((place[None] - first[:, None]) % BLOCK_PX == 0).to(out.dtype)  # (N, H - 1) or (N, W - 1)
        steps_out, steps_gt = (x.diff(dim=axis).abs().mean(dim=5 - axis) for x in (out, gt))  # (N, 3, L)
        ratio_out, ratio_gt = (_log_border_ratio(steps, is_border) for steps in (steps_out, steps_gt))
        terms.append(F.relu(ratio_out - ratio_gt - slack).mean())
    return (terms[0] + terms[1]) / 2


def _log_border_ratio(steps: Tensor, is_border: Tensor) -> Tensor:
    """Log of the mean step at borders over that inside, (N, 1), from steps (N, 3, L) and is_border (N, L)."""
    noise = 2 / 255  # keeps flat patches, where both steps are a level or less, from drowning all others
    mask = is_border[:, None]
    steps = steps.mean(1, keepdim=True)
    at_border = (steps * mask).sum(2) / mask.sum(2)
    inside = (steps * (1 - mask)).sum(2) / (1 - mask).sum(2)
    return torch.log(at_border + noise) - torch.log(inside.detach() + noise)


def estimate_loss(estimate: Tensor, truth: Tensor, too_coarse: float = 1.0) -> Tensor:
    """How far an `Estimator` is off: squared error of its values, and how badly its scales foretell that error.

    The values learn from the squared error alone, since most of them are either 0 or far from it, and the absolute
    error of a likelihood has no slope between the two. The scales learn from the negative log-likelihood of Laplace
    distributions around the values as they are.

    Args:
        estimate: (N, 2 or more, K), value and log of the scale; carries the gradient.
        truth: (N, K' >= K); NaN where unknown, which counts nothing.
        too_coarse: how much more a value counts that is above the truth than one below. More than 1 turns doubt into
            caution: what is sure stays as it is, what is not becomes finer (an expectile in place of the mean).
    Returns:
        Scalar: 100 times the mean squared error, and nats without the constant, which may be negative.
    """
    value, log_scale = estimate[:, :2].float().unbind(1)
    truth = truth[:, : value.shape[1]]
    log_scale = log_scale.clamp(-5, 1)
    off = value - truth.nan_to_num()
    terms = (
        100 * torch.where(off > 0, too_coarse, 1.0) * off.square()
        + off.detach().abs() * torch.exp(-log_scale)
        + log_scale
    )
    known = ~truth.isnan()
    return (terms * known).sum() / known.sum().clamp(min=1)


def grid_loss(out: Tensor, gt: Tensor) -> Tensor:
    """How strong a regular pattern the network has left in the difference from the original, wherever it is.

    Pixel shuffles and strides make it easy to write a checkerboard, perceptual losses and discriminators may reward it,
    and a distance between pictures hardly sees it. The difference is folded to 8 px, which cancels what has another
    period than that or what divides it; the absolute value of what is left, but for its mean, is the loss. The larger a
    patch, the less texture is taken for a pattern.

    Args:
        out: (N, 3, H, W), H and W multiples of 8, on the network's own grid; carries the gradient.
        gt: the same shape.
    Returns:
        Scalar in units of the range; about the amplitude of a pattern that covers the picture.
    """
    height, width = (side // BLOCK_PX for side in out.shape[-2:])
    cells = (out - gt).reshape(len(out), -1, height, BLOCK_PX, width, BLOCK_PX)
    pattern: Tensor = cells.mean((2, 4))  # (N, 3, 8, 8)
    return (pattern - pattern.mean((2, 3), keepdim=True)).abs().mean()
