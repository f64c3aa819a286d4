"""Networks have the published sizes, take any picture size, and their files say what they are."""

import json
import os
import pickle
import re

import pytest
import safetensors.torch
import torch
from scipy.fft import dctn
from torch.nn import functional as F

from subjectiveqe.codecs.coarseness import FAMILIES
from subjectiveqe.errors import ConfigError, ModelError, ShapeError
from subjectiveqe.nets import DISCRIMINATORS, ESRGAN, NETS, RRDBNet, UNet
from subjectiveqe.nets.checkpoint import average_nets, load_net, save_net
from subjectiveqe.nets.discriminator import VGG128, PatchDiscriminator
from subjectiveqe.nets.estimator import Estimator
from subjectiveqe.nets.grow import grow

TINY_RRDB = {"num_feat": 4, "num_block": 2, "num_grow": 3}
TINY_UNET = {"num_feat": [4, 6, 8], "num_block": [1, 1, 1]}
TINY_ESRGAN = {**TINY_RRDB, "unshuffle": 4}


def num_params(net):
    return sum(param.numel() for param in net.parameters())


def run(net, lq, strength=1.0):
    told = (lq.new_full((len(lq), net.num_coarseness), 0.5),) if net.num_coarseness else ()
    return net(lq, lq.new_full((len(lq),), strength), *told) if net.uses_strength else net(lq)


def foreign_names(net, top, block, dense):
    """The state of our RRDBNet under other names; `block` and `dense` are format strings."""
    state = {}
    for key, value in net.state_dict().items():
        parts = key.split(".")
        if parts[0] == "body":
            _, number, _, rdb, _, conv, leaf = parts
            state[f"{block.format(number)}.{dense.format(int(rdb) + 1)}.conv{int(conv) + 1}.{leaf}"] = value
        else:
            state[f"{top['.'.join(parts[:-1])]}.{parts[-1]}"] = value
    return state


SEED = ({"conv_in": "conv_in", "conv_mid": "conv_mid", "conv_out": "conv_out"}, "rrdb_lst.{}", "rdb{}")
BOTH = {"conv_in": "conv_first", "conv_out": "conv_last"}
BASICSR = (
    {**BOTH, "conv_mid": "conv_body", "conv_up.0": "conv_up1", "conv_up.1": "conv_up2", "conv_hr": "conv_hr"},
    "body.{}",
    "rdb{}",
)
FIRST_ESRGAN = (
    {**BOTH, "conv_mid": "trunk_conv", "conv_up.0": "upconv1", "conv_up.1": "upconv2", "conv_hr": "HRconv"},
    "RRDB_trunk.{}",
    "RDB{}",
)


def test_the_seed_generator_has_its_parameter_count():
    assert num_params(RRDBNet()) == 1_451_011


def test_the_seed_discriminator_has_its_layers():
    net = VGG128()
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["conv0_0.bias"] == (32,)
    assert [key for key in shapes if key.startswith("conv") and key.endswith("bias")] == ["conv0_0.bias"]
    assert shapes["conv3_1.weight"] == (256, 256, 4, 4)
    assert shapes["linear1.weight"] == (128, 4096)
    assert "bn0_0.weight" not in shapes
    assert net(torch.zeros(2, 3, 128, 128)).shape == (2, 1)


def test_the_seed_discriminator_refuses_other_sizes():
    with pytest.raises(ShapeError, match="128 x 128 px, got 96 x 128"):
        VGG128()(torch.zeros(2, 3, 128, 96))


def test_the_patch_discriminator_takes_any_size():
    net = PatchDiscriminator(num_feat=4)
    assert [tuple(net(torch.zeros(1, 3, size, size)).shape[-2:]) for size in (16, 33, 128)] == [
        (2, 2),
        (4, 4),
        (16, 16),
    ]


def test_the_patch_discriminator_is_spectrally_normalised():
    net = PatchDiscriminator(num_feat=8)
    for _ in range(30):  # the power iteration settles
        net(torch.zeros(1, 3, 32, 32))
    for conv in net.eval().convs:
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 13), (16, 16), (33, 40)])
@pytest.mark.parametrize(("kind", "hparams"), [("unet", TINY_UNET), ("rrdb", TINY_RRDB), ("esrgan", TINY_ESRGAN)])
def test_networks_keep_any_size(kind, hparams, size):
    net = NETS[kind](**hparams)
    assert run(net, torch.rand(2, 3, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize(
    ("kind", "hparams"),
    [
        ("unet", TINY_UNET),
        ("unet", {**TINY_UNET, "gate": True, "num_coarseness": 2}),
        ("rrdb", {**TINY_RRDB, "num_block": 1}),
        ("esrgan", {**TINY_RRDB, "num_block": 1}),
        ("esrgan", {**TINY_RRDB, "num_block": 1, "unshuffle": 4}),
    ],
)
def test_no_pixel_beyond_the_receptive_radius_has_a_say(kind, hparams):
    torch.manual_seed(0)
    net = NETS[kind](**hparams).double()
    if "gate" in hparams:
        torch.nn.init.normal_(net.gate.decide.weight)  # a fresh gate looks and does not decide
    side = 2 * net.receptive_px + 64
    lq = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    out = run(net, lq)
    for row, column in ((side // 2, side // 2), (side // 2 - 1, side // 2 + 3)):
        (gradient,) = torch.autograd.grad(out[0, :, row, column].sum(), lq, retain_graph=True)
        rows, columns = gradient[0].abs().sum(0).nonzero(as_tuple=True)
        reach = max((rows - row).abs().max().item(), (columns - column).abs().max().item())
        assert net.receptive_px - 2 * net.stride_px <= reach <= net.receptive_px  # neither too small nor a wild guess


def test_a_picture_is_read_in_float32_under_autocast():
    net, seen = UNet(**TINY_UNET), []
    net.head.register_forward_hook(lambda _, inputs, out: seen.extend((inputs[0].dtype, out.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        run(net, torch.rand(1, 3, 16, 16))
    assert seen == [torch.float32, torch.float32]


def test_a_gate_scales_the_change_and_starts_at_one():
    torch.manual_seed(0)
    gated, lq = UNet(**TINY_UNET, gate=True), torch.rand(1, 3, 40, 56)
    plain = UNet(**TINY_UNET)
    plain.load_state_dict({name: w for name, w in gated.state_dict().items() if not name.startswith("gate.")})
    change = run(plain, lq) - lq
    assert change.abs().max() > 1e-3
    for bias, share in ((0.0, 1.0), (-20.0, 0.0), (20.0, 2.0)):
        torch.nn.init.constant_(gated.gate.decide.bias, bias)
        assert torch.allclose(run(gated, lq) - lq, share * change, atol=1e-6)


def test_a_network_that_is_told_starts_deaf_and_goes_by_its_own_estimate():
    torch.manual_seed(0)
    told, lq = UNet(**TINY_UNET, num_coarseness=2), torch.rand(2, 3, 37, 50)
    plain = UNet(**TINY_UNET)
    added = ("estimator.", "tell.")
    plain.load_state_dict({name: w for name, w in told.state_dict().items() if not name.startswith(added)})
    dial = torch.ones(2)
    assert torch.equal(told(lq, dial, torch.rand(2, 2)), plain(lq, dial))
    torch.nn.init.normal_(told.tell.say.weight)
    estimate = told.estimate(lq)
    assert estimate.shape == (2, 4, 2)
    assert not estimate[:, 2].any()  # untaught, it finds nothing beneath
    assert torch.equal(told(lq, dial), told(lq, dial, estimate[:, 0]))
    assert (told(lq, dial) - told(lq, dial, estimate[:, 0] + 0.3)).abs().max() > 1e-3
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(told.estimate(lq), estimate)


def test_patches_of_one_picture_make_one_estimate():
    torch.manual_seed(0)
    net, patches = UNet(**TINY_UNET, num_coarseness=2).eval(), torch.rand(3, 3, 40, 48)
    patches[1:] *= 0.1
    one = net.estimate(patches[:1])
    both = net.estimate(patches, of_one_picture=True)
    assert both.shape == (1, 4, 2)
    assert torch.equal(net.estimate(patches[:1], of_one_picture=True), one)
    assert torch.allclose(net.estimate(patches[:1].repeat(3, 1, 1, 1), of_one_picture=True), one, atol=1e-6)
    assert torch.allclose(net.estimate(patches.flip(0), of_one_picture=True), both, atol=1e-6)
    assert (both - net.estimate(patches)).abs().amax((1, 2)).min() > 1e-3  # neither of a patch alone


def test_a_network_that_is_told_of_more_families_is_the_same_at_first():
    torch.manual_seed(0)
    few, many = (UNet(**TINY_UNET, num_coarseness=num) for num in (2, 4))
    torch.nn.init.normal_(few.tell.say.weight)
    many.load_state_dict(grow(few, many))
    few, many = few.eval(), many.eval()
    lq, dial, known = torch.rand(2, 3, 40, 48), torch.ones(2), torch.rand(2, 2)
    assert torch.equal(many(lq, dial, torch.cat((known, torch.rand(2, 2)), 1)), few(lq, dial, known))
    assert torch.allclose(many.estimate(lq)[:, :, :2], few.estimate(lq), atol=1e-6)
    assert not many.estimate(lq)[:, :3, 2:].any()
    assert (many.estimate(lq)[:, 3, 2:] == -20).all()  # what it was not taught lies beneath nothing
    five = UNet(**TINY_UNET, num_coarseness=5).eval()
    five.load_state_dict(grow(few, five))
    new = torch.zeros(2, 5)
    new[:, FAMILIES.index("hevc-420")] = known[:, 0]
    assert torch.equal(five(lq, dial, new), few(lq, dial, known * torch.tensor([1.0, 0.0])))
    deaf = UNet(**TINY_UNET)
    assert grow(deaf, many).keys() == deaf.state_dict().keys()


def test_a_network_that_is_larger_is_the_same_at_first_and_uses_all_it_has():
    torch.manual_seed(0)
    small = UNet(**TINY_UNET, gate=True, num_coarseness=2).eval()
    large = UNet([7, 12, 20], [2, 3, 2], gate=True, num_coarseness=5).eval()
    for layer in (small.tell.say, small.gate.decide):
        torch.nn.init.normal_(layer.weight)
    large.load_state_dict(grow(small, large))
    lq, dial, known = torch.rand(2, 3, 40, 48), torch.rand(2), torch.rand(2, 2)
    told = torch.cat((known, torch.zeros(2, 3)), 1)
    assert torch.allclose(large(lq, dial, told), small(lq, dial, known), atol=1e-5)
    assert torch.equal(grow(small, large)["tail.weight"], large.tail.weight)
    large(lq, dial, told).square().mean().backward()
    gradient = large.middle[0].conv1.weight.grad.flatten(1)
    assert not torch.allclose(gradient[0], gradient[8])  # two copies of one channel
    assert large.middle[1].conv2.weight.grad.any()


def test_a_network_does_not_grow_into_one_that_has_less_of_anything():
    small = UNet([4, 6, 8], [1, 2, 1])
    for other in (UNet([4, 6, 6], [1, 2, 1]), UNet([4, 6, 8], [2, 1, 1]), UNet([4, 6], [1, 2])):
        with pytest.raises(RuntimeError, match="Error"):
            other.load_state_dict(grow(small, other))
    deeper = UNet([4, 6, 8, 8], [1, 2, 1, 1], num_coarseness=2)
    with pytest.raises(RuntimeError, match="Error"):
        deeper.load_state_dict(grow(UNet([4, 6, 8], [1, 2, 1], num_coarseness=2), deeper))


def test_a_shift_by_the_stride_shifts_the_output():
    torch.manual_seed(0)
    net = UNet(**TINY_UNET).eval()
    lq = torch.rand(1, 3, 160, 160)
    inner = net.receptive_px
    with torch.no_grad():
        whole, moved = run(net, lq), run(net, lq[..., net.stride_px :, net.stride_px :])
    assert torch.equal(
        whole[..., inner + net.stride_px : -inner, inner + net.stride_px : -inner],
        moved[..., inner:-inner, inner:-inner],
    ) or torch.allclose(
        whole[..., inner + net.stride_px : -inner, inner + net.stride_px : -inner],
        moved[..., inner:-inner, inner:-inner],
        atol=1e-6,
    )


def test_the_dial_reaches_the_output():
    torch.manual_seed(0)
    net, lq = UNet(**TINY_UNET), torch.rand(1, 3, 16, 16)
    assert not torch.allclose(run(net, lq, 0.0), run(net, lq, 1.0))


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_network_comes_back(tmp_path, half):
    torch.manual_seed(0)
    net = UNet(**TINY_UNET)
    save_net(tmp_path / "net.safetensors", net, {"licence": "CC0"}, half=half)
    loaded, header = load_net(tmp_path / "net.safetensors")
    assert header["net"] == "unet"
    assert header["licence"] == "CC0"
    assert json.loads(header["hparams"]) == TINY_UNET
    for before, after in zip(net.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(before.half().float() if half else before, after)


@pytest.mark.parametrize("names", [SEED, BASICSR, FIRST_ESRGAN], ids=["seed", "basicsr", "esrgan"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("holder", [None, "state_dict", "state_dict_g", "params_ema"])
def test_foreign_checkpoints_load_under_all_their_names(tmp_path, names, prefix, holder):
    torch.manual_seed(0)
    net = RRDBNet(**TINY_RRDB).eval()
    state = {prefix + key: value for key, value in foreign_names(net, *names).items()}
    torch.save({holder: state, "iteration": 5} if holder else state, tmp_path / "net.pt")
    loaded, header = load_net(tmp_path / "net.pt")
    lq = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(net(lq), loaded(lq))
    assert ("SubjectiveQE-ESRGAN" in header["licence"]) == (names is SEED)


@pytest.mark.parametrize("names", [BASICSR, FIRST_ESRGAN], ids=["basicsr", "esrgan"])
def test_checkpoints_that_enlarge_are_refused(tmp_path, names):
    state = foreign_names(ESRGAN(**TINY_RRDB, unshuffle=4), *names)
    state["conv_first.weight"] = torch.zeros(TINY_RRDB["num_feat"], 3, 3, 3)
    torch.save(state, tmp_path / "x4.pth")
    with pytest.raises(ModelError, match=r"x4\.pth: makes pictures 4 times as large; only networks that keep the size"):
        load_net(tmp_path / "x4.pth")


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_checkpoints_for_other_than_rgb_are_refused(tmp_path, channels):
    state = foreign_names(ESRGAN(**TINY_RRDB), *BASICSR)
    state["conv_first.weight"] = torch.zeros(TINY_RRDB["num_feat"], channels, 3, 3)
    torch.save(state, tmp_path / "gray.pth")
    with pytest.raises(ModelError, match=rf"gray\.pth: takes pictures of {channels} channels, expected RGB"):
        load_net(tmp_path / "gray.pth")


def esrgan_by_hand(state, lq, unshuffle):
    """The network as its papers have it, by BasicSR's names."""

    def conv(name, x):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    stem = x = conv("conv_first", F.pixel_unshuffle(lq, unshuffle))
    for block in range(TINY_RRDB["num_block"]):
        of_block = x
        for rdb in (1, 2, 3):
            seen = [x]
            for layer in (1, 2, 3, 4):
                seen.append(F.leaky_relu(conv(f"body.{block}.rdb{rdb}.conv{layer}", torch.cat(seen, 1)), 0.2))
            x = x + 0.2 * conv(f"body.{block}.rdb{rdb}.conv5", torch.cat(seen, 1))
        x = of_block + 0.2 * x
    x = stem + conv("conv_body", x)
    for step in range(1, unshuffle.bit_length()):
        x = F.leaky_relu(conv(f"conv_up{step}", x.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    return conv("conv_last", F.leaky_relu(conv("conv_hr", x), 0.2))


def in_first_names(state):
    """ESRGAN's first names, which count layers, activations among them."""
    names, ups = {}, sum(key.startswith("conv_up") for key in state) // 2
    for key, value in state.items():
        top, _, leaf = key.rpartition(".")
        body = re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)", top)
        number = {"conv_first": "0", "conv_body": f"1.sub.{TINY_RRDB['num_block']}", "conv_up1": "3", "conv_up2": "6"}
        number |= {"conv_hr": str(2 + 3 * ups), "conv_last": str(4 + 3 * ups)}
        place = "1.sub.{}.RDB{}.conv{}.0".format(*body.groups()) if body else number[top]
        names[f"model.{place}.{leaf}"] = value
    return names


@pytest.mark.parametrize(
    ("named", "unshuffle"),
    [
        ("conv_first", 1),
        ("conv_first", 2),
        ("conv_first", 4),
        ("HRconv", 1),
        ("HRconv", 4),
        ("model.0", 1),
        ("model.0", 2),
        ("model.0", 4),
    ],
)
def test_restorers_of_others_do_what_they_did(tmp_path, unshuffle, named):
    torch.manual_seed(0)
    net = ESRGAN(**TINY_RRDB, unshuffle=unshuffle)
    state = foreign_names(net, *BASICSR)
    if named == "HRconv":
        torch.save(foreign_names(net, *FIRST_ESRGAN), tmp_path / "x1.pth")
    elif named == "model.0":
        torch.save(in_first_names(state), tmp_path / "x1.pth")
    else:
        torch.save({"params_ema": state}, tmp_path / "x1.pth")
    loaded, header = load_net(tmp_path / "x1.pth")
    assert header["net"] == "esrgan"
    lq = torch.rand(1, 3, 12, 16)
    with torch.no_grad():
        assert torch.allclose(loaded(lq), esrgan_by_hand(state, lq, unshuffle), atol=1e-6)


def test_another_network_is_refused(tmp_path):
    torch.save(PatchDiscriminator(4).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r'other\.pt: tensor "convs.*belongs to no generator known here'):
        load_net(tmp_path / "other.pt")


def test_equal_weights_make_equal_files(tmp_path):
    """By which runs and rows tell what they began with; the library writes metadata in any order."""
    net, metadata = UNet(num_feat=(4, 4), num_block=(1, 1)), {f"key {number}": "é" for number in range(20)}
    for name in ("a", "b"):
        save_net(tmp_path / f"{name}.safetensors", net, metadata)
    content = (tmp_path / "a.safetensors").read_bytes()
    assert content == (tmp_path / "b.safetensors").read_bytes()
    loaded, header = load_net(tmp_path / "a.safetensors")
    assert metadata.items() <= header.items()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in net.state_dict().items())


def test_the_end_of_a_name_may_be_in_capitals(tmp_path):
    net = UNet(num_feat=(4, 4), num_block=(1, 1))
    save_net(tmp_path / "a.safetensors", net)
    (tmp_path / "a.safetensors").rename(tmp_path / "a.SAFETENSORS")
    assert load_net(tmp_path / "a.SAFETENSORS")[1]["net"] == "unet"
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.PT")
    with pytest.raises(ModelError, match=r"^((?!expected a checkpoint).)*$"):  # it is read, and is no network
        load_net(tmp_path / "a.PT")


def test_what_is_no_checkpoint_gets_no_advice_to_read_it_unsafely(tmp_path):
    for name, said in (
        ("a.onnx", r"expected a checkpoint, \.safetensors, \.pt or \.pth; ONNX files only run"),
        ("a.pt", "plain"),
    ):
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(ModelError, match=said) as caught:
            load_net(tmp_path / name)
        assert "weights_only" not in str(caught.value)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("owned",))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    with pytest.raises(ModelError, match="not a PyTorch checkpoint of plain tensors"):
        load_net(tmp_path / "evil.pt")


@pytest.mark.skipif(os.name != "posix", reason="rights as POSIX has them")
def test_weights_may_be_read_by_whom_other_files_may(tmp_path):
    save_net(tmp_path / "net.safetensors", UNet(**TINY_UNET))
    (tmp_path / "other").touch()
    assert (tmp_path / "net.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_header_that_asks_for_the_impossible_is_refused(tmp_path):
    state = UNet(**TINY_UNET).state_dict()
    for hparams in ('{"num_feat": []}', '{"num_feat": [-1, 8]}', '{"num_feat": 3}'):
        header = {"format": "subjectiveqe-net-1", "net": "unet", "hparams": hparams}
        safetensors.torch.save_file(state, tmp_path / "net.safetensors", metadata=header)
        with pytest.raises(ModelError, match='header does not describe a "unet"'):
            load_net(tmp_path / "net.safetensors")


def test_damaged_files_are_refused(tmp_path):
    save_net(tmp_path / "net.safetensors", UNet(**TINY_UNET))
    whole = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        load_net(tmp_path / "cut.safetensors")
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="not a PyTorch checkpoint"):
        load_net(tmp_path / "empty.pt")
    with pytest.raises(ModelError, match="no such checkpoint"):
        load_net(tmp_path / "missing.pt")


def test_a_header_of_other_sizes_is_refused(tmp_path):
    import safetensors.torch

    save_net(tmp_path / "a.safetensors", UNet(**TINY_UNET))
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        header, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    header["hparams"] = json.dumps({**TINY_UNET, "num_feat": [4, 6, 10]})
    safetensors.torch.save_file(state, tmp_path / "b.safetensors", header)
    with pytest.raises(ModelError, match='not the weights of net "unet"'):
        load_net(tmp_path / "b.safetensors")


def test_a_header_without_a_network_is_refused(tmp_path):
    import safetensors.torch

    for header, found in (({}, "None"), ({"net": "vit"}, "vit")):
        header |= {"format": "subjectiveqe-net-1", "hparams": "{}"}
        safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors", header)
        with pytest.raises(ModelError, match=rf'other\.safetensors: holds net "{found}", known are unet'):
            load_net(tmp_path / "other.safetensors")


def test_every_name_in_a_recipe_has_a_network():
    assert set(NETS) == {"unet", "rrdb", "esrgan"}
    assert set(DISCRIMINATORS) == {"patch", "vgg128"}


def test_the_estimator_sees_the_dct_of_ycbcr_blocks():
    estimator = Estimator(1)
    block = torch.rand(1, 3, 8, 8)
    seen = []
    estimator.look[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    estimator.eval()(block)
    luma = 65.481 * block[0, 0] + 128.553 * block[0, 1] + 24.966 * block[0, 2]
    expected = dctn(luma.numpy(), norm="ortho").ravel()[1:]
    assert torch.allclose(2 ** seen[0][0, 1:64, 0, 0] - 0.5, torch.from_numpy(expected).abs(), atol=1e-3)


def test_a_smaller_network_is_grown_to_be_averaged(tmp_path):
    """What tuning gave a small network can be given to a larger one that began as it."""
    torch.manual_seed(0)
    small, large = UNet(num_feat=(4, 8), num_block=(1, 1)), UNet(num_feat=(8, 12), num_block=(2, 1))
    large.load_state_dict(grow(small, large))
    paths = [tmp_path / f"{name}.safetensors" for name in ("large", "small", "tuned")]
    save_net(paths[0], large)
    save_net(paths[1], small)
    with torch.no_grad():
        small.tail.weight.mul_(3)
    save_net(paths[2], small, {"recipe": "tuned"})
    average_nets(paths, tmp_path / "large-tuned.safetensors", shares=(0.5, -0.5, 1))
    tuned, metadata = load_net(tmp_path / "large-tuned.safetensors")
    lq, dial = torch.rand(1, 3, 32, 40), torch.ones(1)
    assert torch.allclose(tuned(lq, dial), small(lq, dial), atol=1e-5)
    assert (tuned.hparams, metadata["recipe"]) == (large.hparams, "tuned")


def test_weights_of_one_network_can_be_averaged(tmp_path):
    nets = [UNet(num_feat=(4, 4), num_block=(1, 1), num_coarseness=2) for _ in range(3)]
    paths = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for k, (path, net) in enumerate(zip(paths, nets, strict=True)):
        save_net(path, net, {"recipe": f"number {k}", "valid_lpips": "0.1"})
    average_nets(paths, tmp_path / "mean.safetensors")
    mean, metadata = load_net(tmp_path / "mean.safetensors")
    assert (metadata["recipe"], metadata["averaged"]) == ("number 2", "0.333, 0.333, 0.333")
    assert "valid_lpips" not in metadata
    expected = sum(net.head.weight for net in nets) / 3
    assert torch.allclose(mean.head.weight, expected, atol=1e-6)
    average_nets(paths, tmp_path / "moved.safetensors", shares=(1, 1, -1))
    moved = load_net(tmp_path / "moved.safetensors")[0].head.weight
    assert torch.allclose(moved, nets[0].head.weight + nets[1].head.weight - nets[2].head.weight, atol=1e-6)
    for shares in ((1, -1), (1, 1, 1)):
        with pytest.raises(ConfigError, match="expected 3 shares that make 1, one for each checkpoint, got 1, "):
            average_nets(paths, tmp_path / "out.safetensors", shares=shares)
    save_net(tmp_path / "other.safetensors", UNet(num_feat=(4, 8), num_block=(1, 1)))
    with pytest.raises(ModelError, match=r"other\.safetensors: holds another network"):
        average_nets([paths[0], tmp_path / "other.safetensors"], tmp_path / "out.safetensors")
    with pytest.raises(ConfigError, match="two checkpoints or more"):
        average_nets(paths[:1], tmp_path / "out.safetensors")
    with pytest.raises(ConfigError, match=r'out\.pt: .*name it "out\.safetensors"'):
        average_nets(paths, tmp_path / "out.pt")
    with pytest.raises(ConfigError, match="is an input and would be replaced"):
        average_nets(paths, paths[0])
    assert not (tmp_path / "out.safetensors").exists()
