"""How coarsely a picture was quantised, and what of it a network is told."""

from __future__ import annotations

import numpy as np
import pytest

from subjectiveqe.codecs.coarseness import FAMILIES, as_assumed, coarseness, read_assumed, read_less, told
from subjectiveqe.errors import ConfigError


@pytest.mark.parametrize("strength", [0, 0.5, 1])
def test_a_curve_goes_straight_between_its_points_and_stays_beyond_them(strength):
    less = read_less(["webp:0.75:0", "webp:0.6:0.1"])
    webp = FAMILIES.index("webp")
    for value, how_much in ((0.4, 0.1), (0.6, 0.1), (0.675, 0.05), (0.75, 0), (0.9, 0)):
        coarseness = np.full(5, value, np.float32)
        expected = coarseness.copy()
        expected[webp] -= strength * how_much
        assert told(coarseness, less, strength) == pytest.approx(expected)
        assert (coarseness == np.float32(value)).all()


def test_no_less_than_nothing_is_told():
    less = read_less(["avif:0.5:0.1", "hevc:0.5:0.1"])
    assert told(np.array([0.05, 0.2], np.float32), less, 1) == pytest.approx([0, 0.2])
    assert told(np.array([-0.01, 0.2], np.float32), less, 1) == pytest.approx([-0.01, 0.2])


@pytest.mark.parametrize("text", ["webp", "webp:0.6", "webp:a:0.1", "png:0.6:0.1", "webp:nan:0.1", "webp:0.6:0.1:2"])
def test_what_is_no_point_of_a_curve_is_refused(text):
    with pytest.raises(ConfigError, match=f'--less "{text}": expected family:coarseness:less'):
        read_less([text])


def test_hevc_in_420_is_a_family_of_its_own_where_it_is_known():
    places = {name: FAMILIES.index(name) for name in FAMILIES}
    for codec in ("hevc", "hm"):
        for chroma, family in (("420", "hevc-420"), ("444", "hevc"), ("", "hevc")):
            assert np.flatnonzero(coarseness(codec, 37, chroma=chroma)) == [places[family]]
        assert coarseness(codec, 37, 2, "420") == (0.6875, 0)
    assert np.isnan(coarseness("resaved", 37)).all()


@pytest.mark.parametrize(("codec", "level"), [("hevc", 0), ("jpeg", 100), ("webp", 100), ("avif", 100)])
def test_the_finest_level_has_a_coarseness(codec, level):
    value = max(coarseness(codec, level))
    assert 0 < value < 0.3  # or the largest would not tell the family
    assert value == sum(coarseness(codec, level))


def test_what_is_assumed_has_the_coarseness_of_its_codec_and_level():
    assert read_assumed("jpeg:30") == coarseness("jpeg", 30)
    assert read_assumed("hevc-420:37") == coarseness("hevc", 37, chroma="420")
    for text in ("jpeg:90", "webp:20", "avif:33", "hevc:37", "hevc-420:22", "jpeg:1", "avif:1"):
        assert read_assumed(as_assumed(read_assumed(text))) == read_assumed(text)
    assert as_assumed((0.01, 0.5, 0.3)) == "jpeg:86"
    assert as_assumed((0.01, 0.05, 0.03)) is None


@pytest.mark.parametrize(
    "text", ["", "jpeg", "jpeg:", "jpeg:0", "jpeg:101", "jpeg:-3", "jpeg:3.5", "hm:37", "hevc:52", "webp:0"]
)
def test_what_cannot_be_assumed_is_named(text):
    with pytest.raises(ConfigError, match=rf'^"{text}" is nothing that can be assumed; .*hevc-420:0 to 51$'):
        read_assumed(text)
