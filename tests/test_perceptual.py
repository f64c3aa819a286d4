"""Published weights in the networks of perceptual losses; what the losses teach is in test_losses.py."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from subjectiveqe import weights  # noqa: E402
from subjectiveqe.errors import WeightsError  # noqa: E402
from subjectiveqe.perceptual import VGG, _fill, make_perceptual  # noqa: E402

_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@pytest.fixture
def vgg16(tmp_path, monkeypatch):
    """Arrays of VGG16, each filled with its number, by torchvision's names; in a folder of weights of their own."""
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(tmp_path))
    arrays = {}
    for number, (index, conv) in enumerate(zip(_INDICES, VGG(16, ("relu1_2",)).convs.values(), strict=True)):
        arrays[f"features.{index}.weight"] = np.full(conv.weight.shape, number, np.float32)
        arrays[f"features.{index}.bias"] = np.full(conv.bias.shape, number, np.float32)
    return arrays


def test_each_convolution_gets_its_own_weights(vgg16, tmp_path):
    np.savez(tmp_path / "vgg16.npz", **vgg16)
    net = VGG(16, ("relu5_3",))
    _fill(net, "vgg16", "pretrained", 0)
    for number, conv in enumerate(net.convs.values()):
        assert (conv.weight.unique().tolist(), conv.bias.unique().tolist()) == ([number], [number])


@pytest.mark.parametrize("lacking", ["features.28.weight", "features.28.bias", "features.0.bias"])
def test_a_file_that_fills_a_network_in_part_is_refused(vgg16, tmp_path, lacking):
    """The other layers would be random."""
    np.savez(tmp_path / "vgg16.npz", **{name: array for name, array in vgg16.items() if name != lacking})
    with pytest.raises(
        WeightsError, match=r"vgg16\.npz: holds 12 convolutions, expected 13; remove the file, then run"
    ):
        make_perceptual("vgg16", "pretrained", seed=0)


def test_weights_of_a_deeper_network_are_refused(vgg16, tmp_path):
    extra = {
        "features.30.weight": np.zeros((512, 512, 3, 3), np.float32),
        "features.30.bias": np.zeros(512, np.float32),
    }
    np.savez(tmp_path / "vgg16.npz", **vgg16, **extra)
    with pytest.raises(WeightsError, match="holds 14 convolutions, expected 13") as caught:
        make_perceptual("vgg16", "pretrained", seed=0)
    assert str(caught.value).endswith(weights.remedy("vgg16"))


def test_convolutions_of_another_network_are_refused(vgg16, tmp_path):
    np.savez(tmp_path / "vgg16.npz", **vgg16 | {"features.0.weight": np.zeros((64, 3, 5, 5), np.float32)})
    with pytest.raises(WeightsError, match=r"vgg16\.npz: features\.0 is of another network; remove the file, then run"):
        make_perceptual("vgg16", "pretrained", seed=0)


@pytest.mark.parametrize("widths", [(64, 128, 256, 512), (64, 128, 256, 512, 100)])
def test_heads_that_do_not_fit_are_refused(vgg16, tmp_path, widths):
    np.savez(tmp_path / "vgg16.npz", **vgg16)
    np.savez(tmp_path / "lpips-vgg.npz", **{f"lin{i}.weight": np.ones((1, w, 1, 1)) for i, w in enumerate(widths)})
    with pytest.raises(WeightsError, match=r"lpips-vgg\.npz: holds weights of .* channels, expected \[64, 128"):
        make_perceptual("lpips-vgg", "pretrained", seed=0)
