"""Pictures and a stand-in model for all tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from subjectiveqe.samples import samples
from subjectiveqe.weights import weights_folder

BLUR = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16


def _draw_image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth, coloured picture with edges and a little noise, uint8 HWC; equal seeds give equal pictures."""
    height, width = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 32.0
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0.5, 3, (3, 3))]
    picture = 128 + 60 * np.stack(waves, axis=-1)
    top, left = rng.integers(0, max(1, height // 2)), rng.integers(0, max(1, width // 2))
    picture[top : top + height // 3, left : left + width // 3] = rng.integers(0, 256, 3)
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Compiled models go into a folder of the tests' own; weights are the user's, where there are some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBJECTIVEQE_WEIGHTS", str(weights_folder()))
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", *(["HOME"] if sys.platform == "darwin" else [])):
            patch.setenv(name, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def draw_image():
    """The function `draw_image((height, width), seed=0)`."""
    return _draw_image


@pytest.fixture(scope="session")
def draw_store(tmp_path_factory) -> Callable[[int, tuple[int, int]], Path]:
    """The function `draw_store(count, (height, width))`: a store of drawn pictures as JPEG at QF 10 and 40."""

    def draw(count: int, size: tuple[int, int]) -> Path:
        from subjectiveqe.data.prepare import prepare
        from subjectiveqe.images import write_png

        folder = tmp_path_factory.mktemp("drawn")
        for seed in range(count):
            write_png(folder / "pictures" / f"{seed}.png", _draw_image(size, seed))
        prepare(folder / "pictures", folder / "store.lmdb", "jpeg", [10, 40], jobs=1)
        return folder / "store.lmdb"

    return draw


@pytest.fixture(scope="session")
def sample_paths() -> dict[str, Path]:
    """The bundled pictures by name: astronaut, chelsea, coffee."""
    return {path.stem: path for path in samples()}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """An ONNX model with the inputs, output and header of a real one: strength blurs a little, 3x3, every channel."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    picture = ["n", 3, "height", "width"]
    weight = np.tile(BLUR - np.pad([[1.0]], 1), (3, 1, 1, 1)).astype(np.float32)  # blurred minus sharp
    graph = helper.make_graph(
        [
            helper.make_node("Pad", ["lq", "pads"], ["padded"], mode="edge"),
            helper.make_node("Conv", ["padded", "weight"], ["change"], group=3),
            helper.make_node("Reshape", ["strength", "shape"], ["dial"]),
            helper.make_node("Mul", ["change", "dial"], ["dialled"]),
            helper.make_node("Add", ["lq", "dialled"], ["out"]),
        ],
        "tiny",
        [
            helper.make_tensor_value_info("lq", TensorProto.FLOAT, picture),
            helper.make_tensor_value_info("strength", TensorProto.FLOAT, ["n"]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, picture)],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "pads"),
            numpy_helper.from_array(np.array([-1, 1, 1, 1], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    header = {
        "format": "subjectiveqe-net-1",
        "net": "unet",
        "hparams": json.dumps({}),
        "receptive_px": "1",
        "stride_px": "1",
    }
    helper.set_model_props(model, header)
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def enhancer(tiny_model):
    """The stand-in model, ready to run."""
    from subjectiveqe.enhancing.enhancer import Enhancer

    return Enhancer(tiny_model, "onnxruntime")
