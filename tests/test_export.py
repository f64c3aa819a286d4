"""Checkpoints to ONNX: parity with PyTorch at every size, the header, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402

from subjectiveqe import export  # noqa: E402
from subjectiveqe.dial import turn  # noqa: E402
from subjectiveqe.enhancing.enhancer import Enhancer  # noqa: E402
from subjectiveqe.enhancing.look import Look  # noqa: E402
from subjectiveqe.errors import ConfigError, ModelError  # noqa: E402
from subjectiveqe.export import export_onnx  # noqa: E402
from subjectiveqe.nets import RRDBNet, UNet  # noqa: E402
from subjectiveqe.nets.checkpoint import average_nets, load_net, save_net  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """The networks are tiny; threads only wait for each other, and long where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_net(kind):
    torch.manual_seed(0)
    if kind == "rrdb":
        net = RRDBNet(num_feat=4, num_block=1, num_grow=2)
    else:
        net = UNet(num_feat=(4, 8), num_block=(1, 1), num_coarseness=2 if kind == "told" else 0)
    if kind == "told":
        torch.nn.init.normal_(net.tell.say.weight, std=0.1)  # a fresh network does not listen
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.mul_(1 if name.startswith("estimator.") else 2)  # fresh networks hardly change a picture
    return net.eval()


@pytest.fixture(params=["unet", "told", "rrdb"])
def checkpoint(request, tmp_path):
    path = tmp_path / f"{request.param}.safetensors"
    save_net(path, small_net(request.param), {"licence": "CC0-1.0", "data": "none"})
    return path


@pytest.mark.parametrize("half", [False, True])
def test_the_onnx_file_equals_pytorch_at_every_size(checkpoint, tmp_path, half):
    out = tmp_path / "net.onnx"
    assert export_onnx(checkpoint, out, half) < 1e-4
    net, _ = load_net(checkpoint)
    if half:
        net = export._rounded_to_half(net)
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    for size in [(1, 1), (2, 1), (5, 3), (31, 17), (64, 48), (101, 8)]:
        feeds = {"lq": rng.random((3, 3, *size), np.float32)}
        if net.uses_strength:
            feeds["strength"] = np.array([0, 0.5, 1], np.float32)
        if net.num_coarseness:
            feeds["coarseness"] = np.array([[0, 0.5], [1, 0], [0.2, 0.9]], np.float32)
        with torch.inference_mode():
            expected = net(*map(torch.from_numpy, feeds.values())).numpy()
        if net.num_coarseness:
            feeds["patches"] = rng.random((2, 3, *size[::-1]), np.float32)
        got = session.run(["out"], feeds)[0]
        assert got.shape == expected.shape == (3, 3, *size)
        assert np.abs(expected - feeds["lq"]).max() > 0.01  # there is something to compare
        assert np.abs(got - expected).max() < 1e-4
        if net.num_coarseness:
            with torch.inference_mode():
                estimate = net.estimate(torch.from_numpy(feeds["patches"]), of_one_picture=True).numpy()
            assert np.abs(session.run(["estimate"], feeds)[0] - estimate).max() < 1e-4


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["unet", "told"])
def test_the_dial_runs_from_one_network_to_the_other(tmp_path, draw_image, kind, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    ends = {}
    for strength, scale in ((0.0, 1.0), (1.0, 0.5)):
        net = small_net(kind)
        for name, weight in net.named_parameters():
            weight.data *= 1 if name.startswith("estimator.") else scale
        ends[strength] = tmp_path / f"{strength}.safetensors"
        save_net(ends[strength], net, {"recipe": f"end {strength}"})
    average_nets(list(ends.values()), tmp_path / "0.5.safetensors")
    export_onnx(ends[1.0], tmp_path / "dial.onnx", faithful=ends[0.0])
    image, seen = draw_image((40, 56)), []
    for strength in (0.0, 0.5, 1.0):
        enhancer = Enhancer(tmp_path / "dial.onnx", runtime, strength=strength, lock_colors=False)
        # The network's own input says where the dial is, too.
        alone = Enhancer(tmp_path / f"{strength}.safetensors", "torch", strength=strength, lock_colors=False)
        seen.append(enhancer(image).astype(int))
        assert np.abs(seen[-1] - alone(image)).max() <= (1 if runtime == "onnxruntime" else 2)  # bfloat16
    assert min(np.abs(seen[0] - seen[1]).max(), np.abs(seen[1] - seen[2]).max()) > 4
    assert (enhancer.metadata["recipe"], enhancer.metadata["faithful_recipe"]) == ("end 1.0", "end 0.0")


def test_both_ends_of_a_dial_go_by_one_estimate(tmp_path, draw_image):
    for name, bias in (("a", 0.3), ("b", 0.6)):
        net = small_net("told")
        torch.nn.init.constant_(net.estimator.think[-1].bias, bias)
        save_net(tmp_path / f"{name}.safetensors", net, {})
    export_onnx(tmp_path / "a.safetensors", tmp_path / "dial.onnx", faithful=tmp_path / "b.safetensors")
    image = draw_image((40, 56))
    ends = [Enhancer(tmp_path / "dial.onnx", "onnxruntime", strength).look(image) for strength in (0.0, 1.0)]
    pleasing, faithful = (Enhancer(tmp_path / f"{name}.safetensors", "torch").look(image) for name in "ab")
    assert np.array_equal(ends[0].coarseness, ends[1].coarseness)
    assert np.allclose(ends[0].coarseness, pleasing.coarseness, atol=1e-4)
    assert not np.allclose(pleasing.coarseness, faithful.coarseness, atol=1e-3)


def test_odds_that_are_large_may_be_off_in_proportion(tmp_path):
    """As those are of what lies beneath noise."""
    net = small_net("told")
    for layer in (net.estimator.beneath[0], net.estimator.beneath[2], net.estimator.beneath[4]):
        torch.nn.init.normal_(layer.weight, std=3)
    save_net(tmp_path / "net.safetensors", net, {})
    assert net.estimate(torch.rand(1, 3, 24, 40))[:, 3].abs().max() > 1000
    assert export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx") < 1e-4


def test_less_than_the_truth_is_told_where_the_file_says_so(tmp_path, draw_image):
    """Of HEVC at strength 1, half as much less at 0.5."""
    save_net(tmp_path / "net.safetensors", small_net("told"), {})
    export_onnx(tmp_path / "net.safetensors", tmp_path / "plain.onnx")
    export_onnx(tmp_path / "net.safetensors", tmp_path / "less.onnx", less=["hevc:0.4:0.3", "hevc:0.8:0.1"])
    image = draw_image((40, 56))

    def enhanced(name, strength, *coarseness):
        enhancer = Enhancer(tmp_path / name, "onnxruntime", strength, lock_colors=False)
        return enhancer.with_look(image, Look(np.array(coarseness, np.float32)))

    assert not np.array_equal(enhanced("less.onnx", 1, 0.6, 0.9), enhanced("plain.onnx", 1, 0.6, 0.9))
    assert np.array_equal(enhanced("less.onnx", 1, 0.6, 0.9), enhanced("plain.onnx", 1, 0.4, 0.9))
    assert np.array_equal(enhanced("less.onnx", 0.5, 0.6, 0.9), enhanced("plain.onnx", 0.5, 0.5, 0.9))
    assert np.array_equal(enhanced("less.onnx", 0, 0.6, 0.9), enhanced("plain.onnx", 0, 0.6, 0.9))


def test_a_file_whose_curve_is_none_is_named(tmp_path):
    save_net(tmp_path / "net.safetensors", small_net("told"), {"told_less": "hevc:0.4"})
    export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"net\.onnx: the metadata say told_less hevc:0\.4, expected points family:"):
        Enhancer(tmp_path / "net.onnx", "onnxruntime")


def test_a_network_that_is_told_nothing_cannot_be_told_less(tmp_path):
    save_net(tmp_path / "net.safetensors", small_net("unet"), {})
    with pytest.raises(ConfigError, match=r"net\.safetensors: is not told how coarse a picture is; leave --less out"):
        export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx", less=["hevc:0.4:0.3"])
    save_net(tmp_path / "told.safetensors", small_net("told"), {})
    with pytest.raises(ConfigError, match=r"told\.safetensors: is not told of hevc-420; leave that --less out"):
        export_onnx(tmp_path / "told.safetensors", tmp_path / "net.onnx", less=["hevc:0.4:0.3", "hevc-420:0.4:0.3"])
    with pytest.raises(ConfigError, match=r'--less "hevc:0\.4:0\.2": says another thing of the same place'):
        export_onnx(tmp_path / "told.safetensors", tmp_path / "net.onnx", less=["hevc:0.4:0.3", "hevc:0.4:0.2"])
    with pytest.raises(ConfigError, match=r'--less "hevc: 0\.4:0\.3": expected family:coarseness:less'):
        export_onnx(tmp_path / "told.safetensors", tmp_path / "net.onnx", less=["hevc: 0.4:0.3"])
    assert not (tmp_path / "net.onnx").exists()


def test_ends_that_were_trained_at_one_place_make_a_dial_that_turns(tmp_path, draw_image):
    for strength in (0.0, 1.0):
        net = small_net("unet")
        for weight in net.parameters():
            weight.data *= 1 - strength / 2
        metadata = {"trained_at": str(strength), "note": "ends that were trained_at one place each"}
        save_net(tmp_path / f"{strength}.safetensors", net, metadata)
    export_onnx(tmp_path / "1.0.safetensors", tmp_path / "dial.onnx", faithful=tmp_path / "0.0.safetensors")
    image = draw_image((40, 56))
    ends = [Enhancer(tmp_path / "dial.onnx", "onnxruntime", strength) for strength in (0.0, 1.0)]
    assert [end.strength for end in ends] == [0.0, 1.0]
    assert not np.array_equal(ends[0](image), ends[1](image))


def test_a_dial_needs_two_ends_of_one_network(tmp_path):
    save_net(tmp_path / "a.safetensors", small_net("unet"), {})
    save_net(tmp_path / "b.safetensors", UNet(num_feat=(4, 8), num_block=(1, 2)), {})
    with pytest.raises(ModelError, match=r"b\.safetensors: holds another network than .*a\.safetensors"):
        export_onnx(tmp_path / "a.safetensors", tmp_path / "dial.onnx", faithful=tmp_path / "b.safetensors")
    assert not (tmp_path / "dial.onnx").exists()


def test_a_file_without_a_dial_stays_as_it_is(checkpoint, tmp_path):
    export_onnx(checkpoint, tmp_path / "net.onnx")
    content = (tmp_path / "net.onnx").read_bytes()
    assert turn(content, 0.3) == content


def test_skips_are_added_within_convolutions(tmp_path):
    """In ONNX Runtime's layout in blocks of channels, which whatever comes between convolutions must not lose."""
    net = UNet(num_feat=(16, 16, 32), num_block=(1, 2, 1), num_coarseness=2)
    save_net(tmp_path / "net.safetensors", net, {})
    export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # that such a file is for this CPU only
    ort.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    blocks = 1 + 2 + 1 + 2 + 1
    with_skip = [node for node in nodes if node.domain == "com.microsoft.nchwc" and len(node.input) == 4]
    assert len(with_skip) == blocks


def test_the_file_says_what_it_is(checkpoint, tmp_path):
    export_onnx(checkpoint, tmp_path / "net.onnx")
    net, metadata = load_net(checkpoint)
    header = {p.key: p.value for p in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert metadata.items() <= header.items()
    assert header["licence"] == "CC0-1.0"
    assert int(header["receptive_px"]) == net.receptive_px
    assert int(header["stride_px"]) == net.stride_px
    assert net.stride_px <= int(header["reach_px"]) <= net.receptive_px
    assert 24 <= int(header["bytes_px"]) < 1000
    assert Enhancer(tmp_path / "net.onnx").metadata["net"] == metadata["net"]


def test_a_card_says_more_of_the_file(checkpoint, tmp_path):
    card = tmp_path / "net.card.yaml"
    card.write_text("licence: of mine\nnot_for: >-\n  evidence, or\n  anything else\nstride_px: '1'\n")
    export_onnx(checkpoint, tmp_path / "net.onnx", card=card)
    header, of_net = Enhancer(tmp_path / "net.onnx", "onnxruntime").metadata, load_net(checkpoint)[0]
    assert (header["licence"], header["not_for"]) == ("of mine", "evidence, or anything else")
    assert header["stride_px"] == str(of_net.stride_px)
    for text, said in (("hours: 14", '"hours": expected a name and its text'), ("- a", "expected keys and values")):
        card.write_text(text)
        with pytest.raises(ConfigError, match=rf"net\.card\.yaml: {said}"):
            export_onnx(checkpoint, tmp_path / "other.onnx", card=card)
    assert not (tmp_path / "other.onnx").exists()


def test_noise_beyond_the_reach_is_not_heard(tmp_path):
    """A faint network reaches less far than a loud one, and neither hears what lies beyond."""
    net = UNet(num_feat=(4, 4), num_block=(1, 1))
    save_net(tmp_path / "net.safetensors", net, {})
    reaches = {}
    for scale in (1, 30):
        for weight in net.parameters():
            weight.data *= scale**0.25
        save_net(tmp_path / "net.safetensors", net, {})
        export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx")
        model = onnx.load(tmp_path / "net.onnx")
        reaches[scale] = next(int(p.value) for p in model.metadata_props if p.key == "reach_px")
        session = ort.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
        side, reach = 2 * net.receptive_px + 8 * net.stride_px, reaches[scale]
        lq = np.full((1, 3, side, side), 0.5, np.float32)
        noisy = np.random.default_rng(5).integers(0, 2, lq.shape).astype(np.float32)
        seen = slice(net.receptive_px - reach, side - net.receptive_px + reach)
        noisy[..., seen, seen] = 0.5
        middle = slice(net.receptive_px, side - net.receptive_px)
        outs = [session.run(["out"], {"lq": x, "strength": np.ones(1, np.float32)})[0] for x in (lq, noisy)]
        assert np.abs(outs[0] - outs[1])[..., middle, middle].max() * 255 < 0.1
    assert reaches[1] < reaches[30] <= net.receptive_px


def test_half_is_half_the_size(tmp_path):
    save_net(tmp_path / "net.safetensors", UNet(num_feat=(16, 32), num_block=(1, 1)))
    for half in (False, True):
        export_onnx(tmp_path / "net.safetensors", tmp_path / f"{half}.onnx", half)
    assert (tmp_path / "True.onnx").stat().st_size < 0.6 * (tmp_path / "False.onnx").stat().st_size


@pytest.mark.parametrize("kind", ["unet", "rrdb"])
def test_no_pixel_beyond_the_receptive_radius_counts(kind):
    net = small_net(kind).double()
    side = 2 * net.receptive_px + 4 * net.stride_px
    middle = side // 2 // net.stride_px * net.stride_px
    lq = torch.rand(1, 3, net.stride_px, side, dtype=torch.float64, requires_grad=True)
    dial = (torch.ones(1, dtype=torch.float64),) if net.uses_strength else ()
    net(lq, *dial)[..., middle : middle + net.stride_px].pow(2).sum().backward()
    counts = lq.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert middle - net.receptive_px <= counts.min()
    assert counts.max() < middle + net.stride_px + net.receptive_px
    assert counts.max() - counts.min() > net.receptive_px  # the bound is not idle


def test_an_export_that_differs_from_pytorch_is_not_written(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MAX_DIFFERENCE", 0.0)
    (tmp_path / "net.onnx").write_bytes(b"the old one")
    with pytest.raises(ModelError, match="differs from PyTorch by"):
        export_onnx(checkpoint, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == b"the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["net.onnx", checkpoint.name])


def test_a_network_of_no_numbers_is_not_written(tmp_path):
    net = small_net("rrdb")
    torch.nn.init.constant_(net.conv_out.weight, float("nan"))
    save_net(tmp_path / "net.safetensors", net)
    with pytest.raises(ModelError, match="differs from PyTorch by nan"):
        export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_what_cannot_be_exported_is_told_in_one_line(tmp_path, checkpoint):
    with pytest.raises(ConfigError, match=r'name it "net\.onnx"'):
        export_onnx(checkpoint, tmp_path / "net.pth")
    with pytest.raises(ModelError, match="no such checkpoint"):
        export_onnx(tmp_path / "gone.safetensors", tmp_path / "net.onnx")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(ModelError, match=r"text\.pt: not a PyTorch checkpoint"):
        export_onnx(tmp_path / "text.pt", tmp_path / "net.onnx")
