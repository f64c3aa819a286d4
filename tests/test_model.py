"""The bundled model on the bundled pictures: better to the judge, no blocks left, no grid of its own."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from subjectiveqe import metrics
from subjectiveqe.codecs import crop_to_multiple, get_codec
from subjectiveqe.codecs.coarseness import coarseness
from subjectiveqe.config import read_card
from subjectiveqe.demo import DemoPairs
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.look import Look
from subjectiveqe.images import read_rgb
from subjectiveqe.samples import samples

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def triples():
    """(codec, lq, out, gt) of every picture of the demo, at the pleasing end."""
    pairs, enhancer = DemoPairs(samples()), Enhancer("fast", "onnxruntime", strength=1.0)
    return [(info.codec, *pairs.read(k), enhancer(pairs.read(k)[0])) for k, info in enumerate(pairs.infos)]


@pytest.fixture(scope="module")
def judged(triples):
    """The function `judged(model, strength)`: PSNR and LPIPS of each picture of the demo; of "none", of its input."""

    @cache
    def judge(model, strength=1.0):
        enhancer = Enhancer(model, "onnxruntime", strength=strength) if model != "none" else (lambda lq: lq)
        outs = [(out if (model, strength) == ("fast", 1.0) else enhancer(lq), gt) for _, lq, gt, out in triples]
        return np.array([[metric(out, gt) for out, gt in outs] for metric in (metrics.psnr, metrics.lpips)])

    return judge


@pytest.fixture(scope="module", params=["hevc", "jpeg"])
def of_codec(request, triples):
    return request.param, [(lq, out, gt) for codec, lq, gt, out in triples if codec == request.param]


def test_lpips_falls_on_every_picture_and_clearly_on_the_mean(of_codec):
    codec, triples = of_codec
    shares = [metrics.lpips(out, gt) / metrics.lpips(lq, gt) for lq, out, gt in triples]
    assert max(shares) < 1
    assert np.mean(shares) < {"hevc": 0.9, "jpeg": 0.7}[codec]


def test_psnr_stays_within_a_decibel(of_codec):
    losses = [metrics.psnr(lq, gt) - metrics.psnr(out, gt) for lq, out, gt in of_codec[1]]
    assert np.mean(losses) < 1.0


def test_no_blocks_are_left(of_codec):
    assert np.mean([metrics.blockiness(out) for _, out, _ in of_codec[1]]) < 1.3


def test_there_is_no_grid(of_codec):
    codec, triples = of_codec
    left = metrics.grid_lines((out, gt) for _, out, gt in triples)
    came = metrics.grid_lines((lq, gt) for lq, _, gt in triples)
    for period_px, power_ratio in left.items():
        # 1.5 times the neighbours' amplitude; JPEG brings a line of its own at 8 px, which may stay as far as it came.
        own = came[period_px] if (codec, period_px) == ("jpeg", 8) else 0.0
        assert power_ratio <= max(1.5**2, own), f"{period_px} px"


@pytest.mark.parametrize(("codec", "level"), [("webp", 20), ("avif", 30), ("resaved", 40)])
def test_other_codecs_get_better_too(codec, level):
    """At the default, where integers are used."""
    enhancer, shares = Enhancer(runtime="onnxruntime"), []
    for path in samples():
        gt = crop_to_multiple(read_rgb(path))
        lq = get_codec(codec).code(gt, level).rgb
        shares.append(metrics.lpips(enhancer(lq), gt) / metrics.lpips(lq, gt))
    assert max(shares) < 1
    assert np.mean(shares) < 0.9


def drawn(name):
    """Pictures whose colours are easily spoilt: (300, 400, 3) uint8."""
    rows, cols = np.mgrid[:300, :400]
    if name == "flat gray":
        return np.full((300, 400, 3), 127, np.uint8)
    if name == "white page":
        ink = (rows % 20 > 10) & (cols % 60 > 8) & (np.random.default_rng(0).random((300, 400)) < 0.4)
        return np.repeat(np.where(ink & (cols > 40) & (rows > 40), 40, 255).astype(np.uint8)[..., None], 3, axis=2)
    return np.stack((rows * 0.8, cols * 0.6, (rows + cols) * 0.3), axis=2).astype(np.uint8)


def off_from_afar(out, lq):
    """Largest difference of a channel behind a Gaussian of sigma 32 px, in levels."""
    return np.abs(gaussian_filter(out.astype(float) - lq, (32, 32, 0), mode="reflect")).max()


@pytest.mark.parametrize("name", ["flat gray", "white page", "gradient"])
def test_drawn_pictures_keep_their_colours(name):
    lq = drawn(name)
    assert off_from_afar(Enhancer(runtime="onnxruntime")(lq), lq) < 0.25


def test_photos_keep_their_colours_as_seen_from_afar(triples):
    assert max(off_from_afar(out, lq) for _, lq, _, out in triples) < 0.25


@pytest.mark.parametrize(
    ("model", "runtime", "level"),
    [
        ("fast", "onnxruntime", 1),
        ("fast-int8", "onnxruntime", 2),
        ("best", "onnxruntime", 1),
        ("fast", "openvino", 2),
        ("fast-int8", "openvino", 2),
    ],
)
@pytest.mark.parametrize("known", [("hevc", 22), ("hevc", 45), ("jpeg", 10)])
def test_no_tile_can_be_seen(known, model, runtime, level):
    """At hard content: noise, lines, and a photo at JPEG QF 10, between tiles of 64 px; OpenVINO may take bfloat16."""
    pytest.importorskip(runtime)
    photo = get_codec("jpeg").code(read_rgb(samples()[2]), 10).rgb[:300, :300]
    photo[:100, :100] = np.random.default_rng(0).integers(0, 2, (100, 100, 3)) * 255
    photo[200:, ::4] = 255 - photo[200:, ::4]
    told = np.array(coarseness(*known), np.float32)
    whole, tiled = (Enhancer(model, runtime, tile_px=side).with_look(photo, Look(told)) for side in (0, 64))
    assert np.abs(whole.astype(int) - tiled).max() <= level
    assert (whole != tiled).mean() < 0.01


def test_the_dial_trades_fidelity_for_looks(judged):
    """From end to end PSNR falls and LPIPS falls; the faithful end is nearer to all originals than its inputs."""
    psnrs, lpipss = zip(*(judged("fast", strength) for strength in (0.0, 0.5, 1.0)), strict=True)
    assert (psnrs[0] > judged("none")[0]).all()
    means = np.mean(psnrs, axis=1)
    assert (np.diff(means) < -0.05).all()
    assert means[0] - means[-1] > 0.4
    assert (np.diff(np.mean(lpipss, axis=1)) < 0).all()


def test_best_is_better_than_fast(judged):
    """To both judges on the mean, at both ends of the dial."""
    for strength in (0.0, 1.0):
        psnr, lpips = (judged("best", strength) - judged("fast", strength)).mean(axis=1)
        assert psnr > 0 > lpips


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_integers_cost_little(triples, runtime):
    """Both models on all pictures of the demo, where the dial is unless it is turned."""
    if runtime == "openvino":
        pytest.importorskip("openvino")
    integers, floats = Enhancer("fast-int8", runtime), Enhancer("fast", "onnxruntime")
    assert integers.metadata["precision"] == "int8"
    outs = [(integers(lq), floats(lq), lq, gt) for _, lq, gt, _ in triples]
    lost = [metrics.lpips(ours, gt) - metrics.lpips(theirs, gt) for ours, theirs, _, gt in outs]
    assert np.mean(lost) < 0.002
    assert all(metrics.lpips(ours, gt) < metrics.lpips(lq, gt) for ours, _, lq, gt in outs)


def test_all_engines_take_a_picture_for_equally_coarse(triples):
    """The estimate stays in floats of 32 bits, whatever type the processor is fastest in."""
    pytest.importorskip("openvino")
    theirs, ours = (Enhancer(runtime=runtime) for runtime in ("onnxruntime", "openvino"))
    for _, lq, _, _ in triples:
        assert np.allclose(theirs.look(lq).coarseness, ours.look(lq).coarseness, atol=1e-3)


def test_the_file_says_what_it_is_and_where_it_comes_from():
    header = Enhancer(runtime="onnxruntime").metadata
    assert header["net"] == "unet"
    ends = (header["recipe"], header["faithful_recipe"])
    assert ends == ("fast-long-ssim", "fast-psnr-faithful")
    assert header["licence"] == "Apache-2.0"
    assert "CID22" in header["trained_on"]


@pytest.mark.parametrize(("model", "card"), [("fast", "fast"), ("fast-int8", "fast"), ("best", "best")])
def test_the_file_holds_its_card(model, card):
    """As `sqe export --card` has put it there."""
    said = read_card(ROOT / "checkpoints" / f"{card}.card.yaml")
    assert {"hardware", "losses", "figures", "fails", "not_for"} <= set(said)
    header = Enhancer(model, "onnxruntime").metadata
    assert {name: header[name] for name in said} == said
