"""Perceptual training losses: distances between features of networks that were trained to see.

`metrics.lpips` judges; what is here teaches. The two share AlexNet's weights and must not share their habits: AlexNet's
first layer steps by 4 px, so a network taught by it at a fixed phase learns a 4-px grid that only that phase rewards.
Here it only ever sees randomly shifted, flipped and rescaled copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from . import weights
from .errors import unknown
from .losses import charbonnier

Source: TypeAlias = Literal["pretrained", "random"]
"""Weights as `sqe weights` keeps them, or drawn from a seed, for tests."""

MAX_SHIFT_PX = 7
"""Covers the strides of AlexNet (4) and of the networks (8)."""

SMALLEST_PATCH_PX = {"vgg19": 16, "vgg16": 4, "lpips-vgg": 16, "lpips-alex-randomised": 51}
"""Of each loss: what is left of it after its poolings is a pixel or more. VGG halves; AlexNet's second pooling needs 31
px of a view, which may be scaled to 0.75 and lose MAX_SHIFT_PX."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class View(NamedTuple):
    """One way of looking at a picture: scaled, moved by whole pixels, mirrored."""

    scale: float
    top_px: int
    left_px: int
    flips: tuple[int, ...]
    max_shift_px: int = MAX_SHIFT_PX

    def __call__(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, about scale * H - max_shift_px, ...): every side is cropped now and then."""
        if self.scale != 1:
            x = F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        bottom, right = (
            side - self.max_shift_px + first
            for side, first in zip(x.shape[-2:], (self.top_px, self.left_px), strict=True)
        )
        return x[..., self.top_px : bottom, self.left_px : right].flip(self.flips)


PLAIN_VIEW = View(1.0, 0, 0, (), max_shift_px=0)
"""The picture as it is."""


def draw_view(generator: torch.Generator, share_rescaled: float = 0.6) -> View:
    """Draws a shift of 0..7 px, flips, and in a share of the draws a scale in 0.75..1.5.

    Source: Kettunen et al., "E-LPIPS", 2019 (arXiv:1906.03973), sec. 4; a subset of its transformations.
    """
    chance, place, *flips = torch.rand(4, generator=generator).tolist()
    top_px, left_px = torch.randint(MAX_SHIFT_PX + 1, (2,), generator=generator).tolist()
    scale = 0.75 + 0.75 * place if chance < share_rescaled else 1.0
    return View(scale, top_px, left_px, tuple(dim for dim, flip in zip((2, 3), flips, strict=True) if flip < 0.5))


class VGG(nn.Module):
    """Convolutions of VGG16 or VGG19 without batch norm, up to the deepest layer asked for.

    Source: Simonyan and Zisserman, ICLR 2015 (arXiv:1409.1556), configurations D and E.

    Args:
        depth: 16 or 19.
        taps: layers to give, e.g. "relu1_2" or "conv5_4" (before its ReLU).
    Shape: (N, 3, H, W), normalised as the weights want it -> one map per tap.
    """

    WIDTHS = (64, 128, 256, 512, 512)
    COUNTS: ClassVar = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

    def __init__(self, depth: Literal[16, 19], taps: tuple[str, ...]) -> None:
        super().__init__()
        self.taps = taps
        self.convs = nn.ModuleDict()
        fan_in = 3
        for stage, (width, count) in enumerate(zip(self.WIDTHS, self.COUNTS[depth], strict=True), start=1):
            for place in range(1, count + 1):
                self.convs[f"conv{stage}_{place}"] = nn.Conv2d(fan_in, width, 3, padding=1)
                fan_in = width
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """See class."""
        found: dict[str, Tensor] = {}
        for name, conv in self.convs.items():
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, 2)
            found[name] = x = conv(x)
            x = F.relu(x)
            found[f"relu{name[4:]}"] = x
            if all(tap in found for tap in self.taps):
                break
        return [found[tap] for tap in self.taps]


class AlexNet(nn.Module):
    """The five convolutions of torchvision's AlexNet. Shape: (N, 3, H, W), normalised -> five maps after their ReLUs.

    Source: Krizhevsky, "One weird trick" (arXiv:1404.5997).
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
        self.convs = nn.ModuleDict(
            {f"conv{i}": nn.Conv2d(c, o, k, stride=s, padding=p) for i, (c, o, k, s, p) in enumerate(sizes, start=1)}
        )
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """See class."""
        found = []
        for name, conv in self.convs.items():
            if name in ("conv2", "conv3"):
                x = F.max_pool2d(x, 3, stride=2)
            x = F.relu(conv(x))
            found.append(x)
        return found


class FeatureLoss(nn.Module):
    """Charbonnier on feature maps of ImageNet-normalised pictures, summed over the taps.

    Source: Johnson et al., ECCV 2016 (arXiv:1603.08155); the seed uses VGG19 conv5_4 before its ReLU.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: VGG) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, out: Tensor, gt: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """See class; the generator is there for the losses that draw views."""
        seen_out, seen_gt = (self.net((x - self.mean) / self.std) for x in (out, gt))
        return torch.stack([charbonnier(a.float(), b.float()) for a, b in zip(seen_out, seen_gt, strict=True)]).sum(0)


class LPIPSLoss(nn.Module):
    """LPIPS v0.1 in PyTorch, with gradients; `randomised` looks at a fresh view of the pair every time.

    Source: Zhang et al., CVPR 2018 (arXiv:1801.03924); views after E-LPIPS, see `draw_view`.

    Args:
        net: gives the feature maps.
        heads: one non-negative weight per channel and map, each (C,).
        randomised: needed whenever the result is also judged by the same network.
    """

    # LPIPS normalises pictures in [-1, 1] by these; the constants are the published ones.
    SHIFT = (-0.030, -0.088, -0.188)
    SCALE = (0.458, 0.448, 0.450)

    shift: Tensor
    scale: Tensor

    def __init__(self, net: nn.Module, heads: list[Tensor], randomised: bool) -> None:
        super().__init__()
        self.net, self.randomised = net, randomised
        self.heads = nn.ParameterList(nn.Parameter(head, requires_grad=False) for head in heads)
        self.register_buffer("shift", torch.tensor(self.SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(self.SCALE).view(1, 3, 1, 1))

    def forward(self, out: Tensor, gt: Tensor, generator: torch.Generator) -> Tensor:
        """See class."""
        look = draw_view(generator) if self.randomised else PLAIN_VIEW
        with torch.no_grad():  # the original's half of the way back would cost as much as the output's
            seen_gt = self._features(look(gt))
        distance = out.new_zeros(len(out), dtype=torch.float32)
        for unit_out, unit_gt, head in zip(self._features(look(out)), seen_gt, self.heads, strict=True):
            distance = distance + ((unit_out - unit_gt).square() * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return distance

    def _features(self, x: Tensor) -> list[Tensor]:
        """Maps of a picture in [0, 1], each pixel's channels scaled to unit length."""
        # A sum over hundreds of channels: bfloat16 would lose the small differences.
        seen = [features.float() for features in self.net((2 * x - 1 - self.shift) / self.scale)]
        return [features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10) for features in seen]


def make_perceptual(kind: str, source: Source, seed: int) -> nn.Module:
    """Builds a perceptual loss by its name in a recipe.

    Args:
        kind: "vgg19" (the seed's conv5_4), "vgg16" (relu1_2, relu2_2, relu3_3), "lpips-vgg", "lpips-alex-randomised".
        source: see `Source`.
        seed: draws the random weights.
    Returns:
        (out, gt, generator) -> (N,); out and gt float32 (N, 3, H, W) in [0, 1]. The generator drives random views.
    Raises:
        ConfigError: an unknown name.
        WeightsError: the weights are not on this machine, or are not all of the network's.
    """
    if kind not in PERCEPTUAL:
        raise unknown("perceptual loss", kind, PERCEPTUAL)
    return PERCEPTUAL[kind](source, seed).eval()


def _fill(net: VGG | AlexNet, name: str, source: Source, seed: int) -> None:
    """Puts weights into a network's convolutions, in their order."""
    if source == "random":
        generator = torch.Generator().manual_seed(seed)
        for param in net.parameters():
            fan_in = param[0].numel()
            param.data.normal_(0, (2 / fan_in) ** 0.5 if param.dim() > 1 else 0.0, generator=generator)
        return
    arrays = _arrays(name)
    prefixes = [key.removesuffix(".weight") for key in arrays if key.endswith(".weight") and arrays[key].shape[-1] > 1]
    found = [prefix for prefix in sorted(prefixes, key=_number) if f"{prefix}.bias" in arrays]
    if len(found) != len(net.convs):  # layers that nobody fills would be random, and nothing would show it
        raise weights.unusable(name, f"holds {len(found)} convolutions, expected {len(net.convs)}")
    for conv, prefix in zip(net.convs.values(), found, strict=True):
        assert isinstance(conv, nn.Conv2d)
        if arrays[f"{prefix}.weight"].shape != conv.weight.shape:
            raise weights.unusable(name, f"{prefix} is of another network")
        conv.weight.data.copy_(torch.from_numpy(arrays[f"{prefix}.weight"]))
        assert conv.bias is not None
        conv.bias.data.copy_(torch.from_numpy(arrays[f"{prefix}.bias"]))


def _heads(name: str, source: Source, widths: tuple[int, ...]) -> list[Tensor]:
    """LPIPS's weight per channel of each map; equal ones for random networks."""
    if source == "random":
        return [torch.full((width,), 1 / width) for width in widths]
    arrays = _arrays(name)
    found = [array.reshape(-1) for i in range(len(widths)) if (array := arrays.get(f"lin{i}.weight")) is not None]
    if tuple(map(len, found)) != widths:
        raise weights.unusable(name, f"holds weights of {[*map(len, found)]} channels, expected {[*widths]}")
    return [torch.from_numpy(array) for array in found]


def _arrays(name: str) -> weights.Arrays:
    if name != "lpips-alex":
        return weights.read_arrays(name)
    graph = onnx.load(weights.locate(name)).graph
    named = [tensor for tensor in graph.initializer if tensor.name.endswith(("weight", "bias"))]
    return {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in named}


def _number(prefix: str) -> int:
    """features.10 -> 10, conv2 -> 2."""
    return int("".join(filter(str.isdigit, prefix)))


def _vgg19(source: Source, seed: int) -> nn.Module:
    net = VGG(19, ("conv5_4",))
    _fill(net, "vgg19", source, seed)
    return FeatureLoss(net)


def _vgg16(source: Source, seed: int) -> nn.Module:
    net = VGG(16, ("relu1_2", "relu2_2", "relu3_3"))
    _fill(net, "vgg16", source, seed)
    return FeatureLoss(net)


def _lpips_vgg(source: Source, seed: int) -> nn.Module:
    net = VGG(16, ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"))
    _fill(net, "vgg16", source, seed)
    return LPIPSLoss(net, _heads("lpips-vgg", source, VGG.WIDTHS), randomised=False)


def _lpips_alex(source: Source, seed: int) -> nn.Module:
    net = AlexNet()
    _fill(net, "lpips-alex", source, seed)
    return LPIPSLoss(net, _heads("lpips-alex", source, (64, 192, 384, 256, 256)), randomised=True)


PERCEPTUAL: dict[str, Callable[[Source, int], nn.Module]] = {
    "vgg19": _vgg19,
    "vgg16": _vgg16,
    "lpips-vgg": _lpips_vgg,
    "lpips-alex-randomised": _lpips_alex,
}
