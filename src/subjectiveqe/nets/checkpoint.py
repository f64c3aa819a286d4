"""Files of weights: self-describing safetensors of ours, and checkpoints of the seed and of the ESRGAN community."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import ConfigError, ModelError
from ..files import atomic_path, refuse_input
from . import NETS
from .grow import grow

FORMAT = "subjectiveqe-net-1"

SEED_LICENCE = (
    "Apache-2.0 (RyanXingQL/SubjectiveQE-ESRGAN; its README once said non-commercial); "
    "cite SubjectiveQE-ESRGAN and ESRGAN"
)
COMMUNITY_LICENCE = "unknown: ask whoever published the checkpoint"

_ADDED = "estimator.beneath."
"""What older checkpoints of ours lack, or have in other shapes, and a network has by itself."""

# Three spellings of one generator -> ours. The seed's own names come first, then BasicSR's, then the first ESRGAN's.
_TOP = {
    "conv_in": "conv_in",
    "conv_mid": "conv_mid",
    "conv_out": "conv_out",
    "conv_first": "conv_in",
    "conv_body": "conv_mid",
    "trunk_conv": "conv_mid",
    "conv_last": "conv_out",
}
_DENSE = re.compile(r"(?:rrdb_lst|body|RRDB_trunk)\.(\d+)\.(?:rdb|RDB)([123])\.conv([1-5])\.(weight|bias)")
_UPSAMPLING = re.compile(r"(conv_up|upconv)")
_EXTRA = re.compile(r"(conv_hr|HRconv)")  # comes after them, and in networks that keep the size as well


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
    """Reads a network from any checkpoint known here: ours, the seed's `.pt`, the community's RRDB `.pth`.

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
        state, metadata = _adopt(path, _read_foreign(path))
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


def _read_foreign(path: Path) -> dict[str, Tensor]:
    if path.suffix.lower() not in (".pt", ".pth"):
        raise ModelError(f"{path}: expected a checkpoint, .safetensors, .pt or .pth; ONNX files only run")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises all kinds for damaged files
        reason = type(error).__name__  # torch's text explains how to read unsafe files
        raise ModelError(f"{path}: not a PyTorch checkpoint of plain tensors ({reason})") from None
    for key in ("state_dict_g", "state_dict", "params_ema", "params"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"{path}: expected a state dict of tensors, found {type(content).__name__} of other things")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _adopt(path: Path, foreign: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Renames a foreign RRDB generator's tensors and reads its sizes off their shapes."""
    up = next((key for key in foreign if _UPSAMPLING.match(key)), None)
    if up is not None:
        raise ModelError(f'{path}: has upsampling layers ("{up}"); only networks that keep the size can be loaded')
    extra = next((key for key in foreign if _EXTRA.match(key)), None)
    if extra is not None:
        raise ModelError(f'{path}: has a layer that RRDB networks here lack ("{extra}"); it cannot be loaded')
    state = {}
    for key, value in foreign.items():
        top, _, leaf = key.rpartition(".")
        dense = _DENSE.fullmatch(key)
        if dense:
            block, rdb, conv, leaf = dense.groups()
            state[f"body.{block}.blocks.{int(rdb) - 1}.convs.{int(conv) - 1}.{leaf}"] = value
        elif top in _TOP:
            state[f"{_TOP[top]}.{leaf}"] = value
        else:
            raise ModelError(f'{path}: tensor "{key}" belongs to no generator known here; known are RRDB networks')
    try:
        num_feat = state["conv_in.weight"].shape[0]
        num_grow = state["body.0.blocks.0.convs.0.weight"].shape[0]
    except KeyError as error:
        raise ModelError(f"{path}: not an RRDB generator, tensor {error} is missing") from None
    except IndexError:
        raise ModelError(f"{path}: not an RRDB generator, its convolutions are single numbers") from None
    num_block = len({key.split(".")[1] for key in state if key.startswith("body.")})
    from_seed = any(key.startswith("rrdb_lst.") for key in foreign)
    metadata = {
        "format": FORMAT,
        "net": "rrdb",
        "hparams": json.dumps({"num_feat": num_feat, "num_block": num_block, "num_grow": num_grow}),
        "source": path.name,
        "licence": SEED_LICENCE if from_seed else COMMUNITY_LICENCE,
    }
    return state, metadata
