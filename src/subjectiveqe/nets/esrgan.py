"""ESRGAN's generator where it keeps the size, as restorers that others have published do."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .rrdb import RRDB
from .unet import pad_to_multiple


class ESRGAN(nn.Module):
    """Residual-in-residual dense blocks, and one convolution more before the last than the seed's `RRDBNet` has.

    Source: Wang et al., ESRGAN (arXiv:1809.00219) without its upsampling; with `unshuffle` Wang et al., Real-ESRGAN
    (arXiv:2107.10833), which folds pixels into channels first and enlarges by two nearest neighbours a step at the end.

    Args:
        num_feat: channels.
        num_block: blocks of three dense blocks each.
        num_grow: channels that each convolution of a dense block adds.
        unshuffle: side of the squares of pixels that become channels: 1, 2 or 4.
    Shape: lq (N, 3, H, W) in [0, 1] -> out (N, 3, H, W), not clamped; any H, W >= 1.
    """

    uses_strength = False
    num_coarseness = 0

    def __init__(self, num_feat: int = 64, num_block: int = 23, num_grow: int = 32, unshuffle: int = 1) -> None:
        super().__init__()
        if unshuffle not in (1, 2, 4):
            raise ValueError(f"unshuffle {unshuffle}: expected 1, 2 or 4")
        self.hparams = {"num_feat": num_feat, "num_block": num_block, "num_grow": num_grow, "unshuffle": unshuffle}
        self.conv_in = nn.Conv2d(3 * unshuffle**2, num_feat, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(num_feat, num_grow) for _ in range(num_block)))
        self.conv_mid = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        steps = unshuffle.bit_length() - 1
        self.conv_up = nn.ModuleList(nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in range(steps))
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_out = nn.Conv2d(num_feat, 3, 3, padding=1)

    @property
    def stride_px(self) -> int:
        """Side of the cell in input pixels that all layers share."""
        return self.hparams["unshuffle"]

    @property
    def receptive_px(self) -> int:
        """No input pixel farther than this from an output pixel has a say in it; a multiple of the stride."""
        cell = self.stride_px
        radius = (2 + 15 * self.hparams["num_block"]) * cell  # the first, the body and the one behind it
        radius += sum(cell >> step for step in range(1, cell.bit_length())) + 2 + cell - 1
        return -(-radius // cell) * cell

    def forward(self, lq: Tensor) -> Tensor:
        """See class."""
        height, width = lq.shape[-2:]
        stem = self.conv_in(F.pixel_unshuffle(pad_to_multiple(lq, self.stride_px), self.stride_px))
        x = stem + self.conv_mid(self.body(stem))
        for conv in self.conv_up:
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        y: Tensor = self.conv_out(F.leaky_relu(self.conv_hr(x), 0.2))
        return y[..., :height, :width]
