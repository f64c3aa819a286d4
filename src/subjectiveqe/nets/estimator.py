"""What a picture itself tells of how coarsely it was compressed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Estimator(nn.Module):
    """Estimates from a picture how coarsely it was compressed, with how far it may be off.

    A quantiser leaves no coefficient between nothing and its step. So this looks at the logarithm of 8x8 DCT
    coefficients, where a coarser step is a shift; from the pixels themselves it takes many times as long to learn half
    as much. A picture's coarseness is the same everywhere, and a few neighbourhoods with texture give it away, where
    the surroundings of one pixel leave it open; flat patches say so by their scale. The batch norms are part of the
    convolutions in an exported network.

    Of a picture that was saved again as a fine JPEG, the value is mostly the JPEG's. What lies beneath is a second
    question, to what all layers see, which `calibrate` alone teaches; untaught, the value is 0.

    Cost: 4 k multiply-adds a pixel of the patches that are looked at.
    Shape: lq (N, 3, H, W), H and W multiples of 8 -> (N, 4, num_coarseness): value, log of the scale of a Laplace
    distribution around it, value of what lies beneath a fine JPEG if it is of that family, and the log of the odds for
    that, against nothing; (1, 4, num_coarseness) where the patches are `of_one_picture`.
    """

    CELL_PX = 8
    WIDTHS = (128, 96, 96)
    WIDTH = 128  # of what thinks about the whole

    dct: Tensor
    to_ycbcr: Tensor

    def __init__(self, num_coarseness: int) -> None:
        super().__init__()
        self.num_coarseness = num_coarseness
        cell = self.CELL_PX**2
        layers: list[nn.Module] = []
        for num_in, num_out, kernel in zip((3 * cell, *self.WIDTHS), self.WIDTHS, (1, 3, 3), strict=False):
            conv = nn.Conv2d(num_in, num_out, kernel, padding=kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(num_out), nn.LeakyReLU(0.1)]
        self.look = nn.Sequential(*layers)
        self.think = self._thinker(self.WIDTHS[-1], 2 * num_coarseness)
        with torch.random.fork_rng(devices=()):  # so that a seed makes the networks that it made before there was this
            self.beneath = self._thinker(sum(self.WIDTHS), 2 * num_coarseness).requires_grad_(False)
        for param in self.beneath.parameters():
            nn.init.zeros_(param)
        self.register_buffer("dct", _dct_basis(self.CELL_PX), persistent=False)
        # ITU-R BT.601, limited range, as `color` has it; without the offsets, which fall out with the mean of a cell.
        rows = [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
        self.register_buffer("to_ycbcr", torch.tensor(rows)[:, :, None, None], persistent=False)

    def _thinker(self, num_in: int, num_out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(2 * num_in, self.WIDTH),
            nn.LeakyReLU(0.1),
            nn.Linear(self.WIDTH, self.WIDTH),
            nn.LeakyReLU(0.1),
            nn.Linear(self.WIDTH, num_out),
        )

    def forward(self, lq: Tensor, of_one_picture: bool = False) -> Tensor:
        """See class."""
        seen = self.seen(lq)
        if of_one_picture:
            seen = seen.mean(0, keepdim=True)
        said = self.think(pooled(self.last(seen))), self.beneath(pooled(seen))
        return torch.cat(said, dim=1).view(-1, 4, self.num_coarseness)

    def seen(self, lq: Tensor) -> Tensor:
        """Mean and mean square over each picture of what its layers see, one after the other, (N, 2, C)."""
        cells = F.pixel_unshuffle(F.conv2d(lq, self.to_ycbcr), self.CELL_PX)
        height, width = cells.shape[-2:]
        cells = cells.reshape(-1, self.CELL_PX**2, height, width)
        coefficients = F.conv2d(cells - cells.mean(1, keepdim=True), self.dct)
        x = torch.log2(coefficients.abs() + 0.5).reshape(-1, 3 * self.CELL_PX**2, height, width)
        found = []
        for layer in self.look:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                found.append(torch.stack((x.mean((2, 3)), x.square().mean((2, 3))), dim=1))
        return torch.cat(found, dim=2)

    @classmethod
    def last(cls, seen: Tensor) -> Tensor:
        """What the last layer sees."""
        return seen[..., -cls.WIDTHS[-1] :]


def pooled(seen: Tensor) -> Tensor:
    """Features of a whole from mean and mean square, (N, 2, C) -> mean and standard deviation, (N, 2C)."""
    mean, mean_square = seen.unbind(1)
    variance = (mean_square - mean.square()).clamp(min=0)
    return torch.cat((mean, (variance + 1e-4).sqrt()), dim=1)


def _dct_basis(size: int) -> Tensor:
    """Orthonormal DCT-II of a block as weights of a 1x1 convolution, (size^2, size^2, 1, 1)."""
    frequency, place = torch.arange(size)[:, None], torch.arange(size)[None]
    rows = torch.cos(math.pi * (2 * place + 1) * frequency / (2 * size)) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows)[:, :, None, None]
