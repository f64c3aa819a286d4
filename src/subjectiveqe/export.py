"""From a checkpoint to an ONNX file that runs without PyTorch, checked against PyTorch before it gets its name."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dial
from .codecs import get_codec
from .codecs.coarseness import FAMILIES, TOLD_LESS, Less, read_less
from .config import read_card
from .errors import ConfigError, ModelError
from .files import atomic_path
from .images import read_rgb
from .samples import samples
from .sessions import onnx_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from torch import nn

MAX_DIFFERENCE = 1e-4
"""Largest difference from PyTorch allowed, in units of the full range; a hundredth of an 8-bit level is 4e-5."""

_ESTIMATE_TOLERATES = 20
"""Times as much: 0.002 of an estimate is a tenth of one QP, and it rests on logarithms of next to nothing. Of values
above 1, which odds are of noise, that share."""

_OPSET = 18
_BLOCK = 16
"""Channels of a block in ONNX Runtime's layout with AVX-512; 8 without."""

BLOCKED, ONES = ".blocked", ".ones"
"""What the convolutions of `_keep_blocked`, which change nothing, and their weights are named by at the end."""

_THREADS = 1
"""The checks are small; waiting for threads on a busy machine is what takes long."""

_CHECKED_SIZES = ((1, 1), (1, 9), (7, 13), (33, 20), (64, 64), (130, 97))


def export_onnx(
    checkpoint: Path,
    out: Path,
    half: bool = False,
    faithful: Path | None = None,
    less: Sequence[str] = (),
    card: Path | None = None,
) -> float:
    """Writes a checkpoint as ONNX with free batch, height and width; the file says of itself what the checkpoint says.

    Inputs lq, float32 (N, 3, H, W) in [0, 1], and where the network looks at the dial, strength, float32 (N,); output
    out, not clamped. A network that is told how coarse the picture is also takes coarseness, float32 (N, K), and gives
    estimate, float32 (1, 4, K), of the patches of one picture, float32 (M, 3, h, w), see `nets.estimator.Estimator`:
    pixels of its own, so that either half costs nothing when it is given a picture of one pixel. Besides the
    checkpoint's own header the file holds bytes_px, the working memory per pixel, and reach_px, see `reach_px`.

    Args:
        checkpoint: .safetensors of this package, or a .pt or .pth that `load_net` knows.
        out: the .onnx file; it appears only when it agrees with PyTorch.
        half: store the weights in float16, half the size; they are used in float32.
        faithful: a checkpoint of the same network for strength 0; `checkpoint` is then strength 1, and the dial is no
            input but a constant that mixes the weights of both, see `dial`. The estimator is that of `checkpoint`.
        less: where the network does better when it is told less than how coarse the picture is, see
            `codecs.coarseness.read_less`; the file says so, and `enhancing.network` goes by it.
        card: what else the file says of itself, see `config.read_card`, in place of what the checkpoint says by the
            same names.
    Returns:
        The largest difference from PyTorch over odd and even sizes, 1x1 included, of the full range 1.
    Raises:
        ConfigError: an output that is not named .onnx, a curve that is none or of no use, or a card that is none.
        ModelError: a checkpoint that cannot be used, or a difference of 1e-4 or more.
    """
    import onnx

    from .nets.checkpoint import describe, load_net

    check_onnx_name(out)
    curves = read_less(less)
    said = {} if card is None else read_card(card)
    net: Any
    net, metadata = load_net(checkpoint)
    metadata |= said
    _check_heard(checkpoint, net, curves)
    ends = [net]
    if faithful is not None:
        other, of_dial = _load_faithful(faithful, checkpoint, net)
        ends = [other, net]
        metadata |= of_dial
        metadata.pop(dial.TRAINED_AT, None)
    if less:
        metadata[TOLD_LESS] = " ".join(less)
    if half:  # rounded before the trace, so that what is compared is what is stored
        ends = [_rounded_to_half(end) for end in ends]
    with atomic_path(out) as aside:
        models = [_trace(end, aside) for end in ends]
        header = {**metadata, **describe(net), "bytes_px": str(_working_bytes_px(models[0]))}
        for model in models:
            _keep_blocked(model)
        header["reach_px"] = str(max(reach_px(model, net.receptive_px, net.stride_px) for model in models))
        model = models[-1]
        if len(models) > 1:
            dial.join(*models)
        if half:
            _store_half(model)
        onnx.helper.set_model_props(model, header)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, aside)
        difference = _difference_of_dial(ends, aside.read_bytes())
        if not difference < MAX_DIFFERENCE:
            raise ModelError(
                f"{checkpoint}: the ONNX file differs from PyTorch by {difference:.1e}, expected below "
                f"{MAX_DIFFERENCE:g}; nothing was written; are the weights very large, or was the estimator "
                "calibrated by a few pictures?"
            )
    return difference


def check_onnx_name(out: Path) -> None:
    """ConfigError for an output that is not named .onnx."""
    if out.suffix.lower() != ".onnx":
        raise ConfigError(f'{out}: expected the name of an ONNX file; name it "{out.with_suffix(".onnx").name}"')


def _check_heard(checkpoint: Path, net: Any, curves: Less) -> None:
    """ConfigError for telling a network less of what it is not told."""
    if curves and not net.num_coarseness:
        raise ConfigError(f"{checkpoint}: is not told how coarse a picture is; leave --less out")
    if unheard := [family for family in curves if family not in FAMILIES[: net.num_coarseness]]:
        raise ConfigError(f"{checkpoint}: is not told of {', '.join(unheard)}; leave that --less out")


def _load_faithful(faithful: Path, checkpoint: Path, net: Any) -> tuple[Any, dict[str, str]]:
    """The network of a dial's other end, with the estimator of `net`, and what the header says of the dial."""
    from .nets.checkpoint import describe, load_net

    other: Any
    other, made_by = load_net(faithful)
    if describe(other) != describe(net):
        raise ModelError(f"{faithful}: holds another network than {checkpoint}; the ends of a dial are one network")
    if net.num_coarseness:  # strength is no reason to think otherwise of the picture
        other.estimator.load_state_dict(net.estimator.state_dict())
    said = {f"faithful_{key}": made_by[key] for key in ("recipe", "losses", "step") if key in made_by}
    return other, said | {"strength": "0..1, a mixture of two networks"}


def _trace(net: Any, aside: Path) -> onnx.ModelProto:
    """The network as PyTorch exports it; `aside` is a place for the file."""
    import onnx
    import torch

    inputs = {"lq": torch.rand(2, 3, 32, 48)}
    if net.uses_strength:
        inputs["strength"] = torch.ones(2)
    if net.num_coarseness:
        inputs["coarseness"] = torch.rand(2, net.num_coarseness)
        inputs["patches"] = torch.rand(3, 3, 24, 40)
    outputs = ["out", "estimate"] if net.num_coarseness else ["out"]
    with _silenced():
        torch.onnx.export(
            _with_estimate(net) if net.num_coarseness else net,
            tuple(inputs.values()),
            aside,
            input_names=list(inputs),
            output_names=outputs,
            opset_version=_OPSET,
            dynamic_axes={name: _FREE[value.ndim] for name, value in inputs.items()}
            | {name: _FREE[4] if name == "out" else _FREE[1] for name in outputs},
            dynamo=False,
        )
    return onnx.load(aside)


def _between(faithful: nn.Module, pleasing: nn.Module) -> nn.Module:
    """The network half-way between two."""
    net, states = copy.deepcopy(pleasing), (faithful.state_dict(), pleasing.state_dict())
    net.load_state_dict(
        {key: (states[0][key] + value) / 2 if value.is_floating_point() else value for key, value in states[1].items()}
    )
    return net


_FREE = {4: {0: "batch", 2: "height", 3: "width"}, 2: {0: "batch"}, 1: {0: "batch"}}


def _with_estimate(net: Any) -> nn.Module:
    """The network with a second input and output: patches, and what it estimates of the picture they are of."""
    from torch import Tensor, nn

    class WithEstimate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, lq: Tensor, strength: Tensor, coarseness: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
            return self.net(lq, strength, coarseness), self.net.estimate(patches, of_one_picture=True)

    return WithEstimate().eval()


@contextmanager
def _silenced() -> Iterator[None]:
    """Keeps the tracing exporter's notices back: that it is the older one, that sizes met in Python may be constants.

    The older one, since it writes free sizes and plain operators; that no size became a constant is what the check of
    many sizes shows.
    """
    import torch

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _rounded_to_half(net: nn.Module) -> nn.Module:
    """The network as it is after its weights, batch norms made part of the convolutions, have been float16."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    net = copy.deepcopy(net)
    for layers in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
        for k in range(1, len(layers)):
            conv, norm = layers[k - 1], layers[k]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layers[k - 1], layers[k] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return net.half().float()


def _keep_blocked(model: onnx.ModelProto) -> None:
    """Puts a depthwise 1x1 convolution by one where feature maps come from anything but a convolution.

    ONNX Runtime keeps feature maps in blocks of channels between convolutions, and adds a skip within the convolution
    before it if both are in this layout. What the network is told and a pixel shuffle lose it, and from there on every
    residual block would reorder its input and its output and add them apart: a tenth of all time.
    """
    from onnx import helper, numpy_helper, shape_inference

    maker = {name: node for node in model.graph.node for name in node.output}
    shapes = {
        value.name: value.type.tensor_type.shape.dim for value in shape_inference.infer_shapes(model).graph.value_info
    }

    def loses_layout(node: onnx.NodeProto) -> bool:
        inputs = [maker[name].op_type for name in node.input if name in maker]
        return node.op_type == "DepthToSpace" or (node.op_type == "Add" and "Split" in inputs)

    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        name = node.output[0]
        users = [user for user in model.graph.node if name in user.input]
        if loses_layout(node) and not any(map(loses_layout, users)) and shapes[name][1].dim_value % _BLOCK == 0:
            node.output[0] = f"{name}.plain"
            ones = np.ones((shapes[name][1].dim_value, 1, 1, 1), np.float32)
            model.graph.initializer.append(numpy_helper.from_array(ones, name + ONES))
            inputs = [node.output[0], name + ONES]
            nodes.append(helper.make_node("Conv", inputs, [name], name + BLOCKED, group=len(ones)))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _store_half(model: onnx.ModelProto) -> None:
    """Replaces each float32 weight of rank 2 and up by a float16 one and a Cast, folded by runtimes when they load."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


_PROBED_PX = 128
"""Side of the picture that `_working_bytes_px` measures by."""


def _working_bytes_px(model: onnx.ModelProto) -> int:
    """Largest sum of values alive at a time per pixel of the input, in the file's order of operators.

    An upper bound: runtimes fuse operators and reuse memory. Measured by giving every value out on a small picture.
    """
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = [name for node in probe.graph.node for name in node.output]
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnx_session(probe.SerializeToString(), threads=_THREADS, optimization="none")
    lq = np.zeros((1, 3, _PROBED_PX, _PROBED_PX), np.float32)
    values = session.run(names, _feeds(session, lq, 1.0, 0.5, patches=lq[..., :1, :1]))
    sizes = {name: value.nbytes for name, value in zip(names, values, strict=True)}
    last_use = {name: k for k, node in enumerate(probe.graph.node) for name in node.input}
    alive = peak = 0
    for k, node in enumerate(probe.graph.node):
        alive += sum(sizes[name] for name in node.output)
        peak = max(peak, alive)
        alive -= sum(
            sizes[name] for name in {*node.input, *node.output} if name in sizes and last_use.get(name, k) == k
        )
    return -(-peak // _PROBED_PX**2)


def reach_px(model: onnx.ModelProto, receptive_px: int, stride_px: int) -> int:
    """From how far away an input pixel changes the output by something that is not rounded away.

    Less than the receptive field, since what arrives from its ends has passed a few weights of many convolutions. Found
    by noise of the largest contrast around a compressed photo, with any strength and coarseness.

    Returns:
        The least multiple of the stride beyond which all that noise changes no value by more than a thirtieth of an
        8-bit level; at most `receptive_px`.
    """
    session = onnx_session(model.SerializeToString(), threads=_THREADS)
    side = 2 * receptive_px + 8 * stride_px
    photo = get_codec("jpeg").code(read_rgb(samples()[0]), _BAD_QF).rgb
    photo = np.pad(photo, [(0, max(side - length, 0)) for length in photo.shape[:2]] + [(0, 0)], mode="symmetric")
    lq = np.ascontiguousarray(photo[:side, :side].transpose(2, 0, 1)[None], np.float32) / 255
    noise = np.random.default_rng(0).integers(0, 2, lq.shape).astype(np.float32)
    inner = slice(receptive_px, side - receptive_px)

    def middle(pixels: np.ndarray, told: float) -> Any:
        return session.run(["out"], _feeds(session, pixels, told, told, patches=pixels[..., :1, :1]))[0][
            ..., inner, inner
        ]

    calm = {told: middle(lq, told) for told in (0.0, 0.5, 1.0)}

    def is_heard(reach: int) -> bool:
        surrounded = noise.copy()
        seen = slice(receptive_px - reach, side - receptive_px + reach)
        surrounded[..., seen, seen] = lq[..., seen, seen]
        return any(np.abs(middle(surrounded, told) - out).max() * 255 > _HEARD for told, out in calm.items())

    heard, silent = 0, -(-receptive_px // stride_px)
    while silent - heard > 1:
        between = (heard + silent) // 2
        heard, silent = (between, silent) if is_heard(between * stride_px) else (heard, between)
    return min(silent * stride_px, receptive_px)


_HEARD = 1 / 30
"""In 8-bit levels."""
_BAD_QF = 20


def _difference_of_dial(ends: Sequence[Any], content: bytes) -> float:
    """Largest from PyTorch at the ends of a dial and half-way between, or of the one network there is."""
    places = {1.0: ends[0]} if len(ends) == 1 else {0.0: ends[0], 0.5: _between(*ends), 1.0: ends[1]}
    return max(_largest_difference(place, dial.turn(content, at), at) for at, place in places.items())


def _largest_difference(net: Any, model: bytes, at: float) -> float:
    """From PyTorch; of a model whose dial is a constant with the dial there, else anywhere."""
    import torch

    session = onnx_session(model, threads=_THREADS)
    rng = np.random.default_rng(0)
    differences = []
    for k, size in enumerate(_CHECKED_SIZES):
        lq = rng.random((1 + k % 2, 3, *size), np.float32)
        share = k / (len(_CHECKED_SIZES) - 1)
        strength = share if dial.DIAL in (value.name for value in session.get_inputs()) else at
        coarseness = 1 - share
        with torch.inference_mode():
            pixels = torch.from_numpy(lq)
            told = (torch.full((len(lq), net.num_coarseness), coarseness),) if net.num_coarseness else ()
            place = (torch.full((len(lq),), strength),) if net.uses_strength else ()
            expected = [net(pixels, *place, *told).numpy()]
            if told:
                expected.append(net.estimate(pixels, of_one_picture=True).numpy())
        got = session.run(None, _feeds(session, lq, strength, coarseness))
        if [value.shape for value in got] != [value.shape for value in expected]:
            return float("inf")
        differences.append(np.abs(got[0] - expected[0]).max())
        if told:
            off = np.abs(got[1] - expected[1]) / np.maximum(np.abs(expected[1]), 1)
            differences.append(off.max() / _ESTIMATE_TOLERATES)
    return float(np.max(differences))  # NaN stays NaN


def _feeds(
    session: Any, lq: np.ndarray, strength: float, coarseness: float, patches: np.ndarray | None = None
) -> Mapping[str, np.ndarray]:
    """Whatever of this the session takes; patches are those of `lq` unless others are given."""
    feeds = {"lq": lq}
    for value in session.get_inputs():
        if value.name == "strength":
            feeds["strength"] = np.full(len(lq), strength, np.float32)
        elif value.name == "coarseness":
            feeds["coarseness"] = np.full((len(lq), value.shape[1]), coarseness, np.float32)
        elif value.name == "patches":
            feeds["patches"] = lq if patches is None else patches
    return feeds
