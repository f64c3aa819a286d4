"""From floats to 8-bit integers: how close, what the file says, and refusals."""

from __future__ import annotations

import logging

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402

from subjectiveqe import quantize  # noqa: E402
from subjectiveqe.codecs.coarseness import read_less, told  # noqa: E402
from subjectiveqe.data.prepare import prepare  # noqa: E402
from subjectiveqe.enhancing.enhancer import Enhancer  # noqa: E402
from subjectiveqe.errors import ConfigError, ModelError  # noqa: E402
from subjectiveqe.export import export_onnx  # noqa: E402
from subjectiveqe.images import write_png  # noqa: E402
from subjectiveqe.nets import UNet  # noqa: E402
from subjectiveqe.nets.checkpoint import save_net  # noqa: E402
from subjectiveqe.quantize import quantize_onnx  # noqa: E402


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, draw_image):
    folder = tmp_path_factory.mktemp("quantize")
    for seed in range(2):
        write_png(folder / "clean" / f"{seed}.png", draw_image((200, 240), seed))
    prepare(folder / "clean", folder / "pairs.lmdb", "jpeg", [10, 50], jobs=1)
    return folder / "pairs.lmdb"


def model_of(tmp_path, num_coarseness=2, num_feat=(8, 16), gate=False):
    torch.manual_seed(0)
    net = UNet(num_feat, num_block=[1 for _ in num_feat], gate=gate, num_coarseness=num_coarseness)
    for name, weight in net.named_parameters():
        weight.data *= 1 if name.startswith("estimator.") else 1.5
    save_net(tmp_path / "net.safetensors", net, {"licence": "CC0-1.0"})
    export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_integers_are_close_to_floats(tmp_path, pairs, draw_image, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    model = model_of(tmp_path)
    count = quantize_onnx(model, [pairs], tmp_path / "int8.onnx", patches=4, strength=0.25)
    quantized = onnx.load(tmp_path / "int8.onnx")
    assert count == 2 + 2 + 2  # the deepest block, the way down and up, the block after it; none at the pixels
    weights = [weight for weight in quantized.graph.initializer if len(weight.dims) == 4]
    assert sum(weight.data_type == onnx.TensorProto.INT8 for weight in weights) == count
    image = draw_image((120, 136), seed=7)
    floats, integers = (
        Enhancer(path, runtime, strength=0.25, lock_colors=False)(image).astype(int)
        for path in (model, tmp_path / "int8.onnx")
    )
    change = np.abs(floats - image).mean()
    assert 0 < np.abs(floats - integers).mean() < change / 10
    set_for_good = Enhancer(tmp_path / "int8.onnx", runtime, strength=1.0, lock_colors=False)
    assert set_for_good.strength == 0.25
    assert np.array_equal(set_for_good(image), integers)
    header = set_for_good.metadata
    assert (header["licence"], header["precision"], header["trained_at"]) == ("CC0-1.0", "int8", "0.25")


def test_a_strength_that_a_model_does_not_have_is_refused(tmp_path, pairs):
    model = model_of(tmp_path)
    content = onnx.load(model)
    content.metadata_props.add(key="trained_at", value="1")
    onnx.save(content, model)
    with pytest.raises(ConfigError, match="has no dial, runs at strength 1; leave --strength out"):
        quantize_onnx(model, [pairs], tmp_path / "int8.onnx", strength=0.3)
    assert not (tmp_path / "int8.onnx").exists()


def test_no_patches_are_refused(tmp_path, pairs):
    with pytest.raises(ConfigError, match="expected one patch or more, got 0"):
        quantize_onnx(model_of(tmp_path), [pairs], tmp_path / "int8.onnx", patches=0)


def test_pairs_whose_codec_is_unknown_serve_too(tmp_path, draw_image):
    for folder in ("lq", "gt"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
        write_png(tmp_path / "pairs" / folder / "a.png", draw_image((200, 200)))
    quantize_onnx(model_of(tmp_path), [tmp_path / "pairs"], tmp_path / "int8.onnx", patches=2)
    image = draw_image((64, 72), seed=7)
    floats, integers = (Enhancer(tmp_path / name, "onnxruntime")(image) for name in ("net.onnx", "int8.onnx"))
    assert 0 < np.abs(floats.astype(int) - integers).mean() < 2


def test_ranges_are_those_of_what_is_told_in_use(tmp_path, pairs):
    quantize._fold(model_of(tmp_path), 1.0, tmp_path / "plain.onnx")
    less = read_less(["hevc:0.5:0.125"])
    plain, cautious = (quantize._draw_feeds(tmp_path / "plain.onnx", [pairs], 3, 1.0, curve) for curve in ({}, less))
    for before, after in zip(plain, cautious, strict=True):
        assert np.array_equal(before["lq"], after["lq"])
        expected = told(before["coarseness"][0], less, 1.0)
        assert not np.array_equal(expected, before["coarseness"][0])
        assert after["coarseness"][0] == pytest.approx(expected)


def test_patches_are_drawn_evenly_from_each_store(tmp_path, pairs):
    write_png(tmp_path / "clean" / "flat.png", np.full((200, 200, 3), 90, np.uint8))
    prepare(tmp_path / "clean", tmp_path / "flat.lmdb", "jpeg", [90], jobs=1)
    quantize._fold(model_of(tmp_path), 1.0, tmp_path / "plain.onnx")
    feeds = quantize._draw_feeds(tmp_path / "plain.onnx", [pairs, tmp_path / "flat.lmdb"], 6, 1.0, {})
    assert sum(np.ptp(feed["lq"]) < 0.05 for feed in feeds) == 3


def test_the_log_is_as_loud_as_before():
    level = logging.getLogger().level
    with quantize._quiet():
        assert logging.getLogger().level == logging.ERROR
    assert logging.getLogger().level == level


def test_patches_come_from_pictures_that_hold_one(tmp_path, draw_image):
    for number, size in enumerate([(192, 200), (96, 240), (100, 100)]):
        write_png(tmp_path / "clean" / f"{number}.png", draw_image(size, number))
    prepare(tmp_path / "clean", tmp_path / "mixed.lmdb", "jpeg", [10, 50], jobs=1)
    (tmp_path / "clean" / "0.png").unlink()
    prepare(tmp_path / "clean", tmp_path / "small.lmdb", "jpeg", [10], jobs=1)
    model, stores = model_of(tmp_path), [tmp_path / "mixed.lmdb", tmp_path / "small.lmdb"]
    assert quantize_onnx(model, stores, tmp_path / "int8.onnx", patches=8) == 6
    with pytest.raises(ConfigError, match=r"small\.lmdb: no picture is 192 px high and wide; name a store of larger"):
        quantize_onnx(model, stores[1:], tmp_path / "none.onnx", patches=8)
    assert not (tmp_path / "none.onnx").exists()


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("head", "/net/head/Conv"),
        ("down_blocks.0", "/net/down_blocks.0/"),
        ("tail", "/net/tail/Conv"),
        ("gate", "/net/gate/"),
        ("estimator", "/estimator/"),
        ("/net/Conv", "/net/Conv"),
    ],
)
def test_a_part_that_is_to_stay_float_and_is_not_found_is_told(tmp_path, pairs, part, named):
    """As when attributes of the network are renamed, or PyTorch names nodes in another way."""
    content = onnx.load(model_of(tmp_path, gate=True))
    renamed = [node for node in content.graph.node if node.name.startswith(named)]
    for number, node in enumerate(renamed):
        node.name = f"/net/renamed_{number}"
    assert renamed
    onnx.save(content, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=rf"other\.onnx: expected convolutions of .*, found none of {part}; export"):
        quantize_onnx(tmp_path / "other.onnx", [pairs], tmp_path / "int8.onnx", patches=1)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_network_that_has_nothing_else_is_refused(tmp_path, pairs):
    """ONNX Runtime takes no names for all of them."""
    content = onnx.load(model_of(tmp_path))
    for number, node in enumerate(content.graph.node):
        if node.op_type == "Conv" and not any(quantize._is_of(node.name, part) for part in quantize._KEPT_FLOAT):
            node.name = f"/net/head/Conv_{number}"
    onnx.save(content, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"other\.onnx: expected .* and others, found no other; export"):
        quantize_onnx(tmp_path / "other.onnx", [pairs], tmp_path / "int8.onnx", patches=1)


@pytest.mark.parametrize("hparams", [None, "no JSON", "[]", "{}"])
def test_a_file_that_does_not_say_its_sizes_is_refused(tmp_path, pairs, hparams):
    content = onnx.load(model_of(tmp_path))
    header = {p.key: p.value for p in content.metadata_props if p.key != "hparams"}
    onnx.helper.set_model_props(content, header if hparams is None else header | {"hparams": hparams})
    onnx.save(content, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"other\.onnx: the metadata lack the hparams of a U-Net; export"):
        quantize_onnx(tmp_path / "other.onnx", [pairs], tmp_path / "int8.onnx", patches=1)


@pytest.mark.parametrize(("num_feat", "gate", "count"), [((8,), False, 2), ((16, 16), True, 6)])
def test_parts_that_a_network_does_not_have_are_not_asked_for(tmp_path, pairs, num_feat, gate, count):
    model = model_of(tmp_path, num_feat=num_feat, gate=gate)
    assert quantize_onnx(model, [pairs], tmp_path / "int8.onnx", patches=1) == count
    names = [name for weight in onnx.load(tmp_path / "int8.onnx").graph.initializer if (name := weight.name)]
    assert not any(name.endswith((".ones", ".blocked")) for name in names)


def test_what_cannot_be_made_integer_is_refused(tmp_path, pairs):
    with pytest.raises(ConfigError, match=r'name it "int8\.onnx"'):
        quantize_onnx(model_of(tmp_path), [pairs], tmp_path / "int8.bin")
    with pytest.raises(ModelError, match="told how coarse its input is"):
        quantize_onnx(model_of(tmp_path, num_coarseness=0), [pairs], tmp_path / "int8.onnx")
    with pytest.raises(ConfigError, match="is an input and would be replaced"):
        quantize_onnx(model_of(tmp_path), [pairs], tmp_path / "net.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match=r"text\.onnx: not a readable ONNX model"):
        quantize_onnx(tmp_path / "text.onnx", [pairs], tmp_path / "int8.onnx")
    for strength in (2.0, float("nan")):
        with pytest.raises(ConfigError, match=r"is out of range, expected 0 \(faithful\) to 1 \(pleasing\)"):
            quantize_onnx(model_of(tmp_path), [pairs], tmp_path / "int8.onnx", strength=strength)
    quantize_onnx(model_of(tmp_path), [pairs], tmp_path / "first.onnx", patches=1, strength=0.0)
    with pytest.raises(ModelError, match=r"first\.onnx: is in integers already; quantize the model"):
        quantize_onnx(tmp_path / "first.onnx", [pairs], tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()
