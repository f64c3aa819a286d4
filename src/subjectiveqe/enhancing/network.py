"""A loaded network, and what files of ONNX say of theirs, whatever engine runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codecs.coarseness import TOLD_LESS, Less, read_less, told
from ..dial import TRAINED_AT
from ..errors import ConfigError, ModelError, first_line

Floats = NDArray[np.float32]

DEFAULT_BYTES_PX = 2048
"""Working memory per pixel of a tile where the file does not say: what the seed's network takes in PyTorch."""


@dataclass(frozen=True, eq=False)
class Network:
    """A loaded network and what tiling has to know of it.

    Attributes:
        run: (float32 (N, 3, H, W) in [0, 1], coarseness float32 (K,)) -> float32 of the same shape as the first, not
            clamped; several threads may call it at a time.
        estimate: float32 (M, 3, H, W), patches of a picture -> float32 (1, 4, K), see `nets.estimator.Estimator`;
            files of earlier versions say less of what lies beneath a fine JPEG, (1, 3, K), or nothing, (1, 2, K); the
            oldest answer for each patch, (M, 2, K). None for a network that is not told the coarseness.
        reach_px: input pixels farther than this from an output pixel change it by less than can be seen in 8 bits.
        num_coarseness: of how many families it is told the coarseness, K; 0 where `estimate` is None.
        stride_px: shifts by multiples of this shift the output alike.
        bytes_px: working memory per pixel of a tile.
        metadata: what the file says of itself.
    """

    run: Callable[[Floats, Floats | None], Floats]
    estimate: Callable[[Floats], Floats] | None
    num_coarseness: int
    reach_px: int
    stride_px: int
    bytes_px: int
    metadata: Mapping[str, str]


def unreadable(path: Path, error: Exception) -> ModelError:
    """What an engine's refusal of an ONNX file is to people."""
    return ModelError(f"{path}: not a readable ONNX model ({first_line(error)})")


def network_of_onnx(
    path: Path,
    compute: Callable[[str, dict[str, Floats]], Floats],
    strength: float,
    inputs: Mapping[str, Sequence[Any]],
    outputs: list[str],
    metadata: Mapping[str, str],
) -> Network:
    """What the engines for ONNX files share; `compute` gives one output of the network for all its inputs."""
    _check_kind(path, inputs, outputs, metadata)
    place = place_of_dial(path, metadata, strength)
    less = told_less(path, metadata)

    def run(lq: Floats, coarseness: Floats | None) -> Floats:
        feeds = {"lq": lq}
        if "strength" in inputs:
            feeds["strength"] = np.full(len(lq), place, np.float32)
        if "coarseness" in inputs:
            assert coarseness is not None
            feeds |= {"coarseness": np.tile(told(coarseness, less, place), (len(lq), 1)), "patches": _NOTHING}
        return compute("out", feeds)

    def estimate(patches: Floats) -> Floats:
        rest = {
            name: np.zeros((1, *shape[1:]), np.float32)
            for name, shape in inputs.items()
            if name in ("strength", "coarseness")
        }
        return compute("estimate", {"lq": _NOTHING, "patches": patches, **rest})

    families = inputs["coarseness"][1] if "coarseness" in inputs else 0
    stride_px = int(metadata["stride_px"])
    if stride_px < 1:
        raise ModelError(f"{path}: the metadata say stride_px {stride_px}, expected 1 or more")
    bytes_px = metadata.get("bytes_px", "")
    return Network(
        run,
        estimate if "patches" in inputs else None,
        families if isinstance(families, int) else 0,  # in a file of others' making it may be a name
        int(reach_px) if (reach_px := metadata.get("reach_px", "")).isdecimal() else int(metadata["receptive_px"]),
        stride_px,
        int(bytes_px) if bytes_px.isdecimal() else DEFAULT_BYTES_PX,
        metadata,
    )


_NOTHING = np.zeros((1, 3, 1, 1), np.float32)
"""For the half of a network whose output is not wanted; an engine computes both."""


def _check_kind(
    path: Path, inputs: Mapping[str, Sequence[Any]], outputs: list[str], metadata: Mapping[str, str]
) -> None:
    kinds = (
        ({"lq": 4}, ["out"]),
        ({"lq": 4, "strength": 1}, ["out"]),
        ({"lq": 4, "coarseness": 2, "patches": 4}, ["out", "estimate"]),
        ({"lq": 4, "strength": 1, "coarseness": 2, "patches": 4}, ["out", "estimate"]),
    )
    if ({name: len(shape) for name, shape in inputs.items()}, outputs) not in kinds:
        found = f"inputs {', '.join(inputs)} and outputs {', '.join(outputs)}"
        raise ModelError(
            f"{path}: another kind of model: expected inputs lq, strength and output out, found {found}; "
            'export the checkpoint by "sqe export"'
        )
    missing = [key for key in ("receptive_px", "stride_px") if not metadata.get(key, "").isdecimal()]
    if missing:
        raise ModelError(f'{path}: the metadata lack {" and ".join(missing)}; export the checkpoint by "sqe export"')


def place_of_dial(path: Path, metadata: Mapping[str, str], strength: float) -> float:
    """Where the dial is for the network's own input: where it was trained, if that was at one place."""
    try:
        return float(metadata.get(TRAINED_AT, strength))
    except ValueError:
        raise ModelError(f"{path}: the metadata say {TRAINED_AT} {metadata[TRAINED_AT]}, expected a number") from None


def told_less(path: Path, metadata: Mapping[str, str]) -> Less:
    """How much less than the truth to tell the network, by what its file says; nothing where it does not."""
    try:
        return read_less(metadata.get(TOLD_LESS, "").split())
    except ConfigError:
        raise ModelError(
            f"{path}: the metadata say {TOLD_LESS} {metadata[TOLD_LESS]}, expected points family:coarseness:less"
        ) from None
