"""From an ONNX file of ours to one whose convolutions work in 8-bit integers, for processors without a GPU's floats."""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .codecs.coarseness import Less, told
from .data.pairs import PairSet, centre
from .data.store import open_pairs
from .dial import DEFAULT_STRENGTH, DIAL, TRAINED_AT, check_strength, turn
from .enhancing.network import place_of_dial, told_less, unreadable
from .errors import ConfigError, ModelError
from .export import BLOCKED, ONES, check_onnx_name, reach_px
from .files import atomic_path, refuse_input
from .sessions import ONNX_FAILED, onnx_session

if TYPE_CHECKING:
    import onnx

_PATCH_PX = 192
_PERCENTILE = 99.995
"""Of the values met, kept within the range of 8 bits; rare larger ones are clipped, all others gain by finer steps."""

_LOW_PASS = "/net/Conv"
"""Node that smooths the change, a few levels of pixels, by weights that are not learned."""

_KEPT_FLOAT = ("head", "down_blocks.0", "tail", "estimator", "gate", _LOW_PASS)
"""What is nearest to the pixels, where 8 bits cost most, what is run on a few patches only, and the gate, which does
little work and by which the whole change is scaled; by names in `UNet`, of which PyTorch makes those of nodes."""


def quantize_onnx(
    model: Path, pairs: Sequence[Path], out: Path, patches: int = 32, strength: float | None = None
) -> int:
    """Writes a model with 8-bit weights and activations; its ranges are those met on real patches.

    Weights are 7 bits and signed, one scale an output channel, since the instructions of older processors (AVX2) add
    two products in 16 bits; activations are 8 bits. What `_KEPT_FLOAT` names and all sums stay float32.

    Args:
        model: an ONNX file of this package, told how coarse its input is.
        pairs: training stores or paired folders, of any codecs; patches are drawn evenly from each that has pictures
            of 192 px and more on both sides.
        out: the .onnx file; it appears only when ONNX Runtime has run it.
        patches: how many, of 192 px, in all.
        strength: where the dial of `model` is set for good, `DEFAULT_STRENGTH` if not given; one without a dial stays
            where it was trained.
    Returns:
        The number of convolutions in integers.
    Raises:
        ConfigError: an output that is not named .onnx or is the model given, no patches, a strength out of range or
            other than that of a model without a dial, or pairs that are all too small.
        ModelError: a file that is no such model.
        StoreError: pairs that cannot be read.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    check_onnx_name(out)
    refuse_input(out, [model])
    if patches < 1:
        raise ConfigError(f"expected one patch or more, got {patches}")
    asked = DEFAULT_STRENGTH if strength is None else strength
    check_strength(asked)
    with tempfile.TemporaryDirectory(prefix="sqe-") as folder, atomic_path(out) as aside:
        plain = Path(folder) / "plain.onnx"
        header = _fold(model, asked, plain)
        place = place_of_dial(model, header, asked)
        if strength is not None and place != strength:
            raise ConfigError(f"{model}: has no dial, runs at strength {place:g}; leave --strength out")
        graph = onnx.load(plain)
        _drop_identities(graph)
        onnx.save(graph, plain)
        chosen = _choose(model, graph, header)
        feeds = _draw_feeds(plain, pairs, patches, place, told_less(model, header))
        with _quiet():
            quantize_static(
                plain,
                aside,
                _Reader(feeds),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=chosen,
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": _PERCENTILE},
            )
        quantized = onnx.load(aside)
        header.pop(DIAL, None)  # what it says of the dial that it had
        header |= {"precision": "int8", TRAINED_AT: f"{place:g}"}
        # Farther than in floats: what would be rounded away may tip an integer over.
        header["reach_px"] = str(reach_px(quantized, int(header["receptive_px"]), int(header["stride_px"])))
        onnx.helper.set_model_props(quantized, header)
        onnx.save(quantized, aside)
        onnx_session(aside).run(["out"], feeds[0])
    return len(chosen)


def _fold(model: Path, strength: float, plain: Path) -> dict[str, str]:
    """Writes the model with its weights computed; gives its header."""
    try:
        session = onnx_session(turn(model.read_bytes(), strength), optimization="basic", optimized=plain)
    except ONNX_FAILED as error:
        raise unreadable(model, error) from None
    if "coarseness" not in [value.name for value in session.get_inputs()]:
        raise ModelError(
            f"{model}: its network is not told how coarse its input is, which this needs; train one with "
            "net_g.hparams.num_coarseness"
        )
    header = dict(session.get_modelmeta().custom_metadata_map)
    if header.get("precision") == "int8":
        raise ModelError(f"{model}: is in integers already; quantize the model that it was made of")
    return header


def _drop_identities(model: onnx.ModelProto) -> None:
    """Takes out the depthwise ones of `export._keep_blocked`, which serve floats only."""
    from onnx import helper

    for node in model.graph.node:
        if node.name.endswith(BLOCKED):
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output, node.name))
    weights = [weight for weight in model.graph.initializer if not weight.name.endswith(ONES)]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)


def _choose(path: Path, model: onnx.ModelProto, header: Mapping[str, str]) -> list[str]:
    """Names of the convolutions that become integers: all but those of `_KEPT_FLOAT`.

    Raises:
        ModelError: the file's nodes are not named as those of a `UNet`: a part of it that is to stay float is not
            found, or nothing but these, of which ONNX Runtime would quantise all.
    """
    convs = [node.name for node in model.graph.node if node.op_type == "Conv"]
    kept = {part: {name for name in convs if _is_of(name, part)} for part in _KEPT_FLOAT}
    chosen = [name for name in convs if not any(name in names for names in kept.values())]
    missing = [part for part in _parts(path, header) if not kept[part]]
    if missing or not chosen:
        found = f"found none of {', '.join(missing)}" if missing else "found no other"
        raise ModelError(
            f"{path}: expected convolutions of {', '.join(_KEPT_FLOAT)}, which stay in floats, and others, {found}; "
            'export the checkpoint by "sqe export"'
        )
    return chosen


def _parts(path: Path, header: Mapping[str, str]) -> list[str]:
    """Those of `_KEPT_FLOAT` that the network has: a gate if it was made with one, blocks above the deepest level."""
    try:
        hparams = json.loads(header["hparams"])
        lacks = {"gate": not hparams.get("gate"), "down_blocks.0": len(hparams["num_feat"]) < 2}
    except (LookupError, ValueError, TypeError, AttributeError):
        raise ModelError(
            f'{path}: the metadata lack the hparams of a U-Net; export the checkpoint by "sqe export"'
        ) from None
    return [part for part in _KEPT_FLOAT if not lacks.get(part)]


def _is_of(name: str, part: str) -> bool:
    """Whether a node belongs to a part of the network: /net/head/Conv to head."""
    return name == part or part in name.split("/")


def _draw_feeds(plain: Path, pairs: Sequence[Path], patches: int, strength: float, less: Less) -> list[dict[str, Any]]:
    """Inputs of the folded model; it is told what it is told in use."""
    session = onnx_session(plain)
    sides = {value.name: value.shape for value in session.get_inputs()}
    rng = np.random.default_rng(0)
    sets = [(chosen, large) for chosen in map(open_pairs, pairs) if (large := _large_enough(chosen))]
    if not sets:
        names = ", ".join(map(str, pairs))
        raise ConfigError(f"{names}: no picture is {_PATCH_PX} px high and wide; name a store of larger ones")
    feeds = []
    for number in range(patches):
        chosen, large = sets[number % len(sets)]
        lq, _ = centre(chosen, large[int(rng.integers(len(large)))], _PATCH_PX)
        pixels = np.ascontiguousarray(lq.transpose(2, 0, 1)[None], np.float32) / 255
        feed = {
            "lq": pixels,
            "patches": pixels,
            "coarseness": np.zeros((1, sides["coarseness"][1]), np.float32),
            "strength": np.full(1, strength, np.float32),
        }
        feed = {name: value for name, value in feed.items() if name in sides}
        [estimate] = session.run(["estimate"], feed)
        feeds.append(feed | {"coarseness": told(estimate[0, 0], less, strength)[None]})
    return feeds


def _large_enough(pairs: PairSet) -> list[int]:
    """Numbers of the pairs that hold a whole patch: ONNX Runtime takes the ranges of patches of one size."""
    return [index for index, info in enumerate(pairs.infos) if min(info.height, info.width) >= _PATCH_PX]


class _Reader:
    """The patches one by one, as ONNX Runtime asks for them."""

    def __init__(self, feeds: Sequence[dict[str, Any]]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back ONNX Runtime's advice to fold the model before, which has been done, and its prints."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
