"""Weights of a trained U-Net for one that is larger, or told more, and that does the same at first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..codecs.coarseness import FAMILIES, PARENTS
from .unet import UNet


def grow(trained: nn.Module, net: nn.Module) -> dict[str, Tensor]:
    """The state of a network for another of its kind that has no less of anything, and as many levels.

    Any other is left as it is.

    - Told of a new family of codecs, it does what it did for the one that it was part of (`codecs.coarseness.PARENTS`),
      or does not listen yet; its own estimates of new families are 0.
    - Wider feature maps hold copies of the channels, and who reads them splits its weights among the copies in random
      shares, or they would learn the same for ever. The shares are the same in every call, so that the two ends of a
      dial stay one network.
    - Blocks that are added pass their input on.

    Source: Chen et al., "Net2Net", ICLR 2016 (arXiv:1511.05641).

    Args:
        trained: told of none of the families, or of the first.
        net: gives the sizes, and the fresh weights of its added blocks.
    """
    state: dict[str, Tensor] = dict(trained.state_dict())
    if not (isinstance(trained, UNet) and isinstance(net, UNet)) or trained.stride_px != net.stride_px:
        return state
    if 0 < trained.num_coarseness < net.num_coarseness:
        _tell_more(state, trained.num_coarseness, net.num_coarseness)
    generator = torch.Generator().manual_seed(0)
    for name, fresh in net.state_dict().items():
        if name not in state:
            if name.startswith(("down_blocks.", "middle.", "up_blocks.")):
                state[name] = torch.zeros_like(fresh) if ".conv2." in name else fresh.clone()
        elif state[name].dim() and all(n >= o for n, o in zip(fresh.shape, state[name].shape, strict=True)):
            groups = [*zip(trained.tell.widths, net.tell.widths, strict=True)] if name.startswith("tell.say.") else None
            state[name] = _widen(state[name], fresh.shape, groups, generator)
    return state


def _widen(
    weight: Tensor, shape: torch.Size, groups: list[tuple[int, int]] | None, generator: torch.Generator
) -> Tensor:
    """A weight or bias for more channels.

    Args:
        weight: (out, ...) or (out, in, ...).
        shape: the one to give it.
        groups: old and new numbers of output channels that belong together; all of them where not given.
        generator: draws the shares.
    """
    rows, first = [], 0
    for old, new in groups or [(weight.shape[0], shape[0])]:
        rows.append(first + torch.arange(new) % old)
        first += old
    weight = weight[torch.cat(rows)]
    if weight.dim() > 1 and weight.shape[1] < shape[1]:
        columns = torch.arange(shape[1]) % weight.shape[1]
        shares = 0.5 + torch.rand(shape[:2], generator=generator)
        total = torch.zeros(weight.shape[:2]).index_add_(1, columns, shares)
        split = (shares / total[:, columns]).view(*shape[:2], *(1 for _ in shape[2:]))
        weight = weight[:, columns] * split
    return weight


_NEVER = -20.0
"""Log of the odds that a family lies beneath a fine JPEG which the network has not been taught."""


def _tell_more(state: dict[str, Tensor], few: int, many: int) -> None:
    """Makes the weights of a network that is told `few` numbers, in place, those of one that is told `many`."""
    ears = state["tell.think.weight"]
    new = [ears[:, FAMILIES.index(PARENTS[name])] if name in PARENTS else 0 * ears[:, 0] for name in FAMILIES[few:many]]
    state["tell.think.weight"] = torch.cat((ears, torch.stack(new, dim=1)), dim=1)
    for head in ("think", "beneath"):  # two numbers of each
        for name in (f"estimator.{head}.4.weight", f"estimator.{head}.4.bias"):
            known = state[name].view(2, few, *state[name].shape[1:])
            more = known.new_zeros(2, many - few, *known.shape[2:])
            if name == "estimator.beneath.4.bias":
                more[1] = _NEVER
            state[name] = torch.cat((known, more), dim=1).flatten(0, 1)
