"""The bundled model on the bundled pictures: better to the judge, no blocks left, no grid of its own."""

import numpy as np
import pytest

from subjectiveqe import metrics
from subjectiveqe.demo import SamplePairs
from subjectiveqe.enhancing.enhancer import Enhancer


@pytest.fixture(scope="module")
def triples():
    """(codec, lq, out, gt) of every picture of the demo."""
    pairs, enhancer = SamplePairs(), Enhancer(runtime="onnxruntime")
    return [(info.codec, *pairs.read(k), enhancer(pairs.read(k)[0])) for k, info in enumerate(pairs.infos)]


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


def test_the_file_says_what_it_is_and_where_it_comes_from():
    header = Enhancer(runtime="onnxruntime").metadata
    assert header["net"] == "unet"
    assert header["recipe"] == "blind-told-estimator"
    assert header["licence"] == "Apache-2.0"
    assert "CID22" in header["trained_on"]
