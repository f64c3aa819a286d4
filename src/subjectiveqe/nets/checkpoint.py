"""Files of weights: self-describing safetensors of ours, and what `foreign.py` makes of those of others."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from ..errors import ConfigError, ModelError
from ..files import atomic_path, refuse_input
from . import NETS
from .foreign import adopt, read_foreign
from .grow import grow

FORMAT = "subjectiveqe-net-1"

_ADDED = "estimator.beneath."
"""What older checkpoints of ours lack, or have in other shapes, and a network has by itself."""


def save_net(path: Path, net: nn.Module, metadata: Mapping[str, str] = {}, half: bool = False) -> None:
    """Writes weights with a header that says which network they are.

    Args:
        path: a `.safetensors` file; it appears only when complete.
        net: a network of `NETS`.
        metadata: what else to say: training data, licence, recipe hash, steps.
        half: store float16, half the size; it is read back as float32.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    # Written by Python: the library's own writing leaves a file that others may not read, and tracebacks on full disks.
    with atomic_path(path) as aside:
        aside.write_bytes(_in_order(safetensors.torch.save(state, metadata={**metadata, **describe(net)})))


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata in order, which the library leaves to chance: equal weights, equal files."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # as tensors are aligned
    return len(text).to_bytes(8, "little") + text + content[end:]


def describe(net: nn.Module) -> dict[str, str]:
    """The header every model file of ours carries, safetensors and ONNX alike; all values are strings.

    Returns:
        format, net (a name of `NETS`), hparams (JSON), receptive_px and stride_px (see `UNet`).
    """
    name = next(name for name, kind in NETS.items() if type(net) is kind)
    return {
        "format": FORMAT,
        "net": name,
        "hparams": json.dumps(net.hparams),
        "receptive_px": str(net.receptive_px),
        "stride_px": str(net.stride_px),
    }


def load_net(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """Reads a network from any checkpoint known here: ours, the seed's `.pt`, other projects' RRDB `.pth`.

    Foreign files go through `torch.load(weights_only=True)`, so they cannot run code.

    Returns:
        The network in evaluation mode, float32, and the file's header; converted files say source and licence there.
    Raises:
        ModelError: the file is missing, damaged or holds another network.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint")
    if path.suffix.lower() == ".safetensors":
        state, metadata = read_safetensors(path)
        net = build(path, metadata)
    else:
        state, metadata = adopt(path, read_foreign(path), FORMAT)
        net = build(path, metadata)
    untaught = {key: value for key, value in net.state_dict().items() if key.startswith(_ADDED)}
    if any(value.shape != state[key].shape for key, value in untaught.items() if key in state):
        state = {key: value for key, value in state.items() if key not in untaught}
    try:
        net.load_state_dict(untaught | {key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise ModelError(f'{path}: not the weights of net "{metadata["net"]}" ({lines[-1].strip()})') from None
    return net.eval(), metadata


def average_nets(paths: Sequence[Path], out: Path, half: bool = False, shares: Sequence[float] | None = None) -> None:
    """Writes the mean of several weights of one network; where they lie in one valley it is better than each of them.

    Shares below 0 take away: 1, 1, -1 of new weights, tuned old ones and old ones is the new weights, tuned as the old.
    Smaller networks are grown to the size of the largest before (`grow`).

    Source: Wortsman et al., "Model soups", ICML 2022 (arXiv:2203.05482); for shares below 0 Ilharco et al., "Editing
    models with task arithmetic", ICLR 2023 (arXiv:2212.04089).

    Args:
        paths: two or more checkpoints of one kind of network, trained from the same weights.
        out: a `.safetensors` file; its header is that of the last checkpoint but for what was measured on that, and
            "averaged" says how much of each is in it.
        half: see `save_net`.
        shares: how much each counts, 1 in all; equal ones if None.
    Raises:
        ConfigError: fewer than two checkpoints, an output that is not named .safetensors or is one of them, or shares
            that do not go with them.
        ModelError: a file that is none, or networks that differ.
    """
    if out.suffix != ".safetensors":
        raise ConfigError(f'{out}: expected the name of a .safetensors file; name it "{out.stem}.safetensors"')
    if len(paths) < 2:
        raise ConfigError(f"expected two checkpoints or more to average, got {len(paths)}")
    shares = shares or [1 / len(paths)] * len(paths)
    if len(shares) != len(paths) or not math.isclose(sum(shares), 1):
        counted = ", ".join(f"{share:g}" for share in shares)
        raise ConfigError(f"expected {len(paths)} shares that make 1, one for each checkpoint, got {counted}")
    refuse_input(out, paths)
    nets, headers = zip(*map(load_net, paths), strict=True)
    net = max(nets, key=lambda other: sum(param.numel() for param in other.parameters()))
    states, wanted = [grow(other, net) for other in nets], net.state_dict()
    shapes = {key: value.shape for key, value in wanted.items()}
    for path, other, state in zip(paths, nets, states, strict=True):
        if type(other) is not type(net) or {key: value.shape for key, value in state.items()} != shapes:
            raise ModelError(f"{path}: holds another network than {paths[nets.index(net)]}")
    mean = {
        key: sum(share * state[key] for share, state in zip(shares, states, strict=True))
        if value.is_floating_point()
        else value
        for key, value in wanted.items()
    }
    net.load_state_dict(mean)
    measured = ("valid_psnr_db", "valid_lpips")  # of one of them, not of their mean
    header = {key: value for key, value in headers[-1].items() if key not in measured}
    save_net(out, net, {**header, "averaged": ", ".join(f"{share:.3g}" for share in shares)}, half)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of one of our files; ModelError where it is damaged or of another format."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping, only keys()
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a complete safetensors file ({error}); fetch or train it again") from None
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none")
        raise ModelError(f'{path}: expected a header with format "{FORMAT}", found "{found}"')
    return state, metadata


def build(path: Path, metadata: Mapping[str, str]) -> nn.Module:
    """The untrained network that a header names."""
    kind = NETS.get(metadata.get("net", ""))
    if kind is None:
        raise ModelError(f'{path}: holds net "{metadata.get("net")}", known are {", ".join(NETS)}')
    try:
        return kind(**json.loads(metadata["hparams"]))
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        raise ModelError(f'{path}: header does not describe a "{metadata["net"]}" ({error})') from None
