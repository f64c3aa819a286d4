"""Discriminators: the seed's, bound to 128 px, and one for any patch size."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..errors import ShapeError


class VGG128(nn.Module):
    """The seed's discriminator: five pairs of convolutions, the second halving, batch norm, two linear layers.

    Its batch statistics are those of one process, so several processes do not equal one at the same global batch.

    Source: RyanXingQL/SubjectiveQE-ESRGAN, after Simonyan and Zisserman (arXiv:1409.1556) as ESRGAN uses it.

    Shape: (N, 3, 128, 128) in [0, 1] -> logits (N, 1).
    """

    takes_any_size = False

    def __init__(self, num_feat: int = 32) -> None:
        super().__init__()
        self.hparams = {"num_feat": num_feat}
        widths = [num_feat * k for k in (1, 2, 4, 8, 8)]
        for i, (fan_in, fan_out) in enumerate(zip([3, *widths], widths, strict=False)):
            # Attribute names are the seed's, so that its checkpoints load as they are.
            self.add_module(f"conv{i}_0", nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=i == 0))
            if i > 0:
                self.add_module(f"bn{i}_0", nn.BatchNorm2d(fan_out))
            self.add_module(f"conv{i}_1", nn.Conv2d(fan_out, fan_out, 4, stride=2, padding=1, bias=False))
            self.add_module(f"bn{i}_1", nn.BatchNorm2d(fan_out))
        self.linear1 = nn.Linear(widths[-1] * 4 * 4, 128)
        self.linear2 = nn.Linear(128, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See class."""
        if x.shape[-2:] != (128, 128):
            raise ShapeError(f"discriminator vgg128 takes patches of 128 x 128 px, got {x.shape[-1]} x {x.shape[-2]}")
        for i in range(5):
            for j in range(2):
                x = self.get_submodule(f"conv{i}_{j}")(x)
                if (i, j) != (0, 0):
                    x = self.get_submodule(f"bn{i}_{j}")(x)
                x = F.leaky_relu(x, 0.2)
        y: Tensor = self.linear2(F.leaky_relu(self.linear1(torch.flatten(x, 1)), 0.2))
        return y


class PatchDiscriminator(nn.Module):
    """Spectrally normalised convolutions that rate every neighbourhood of about 40 px; no batch statistics.

    Source: Isola et al., "Image-to-image translation", CVPR 2017 (arXiv:1611.07004), sec. 3.2.2; Miyato et al.,
    "Spectral normalization", ICLR 2018 (arXiv:1802.05957).

    Shape: (N, 3, H, W) in [0, 1], H and W from 16 on -> logits (N, 1, about H / 8, about W / 8).
    """

    takes_any_size = True

    def __init__(self, num_feat: int = 32) -> None:
        super().__init__()
        self.hparams = {"num_feat": num_feat}
        widths = [num_feat, 2 * num_feat, 4 * num_feat, 4 * num_feat]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1)]
        layers += [nn.Conv2d(i, o, 4, stride=2, padding=1) for i, o in pairwise(widths)]
        layers += [nn.Conv2d(widths[-1], 1, 3, padding=1)]
        self.convs = nn.ModuleList(spectral_norm(layer) for layer in layers)

    def forward(self, x: Tensor) -> Tensor:
        """See class."""
        *convs, last = self.convs
        for conv in convs:
            x = F.leaky_relu(conv(x), 0.2)
        y: Tensor = last(x)
        return y
