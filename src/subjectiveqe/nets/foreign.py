"""Checkpoints of other projects: the seed's, and RRDB generators under the names that are in use for them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError

_SEED_LICENCE = (
    "Apache-2.0 (RyanXingQL/SubjectiveQE-ESRGAN; its README once said non-commercial); "
    "cite SubjectiveQE-ESRGAN and ESRGAN"
)
_COMMUNITY_LICENCE = "unknown: ask whoever published the checkpoint"

_TOP = {
    "conv_in": "conv_in",  # the seed
    "conv_mid": "conv_mid",
    "conv_out": "conv_out",
    "conv_first": "conv_in",  # BasicSR, and all that goes by it
    "conv_body": "conv_mid",
    "conv_up1": "conv_up.0",
    "conv_up2": "conv_up.1",
    "conv_hr": "conv_hr",
    "conv_last": "conv_out",
    "trunk_conv": "conv_mid",  # ESRGAN's second names
    "upconv1": "conv_up.0",
    "upconv2": "conv_up.1",
    "HRconv": "conv_hr",
    "model.0": "conv_in",  # its first ones, by which most restorers of the community are called
}
_DENSE = re.compile(
    r"(?:rrdb_lst|body|RRDB_trunk|model\.1\.sub)\.(\d+)\.(?:rdb|RDB)([123])\.conv([1-5])(?:\.0)?\.(weight|bias)"
)
_MIDDLE, _LAST = re.compile(r"model\.1\.sub\.(\d+)"), re.compile(r"model\.(\d+)")
"""Of ESRGAN's first names, which count layers: the one behind the blocks, and those at the end."""


def read_foreign(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` or `.pth` file, by their own names; nothing in the file is run.

    Raises:
        ModelError: it is none, or holds other things.
    """
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


def adopt(path: Path, foreign: Mapping[str, Tensor], file_format: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Renames an RRDB generator's tensors to ours, and reads its sizes off their shapes.

    Args:
        path: of the checkpoint, for messages.
        foreign: tensors by their names there.
        file_format: what the header says of its own.
    Returns:
        Tensors for a network here, and the header that names it.
    Raises:
        ModelError: it is another network, or one that changes the size of pictures.
    """
    names = _TOP | _counted_layers(foreign)
    state = {}
    for key, value in foreign.items():
        top, _, leaf = key.rpartition(".")
        if dense := _DENSE.fullmatch(key):
            block, rdb, conv, leaf = dense.groups()
            state[f"body.{block}.blocks.{int(rdb) - 1}.convs.{int(conv) - 1}.{leaf}"] = value
        elif top in names:
            state[f"{names[top]}.{leaf}"] = value
        else:
            raise ModelError(f'{path}: tensor "{key}" belongs to no generator known here; known are RRDB networks')
    try:
        num_feat, num_in = state["conv_in.weight"].shape[:2]
        num_grow = state["body.0.blocks.0.convs.0.weight"].shape[0]
    except KeyError as error:
        raise ModelError(f"{path}: not an RRDB generator, tensor {error} is missing") from None
    except (IndexError, ValueError):
        raise ModelError(f"{path}: not an RRDB generator, its convolutions are single numbers") from None
    num_block = len({key.split(".")[1] for key in state if key.startswith("body.")})
    hparams = {"num_feat": num_feat, "num_block": num_block, "num_grow": num_grow}
    if not num_in or num_in % 3:
        raise ModelError(f"{path}: takes pictures of {num_in} channels, expected RGB")
    steps, folded = sum(key.startswith("conv_up.") for key in state if key.endswith(".weight")), num_in // 3
    if 4**steps != folded:
        times = f"{2**steps / folded**0.5:g} times as large"
        raise ModelError(f"{path}: makes pictures {times}; only networks that keep the size can be loaded")
    is_esrgan = "conv_hr.weight" in state
    if is_esrgan:
        hparams["unshuffle"] = 2**steps
    from_seed = any(key.startswith("rrdb_lst.") for key in foreign)
    return state, {
        "format": file_format,
        "net": "esrgan" if is_esrgan else "rrdb",
        "hparams": json.dumps(hparams),
        "source": path.name,
        "licence": _SEED_LICENCE if from_seed else _COMMUNITY_LICENCE,
    }


def _counted_layers(foreign: Mapping[str, Tensor]) -> dict[str, str]:
    """Our names of layers that ESRGAN's first names only count: the last two, and before them those that enlarge."""
    tops = {key.rpartition(".")[0] for key in foreign}
    last = sorted(int(found[1]) for top in tops if (found := _LAST.fullmatch(top)) and int(found[1]) > 0)
    ours = [*(f"conv_up.{step}" for step in range(len(last) - 2)), "conv_hr", "conv_out"]
    counted = {f"model.{number}": name for number, name in zip(reversed(last), reversed(ours), strict=False)}
    return counted | {top: "conv_mid" for top in tops if _MIDDLE.fullmatch(top)}
