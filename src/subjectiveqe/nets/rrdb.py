"""The generator of SubjectiveQE-ESRGAN: residual-in-residual dense blocks at full resolution, no upsampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each reading all earlier feature maps, around a scaled skip.

    Source: Wang et al., "ESRGAN", ECCV Workshops 2018 (arXiv:1809.00219); the 0.2 is the authors' released value.

    Args:
        num_feat: channels in and out.
        num_grow: channels added by each of the first four convolutions.
    Shape: (N, num_feat, H, W) -> the same, any H and W.
    """

    SKIP_SCALE = 0.2

    def __init__(self, num_feat: int, num_grow: int) -> None:
        super().__init__()
        fan_in = [num_feat + k * num_grow for k in range(5)]
        fan_out = [num_grow] * 4 + [num_feat]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in zip(fan_in, fan_out, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """See class."""
        *growers, fuse = self.convs
        seen = x
        for conv in growers:
            seen = torch.cat((seen, F.leaky_relu(conv(seen), 0.2)), dim=1)  # (N, num_feat + k * num_grow, H, W)
        y: Tensor = x + self.SKIP_SCALE * fuse(seen)
        return y


class RRDB(nn.Module):
    """Three dense blocks around a scaled skip. Shape: (N, num_feat, H, W) -> the same."""

    SKIP_SCALE = 0.2

    def __init__(self, num_feat: int, num_grow: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(num_feat, num_grow) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """See class."""
        y: Tensor = x + self.SKIP_SCALE * self.blocks(x)
        return y


class RRDBNet(nn.Module):
    """The seed's generator: 1,451,011 parameters, as many multiply-adds a pixel, no global skip.

    Source: RyanXingQL/SubjectiveQE-ESRGAN, after Wang et al., ESRGAN (arXiv:1809.00219) without its upsampling.

    Shape: lq (N, 3, H, W) in [0, 1] -> out (N, 3, H, W), not clamped; any H, W >= 1.
    """

    uses_strength = False
    num_coarseness = 0
    stride_px = 1

    def __init__(self, num_feat: int = 32, num_block: int = 8, num_grow: int = 16) -> None:
        super().__init__()
        self.hparams = {"num_feat": num_feat, "num_block": num_block, "num_grow": num_grow}
        self.conv_in = nn.Conv2d(3, num_feat, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(num_feat, num_grow) for _ in range(num_block)))
        self.conv_mid = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_out = nn.Conv2d(num_feat, 3, 3, padding=1)

    @property
    def receptive_px(self) -> int:
        """No input pixel farther than this from an output pixel has a say in it."""
        return 3 + 3 * 5 * int(self.hparams["num_block"])

    def forward(self, lq: Tensor) -> Tensor:
        """See class."""
        stem = self.conv_in(lq)
        x = stem + self.conv_mid(self.body(stem))
        y: Tensor = self.conv_out(F.leaky_relu(x, 0.1))
        return y
