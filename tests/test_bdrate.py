"""Bjøntegaard's measure against SciPy's monotone cubic interpolation, and where there is nothing to compare."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from subjectiveqe.evaluating.bdrate import bd_rate, find_fault, overlap


def by_scipy(rate_a, quality_a, rate_b, quality_b):
    low, high = max(min(quality_a), min(quality_b)), min(max(quality_a), max(quality_b))
    areas = []
    for rate, quality in ((rate_a, quality_a), (rate_b, quality_b)):
        order = np.argsort(quality)
        curve = PchipInterpolator(np.array(quality)[order], np.log10(np.array(rate)[order]))
        areas.append(curve.integrate(low, high))
    return 100 * (10 ** ((areas[1] - areas[0]) / (high - low)) - 1)


@pytest.mark.parametrize("falls", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_it_equals_another_implementation(seed, falls):
    rng = np.random.default_rng(seed)
    curves = []
    for start in (0.2, 0.15):
        rate = start * np.cumprod(rng.uniform(1.2, 3, 2 + seed % 5))
        quality = np.cumsum(rng.uniform(0.2, 5, len(rate))) + 28
        order = rng.permutation(len(rate))
        curves += [rate[order], (1 / quality if falls else quality)[order]]
    if math.isnan(bd_rate(*curves)):
        assert max(min(curves[1]), min(curves[3])) >= min(max(curves[1]), max(curves[3]))
    else:
        assert bd_rate(*curves) == pytest.approx(by_scipy(*curves), rel=1e-9, abs=1e-9)


def test_known_savings():
    rate, quality = [0.3, 0.7, 1.5, 3.1], [31.0, 34.5, 37.2, 40.8]
    assert bd_rate(rate, quality, rate, quality) == pytest.approx(0, abs=1e-12)
    assert bd_rate(rate, quality, [0.8 * r for r in rate], quality) == pytest.approx(-20)
    assert bd_rate([0.8 * r for r in rate], quality, rate, quality) == pytest.approx(25)


@pytest.mark.parametrize(
    "other",
    [
        ([1, 2, 3, 4], [50, 51, 52, 53]),  # better than the first reaches
        ([1, 2, 3, 4], [30, 32, 31, 33]),  # more bits, less quality
        ([1, 2, 3, 4], [30, 31, 31, 33]),
        ([1, 2, 3, 4], [30, 31, 32, math.inf]),
        ([0, 2, 3, 4], [30, 31, 32, 33]),
        ([1], [30]),
    ],
)
def test_no_answer_where_there_is_none(other):
    assert math.isnan(bd_rate([1, 2, 4, 8], [30, 32, 34, 36], *other))


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        (([1, 2, 3, 4], [31, 32, 33, 37]), ""),
        (([1, 2, 3, 4], [50, 51, 52, 53]), "the curves share no range of quality"),
        (([1, 2, 3, 4], [30, 32, 31, 33]), "the quality along a curve does not change with the rate in one direction"),
        (([1, 2, 3, 4], [30, 31, 32, math.inf]), "a value is not finite"),
        (([1, 2, 3, math.inf], [30, 31, 32, 33]), "a value is not finite"),
        (([1, 2, 3, 4], [36, 34, 32, 30]), "the quality rises with the rate along one curve and falls along the other"),
        (([1], [30]), "a curve has fewer than two points"),
    ],
)
def test_what_has_no_answer_has_a_reason(other, fault):
    curve = [1, 2, 4, 8], [30, 32, 34, 36]
    assert find_fault(*curve, *other) == fault
    assert math.isnan(bd_rate(*curve, *other)) == bool(fault)


def test_overlap_is_a_share_of_all_that_is_reached():
    assert overlap([30, 36], [32, 38]) == overlap([38, 32], [36, 30]) == pytest.approx(4 / 8)
    assert overlap([30, 36], [30, 36]) == 1
    assert overlap([30, 36], [36, 40]) == overlap([30, 31], [35, 36]) == 0
