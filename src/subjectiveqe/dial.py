"""The dial `strength` in an ONNX file: the weights of two networks, mixed when the file is loaded.

The two ends of the dial are one network trained twice, the second time from the weights of the first. Weights between
theirs make networks between them (Wang et al., "Deep network interpolation", CVPR 2019, arXiv:1811.10515), and since
they are mixed once, any place of the dial costs as little as an end.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .errors import ConfigError, ModelError

if TYPE_CHECKING:
    import onnx

DIAL = "strength"
DEFAULT_STRENGTH = 1.0
"""Of 0, most faithful, to 1, most pleasing: mean DISTS on validation pictures is lowest there."""

TRAINED_AT = "trained_at"
"""Key of a model's header: the one place of the dial that it was trained at, and is run at whatever is asked for."""

_MARK = b"B\x08strengthJ\x04"
"""Name and data of the constant as ONNX files, which are protocol buffers, hold them: tag, length, content, each."""

_SET_FOR_GOOD = b"\n\x0a" + TRAINED_AT.encode() + b"\x12"
"""The same of the header's key: its tag, length and content, and the tag of its value."""


def check_strength(strength: float) -> None:
    """Raises ConfigError for a place that the dial does not have; not a number is none."""
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength {strength} is out of range, expected 0 (faithful) to 1 (pleasing)")


def turn(model: bytes, strength: float) -> bytes:
    """Sets the dial of an ONNX file; one without a dial, or with one that was set for good, is given back as it is.

    Args:
        model: content of the file.
        strength: 0..1.
    Raises:
        ModelError: the file holds what looks like several dials.
    """
    if _SET_FOR_GOOD in model:
        return model
    before, mark, rest = model.partition(_MARK)
    if _MARK in rest:
        raise ModelError(f"the model has more than one constant named {DIAL}")
    return before + mark + struct.pack("<f", strength) + rest[4:] if mark else model


def join(faithful: onnx.ModelProto, pleasing: onnx.ModelProto) -> None:
    """Makes `pleasing` a model with a dial: a constant that is 1 until `turn` changes it, in place of the input.

    Args:
        faithful: what it becomes at strength 0; the same graph with other weights.
        pleasing: what it is at strength 1; changed in place.
    Raises:
        ModelError: the graphs differ in more than the values of weights.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    graph = pleasing.graph
    others = {weight.name: numpy_helper.to_array(weight) for weight in faithful.graph.initializer}
    own = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    if faithful.graph.node != graph.node or {n: w.shape for n, w in others.items()} != {
        n: w.shape for n, w in own.items()
    }:
        raise ModelError("the two ends of the dial are not the same network")
    nodes = [helper.make_node("Sub", [f"{DIAL}.one", DIAL], [f"{DIAL}.rest"])]
    constants = {DIAL: np.ones(1, np.float32), f"{DIAL}.one": np.ones(1, np.float32)}
    if any(value.name == DIAL for value in graph.input):  # the network may look at the dial too, one value a picture
        kept = [value for value in graph.input if value.name != DIAL]
        del graph.input[:]
        graph.input.extend(kept)
        for node in graph.node:
            node.input[:] = [f"{DIAL}.each" if name == DIAL else name for name in node.input]
        nodes += [
            helper.make_node("Shape", ["lq"], [f"{DIAL}.batch"], start=0, end=1),
            helper.make_node("Expand", [DIAL, f"{DIAL}.batch"], [f"{DIAL}.each"]),
        ]
    weights = []
    for weight in graph.initializer:
        name = weight.name
        if np.array_equal(others[name], own[name]):
            weights.append(weight)
            continue
        ends = {"faithful": (others[name], f"{DIAL}.rest"), "pleasing": (own[name], DIAL)}
        for end, (values, share) in ends.items():
            weights.append(numpy_helper.from_array(values, f"{name}.{end}"))
            nodes.append(helper.make_node("Mul", [f"{name}.{end}", share], [f"{name}.{end}.part"]))
        nodes.append(helper.make_node("Add", [f"{name}.{end}.part" for end in ends], [name]))
    weights += [numpy_helper.from_array(values, name) for name, values in constants.items()]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
