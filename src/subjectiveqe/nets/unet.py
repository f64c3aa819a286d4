"""The compact U-Net: all its work at a half to an eighth of the resolution, so that a CPU keeps up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .estimator import Estimator

NO_CHECKER = (-1 / 16, 4 / 16, 10 / 16, 4 / 16, -1 / 16)
"""Low-pass over the network's change, along both axes: 1 at the mean, 0.75 at 4 px, exactly 0 at 2 px.

The pixel shuffle at the end makes a 2-px checkerboard the easiest texture of all; with this it cannot be written.
"""


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a skip; the second starts at a tenth, so a fresh block nearly passes its input on.

    Shape: (N, num_feat, H, W) -> the same.
    """

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        shrink(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        """See class."""
        y: Tensor = x + self.conv2(F.leaky_relu(self.conv1(x), 0.1))
        return y


class Up(nn.Sequential):
    """1x1 convolution and pixel shuffle: (N, in, H, W) -> (N, out, 2H, 2W)."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(nn.Conv2d(num_in, 4 * num_out, 1), nn.PixelShuffle(2))


class Gate(nn.Module):
    """How much of the network's change a neighbourhood needs: near 0 where the picture is as good as its original.

    A small network on what the deepest features have in common over a neighbourhood. It knows the level of compression
    and little else, so that it can leave fine pictures alone, and dare more in coarse ones, where a pixel's own
    surroundings leave the network in doubt.

    Shape: (N, num_feat, h, w) -> (N, 1, h, w) in 0..2; a fresh one gives 1 everywhere.
    """

    REACH = 5  # cells of the deepest level on each side
    WIDTH = 32

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(num_feat, self.WIDTH, 1)
        self.think = nn.Conv2d(self.WIDTH, self.WIDTH, 1)
        self.decide = nn.Conv2d(self.WIDTH, 1, 1)
        nn.init.zeros_(self.decide.weight)
        nn.init.zeros_(self.decide.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """See class."""
        side = 2 * self.REACH + 1
        x = F.leaky_relu(self.look(x), 0.1)
        x = F.avg_pool2d(x, side, stride=1, padding=self.REACH, count_include_pad=False)
        return 2 * torch.sigmoid(self.decide(F.leaky_relu(self.think(x), 0.1)))


class Tell(nn.Module):
    """Adds to feature maps what the network is told of the picture; a fresh one adds nothing.

    Shape: coarseness (N, num_coarseness) -> one (N, C, 1, 1) for each entry C of `widths`.
    """

    WIDTH = 32

    def __init__(self, num_coarseness: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = list(widths)
        self.think = nn.Linear(num_coarseness, self.WIDTH)
        self.say = nn.Linear(self.WIDTH, sum(widths))
        nn.init.zeros_(self.say.weight)
        nn.init.zeros_(self.say.bias)

    def forward(self, coarseness: Tensor) -> Sequence[Tensor]:
        """See class."""
        said: Tensor = self.say(F.leaky_relu(self.think(coarseness), 0.1))[:, :, None, None]
        return torch.split(said, self.widths, dim=1)


class UNet(nn.Module):
    """Residual U-Net on 2x pixel-unshuffled RGB, without normalisation, around a global skip.

    Cost: 60 k multiply-adds a pixel and 1.69 M parameters at the default sizes.

    Args:
        num_feat: channels at 1/2, 1/4, 1/8, ... of the resolution.
        num_block: residual blocks at each of these on the way down; the way up has as many, the deepest level once.
        gate: scale the change by a `Gate`; its weights may be added to a network that was trained without.
        num_coarseness: how many numbers of `codecs.coarseness` the network is told; 0 for a network that is told
            nothing. These weights may be added later too, and of more families (`grow`).
    Shape: lq (N, 3, H, W) in [0, 1], strength (N,) in [0, 1] and coarseness (N, num_coarseness) -> out (N, 3, H, W),
    not clamped; any H, W >= 1. Without `coarseness` the network goes by its own estimate from `lq`.
    """

    uses_strength = True
    smooth: Tensor

    def __init__(
        self,
        num_feat: Sequence[int] = (32, 64, 128),
        num_block: Sequence[int] = (2, 2, 4),
        gate: bool = False,
        num_coarseness: int = 0,
    ) -> None:
        super().__init__()
        self.hparams: dict[str, Any] = {
            "num_feat": list(num_feat),
            "num_block": list(num_block),
            **({"gate": True} if gate else {}),
            **({"num_coarseness": num_coarseness} if num_coarseness else {}),
        }
        self.num_coarseness = num_coarseness
        self.head = nn.Conv2d(3 * 4 + 1, num_feat[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(blocks(c, n) for c, n in zip(num_feat[:-1], num_block[:-1], strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in pairwise(num_feat))
        self.middle = blocks(num_feat[-1], num_block[-1])
        self.gate = Gate(num_feat[-1]) if gate else None
        self.ups = nn.ModuleList(Up(i, o) for i, o in zip(num_feat[:0:-1], num_feat[-2::-1], strict=True))
        self.up_blocks = nn.ModuleList(blocks(c, n) for c, n in zip(num_feat[-2::-1], num_block[-2::-1], strict=True))
        self.tail = nn.Conv2d(num_feat[0], 3 * 4, 3, padding=1)
        shrink(self.tail)
        if num_coarseness:
            self.estimator = Estimator(num_coarseness)
            self.tell = Tell(num_coarseness, (*num_feat, *num_feat[-2::-1]))
        taps = torch.tensor(NO_CHECKER)
        self.register_buffer("smooth", torch.outer(taps, taps).expand(3, 1, -1, -1).clone(), persistent=False)

    @property
    def stride_px(self) -> int:
        """Side of the cell in input pixels that all layers share: shifts by a multiple of it shift the output alike."""
        return 1 << len(self.hparams["num_feat"])

    @property
    def receptive_px(self) -> int:
        """No input pixel farther than this from an output pixel has a say in it; a multiple of the stride."""
        outer: list[int] = self.hparams["num_block"][:-1]
        middle: int = self.hparams["num_block"][-1]
        radius = len(NO_CHECKER) // 2 + 2 * 2 + 2 * middle * self.stride_px  # head and tail; two convolutions a block
        for depth, count in enumerate(outer, start=1):
            radius += 4 * count * 2**depth + 2**depth  # blocks down and up, and the stride-2 convolution
        if self.gate is not None:
            # The way up is not in the gate's sight, its neighbourhood and the interpolation are.
            sight = radius - sum(2 * count * 2**depth for depth, count in enumerate(outer, start=1)) - 2
            radius = max(radius, sight + (self.gate.REACH + 1) * self.stride_px)
        return -(-(radius + self.stride_px - 1) // self.stride_px) * self.stride_px

    def estimate(self, lq: Tensor, of_one_picture: bool = False) -> Tensor:
        """How coarsely pictures were compressed, (N, 4, num_coarseness): see `Estimator`; any H, W >= 1.

        In 32-bit floats under autocast too: in bfloat16 it takes every JPEG for HEVC.
        """
        with torch.autocast(lq.device.type, enabled=False):
            estimate: Tensor = self.estimator(pad_to_multiple(lq.float(), Estimator.CELL_PX), of_one_picture)
        return estimate

    def forward(self, lq: Tensor, strength: Tensor, coarseness: Tensor | None = None) -> Tensor:
        """See class."""
        height, width = lq.shape[-2:]
        padded = pad_to_multiple(lq, self.stride_px)
        told: list[Tensor | float] = [0.0] * (2 * len(self.downs) + 1)
        if self.num_coarseness:
            told = list(self.tell(self.estimate(lq)[:, 0] if coarseness is None else coarseness))
        x = F.pixel_unshuffle(padded, 2)
        plane = strength.to(x.dtype).view(-1, 1, 1, 1).expand(-1, 1, x.shape[-2], x.shape[-1])
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 holds less than the 8 bits of a picture
            x = self.head(torch.cat((x, plane), dim=1)) + told.pop(0)
        skips = []
        for layer, down in zip(self.down_blocks, self.downs, strict=True):
            x = layer(x)
            skips.append(x)
            x = down(x) + told.pop(0)
        x = self.middle(x)
        share = None if self.gate is None else self.gate(x)
        for up, layer in zip(self.ups, self.up_blocks, strict=True):
            x = layer(up(x) + told.pop(0) + skips.pop())
        change = F.pixel_shuffle(self.tail(x), 2)
        change = F.conv2d(change, self.smooth.to(change.dtype), padding=len(NO_CHECKER) // 2, groups=3)
        if share is not None:
            change = change * F.interpolate(share, scale_factor=self.stride_px, mode="bilinear", align_corners=False)
        return (padded + change)[..., :height, :width]


def blocks(num_feat: int, count: int) -> nn.Sequential:
    """`count` residual blocks in a row."""
    return nn.Sequential(*(ResBlock(num_feat) for _ in range(count)))


def shrink(conv: nn.Conv2d, factor: float = 0.1) -> None:
    """Scales a convolution's fresh weights down, so that a deep residual network starts near the identity."""
    with torch.no_grad():
        conv.weight.mul_(factor)
        if conv.bias is not None:
            conv.bias.mul_(factor)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeats the last row and column until height and width are multiples; any size from 1x1 on.

    Shape: (N, C, H, W) -> (N, C, H', W').
    """
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
