"""Colours seen from afar stay those of the input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from subjectiveqe.enhancing.colorlock import ColorLock

LEVELS = 0.25
"""How far a channel may be off behind a Gaussian of sigma 32 px."""


def seen_from_afar(difference):
    return np.abs(gaussian_filter(difference.astype(float), (32, 32, 0), mode="reflect")).max()


def lock(lq, out, sizes=(10_000,)):
    """The result in one piece, whatever sizes the strips have."""
    colors, parts, top = ColorLock(len(lq), lq.dtype), [], 0
    while top < len(lq):
        count = sizes[len(parts) % len(sizes)]
        parts.append(colors(lq[top : top + count], out[top : top + count]))
        top += count
    return np.concatenate(parts)


@pytest.mark.parametrize("size", [(1, 1), (16, 24), (64, 333), (300, 65), (512, 768)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tint_and_slow_waves_are_taken_out_and_detail_stays(size, dtype):
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[: size[0], : size[1]]
    scale = np.iinfo(dtype).max // 255
    lq = (rng.integers(64, 192, (*size, 3)) * scale).astype(dtype)
    drift = 2 * np.sin(cols / 40) * np.cos(rows / 60) + 1.5 + 5 * (cols < 3)
    detail = rng.normal(0, 3, lq.shape)
    out = np.rint((lq / scale + drift[..., None] + detail) * 257).astype(np.uint16)
    locked = lock(lq, out)
    assert locked.dtype == dtype
    assert locked.shape == lq.shape
    off = (locked.astype(float) - lq) / scale
    if size != (1, 1):
        assert seen_from_afar(out / 257 - lq / scale) > 5 * LEVELS
        assert np.corrcoef(off.ravel(), detail.ravel())[0, 1] > 0.8
    assert seen_from_afar(off) < LEVELS


@pytest.mark.parametrize("size", [(145, 634), (505, 90), (97, 500), (96, 96)])
def test_cells_that_the_border_cuts_count_by_their_size(size):
    rng = np.random.default_rng(2)
    lq = rng.integers(64, 192, (*size, 3)).astype(np.uint8)
    blocks = rng.normal(0, 12, (size[0] // 8 + 1, size[1] // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)
    out = np.rint((lq + blocks[: size[0], : size[1]]) * 257).astype(np.uint16)
    assert seen_from_afar(out / 257 - lq) > 2 * LEVELS
    assert seen_from_afar(lock(lq, out).astype(float) - lq) < LEVELS


def test_a_drift_that_rises_within_each_block_is_seen_at_the_border():
    lq = np.full((160, 160, 3), 128, np.uint8)
    ramp = 2.5 * (np.arange(160) % 8 - 3.5)
    out = np.rint((lq + ramp[:, None]) * 257).astype(np.uint16)
    assert seen_from_afar(out / 257 - lq) > 1.2 * LEVELS
    assert seen_from_afar(lock(lq, out).astype(float) - lq) < LEVELS


@pytest.mark.parametrize("tint", [-20, 3, 20])
def test_a_tint_is_taken_out_however_strong(tint):
    lq = np.random.default_rng(4).integers(64, 192, (60, 80, 3)).astype(np.uint8)
    out = ((lq.astype(int) + tint) * 257).astype(np.uint16)
    assert seen_from_afar(lock(lq, out).astype(float) - lq) < LEVELS


@pytest.mark.parametrize("clipped", [0, 255])
def test_where_rounding_undoes_the_correction_other_pixels_make_up_for_it(clipped):
    rng = np.random.default_rng(3)
    lq = rng.integers(64, 192, (200, 200, 3)).astype(np.uint8)
    lq[rng.random((200, 200)) < 0.6] = clipped
    tint = rng.normal(1 if clipped else -1, 1, lq.shape)
    out = np.where(lq == clipped, np.uint16(clipped * 257), np.rint((lq + tint) * 257)).astype(np.uint16)
    assert seen_from_afar(out / 257 - lq) > 1.5 * LEVELS
    assert seen_from_afar(lock(lq, out).astype(float) - lq) < LEVELS


def test_strips_of_any_size_give_the_same_rows():
    rng = np.random.default_rng(1)
    lq = rng.integers(0, 256, (333, 70, 3)).astype(np.uint8)
    out = rng.integers(0, 65536, lq.shape).astype(np.uint16)
    whole = lock(lq, out)
    assert len(whole) == 333
    for sizes in [(8,), (1, 50, 7), (200, 3)]:
        assert np.array_equal(lock(lq, out, sizes), whole)


def test_only_a_few_rows_wait():
    lq = np.zeros((600, 30, 3), np.uint8)
    colors, given = ColorLock(600, lq.dtype), 0
    for top in range(0, 600, 20):
        given += len(colors(lq[top : top + 20], np.zeros((20, 30, 3), np.uint16)))
        assert top + 20 - given <= 376 + 8
    assert given == 600


@pytest.mark.parametrize("is_white", [False, True])
def test_nearly_white_and_nearly_black_pixels_move_as_far_as_they_can(is_white):
    rng = np.random.default_rng(5)
    rows, cols = np.mgrid[:200, :256]
    is_sky = (cols + rows < 250)[..., None]
    lq = np.where(is_sky, 255, 150 + rng.normal(0, 20, (200, 256, 3)))
    out = lq + np.where(is_sky, -np.abs(rng.normal(3, 1, lq.shape)), 5)
    if not is_white:
        lq, out = 255 - lq, 255 - out
    lq, out = np.rint(lq).astype(np.uint8), np.rint(out * 257).astype(np.uint16)
    assert seen_from_afar(out / 257 - lq) > 10 * LEVELS
    assert seen_from_afar(lock(lq, out).astype(float) - lq) < LEVELS
