"""What rests in a video stays at rest."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from subjectiveqe.enhancing.steady import Steadier


def flicker(frames):
    return np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_rests_changes_no_more_than_the_input(dtype):
    rng = np.random.default_rng(0)
    scale = np.iinfo(dtype).max // 255
    still = rng.integers(50, 200, (48, 64, 3))
    lqs = [((still + (rng.random(still.shape) < 0.1)) * scale).astype(dtype) for _ in range(20)]
    outs = [((still + rng.integers(-4, 5, still.shape)) * scale).astype(dtype) for _ in lqs]
    steady = Steadier()
    results = [steady(lq, out) for lq, out in zip(lqs, outs, strict=True)]
    assert results[0].dtype == dtype
    assert np.array_equal(results[0], outs[0])
    assert flicker(outs) > 10 * flicker(lqs)
    assert flicker(results) <= 1.1 * flicker(lqs)


def test_a_cut_and_what_moves_are_left_alone():
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (3, 32, 40, 3)).astype(np.uint8)
    steady = Steadier()
    for picture in pictures:
        assert np.array_equal(steady(picture, 255 - picture), 255 - picture)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_slow_change_is_followed(dtype):
    scale = np.iinfo(dtype).max // 255
    steady = Steadier()
    for level in range(60, 90):
        frame = np.full((16, 16, 3), level * scale, dtype)
        assert np.abs(steady(frame, frame + 5 * scale).astype(int) - (frame + 5 * scale)).max() == 0


def test_it_goes_on_from_a_file(tmp_path):
    rng = np.random.default_rng(2)
    frames = rng.integers(100, 103, (4, 16, 16, 3)).astype(np.uint8)
    outs = rng.integers(90, 110, frames.shape).astype(np.uint8)
    whole, first, second = Steadier(), Steadier(), Steadier()
    expected = [whole(*pair) for pair in zip(frames, outs, strict=True)]
    for k in (0, 1):
        first(frames[k], outs[k])
    first.save(tmp_path / "state.npz")
    second.load(tmp_path / "state.npz")
    for k in (2, 3):
        assert np.array_equal(second(frames[k], outs[k]), expected[k])


def test_what_the_next_frame_depends_on_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    steady, frame = Steadier(), np.zeros((8, 8, 3), np.uint8)
    steady(frame, frame)

    def stop_half_way(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", stop_half_way)
    with pytest.raises(OSError, match="No space left"):
        steady.save(tmp_path / "0.npz")
    assert list(tmp_path.iterdir()) == []


def test_thin_strokes_that_fade_are_gone_when_they_have():
    """The limit is the mean change around a pixel, by which such a one falls behind."""
    steady, still = Steadier(), np.full((24, 24, 3), 40, np.uint8)
    for level in (*range(220, 40, -6), *[40] * 20):
        frame = still.copy()
        frame[12, 4:20] = level
        shown = steady(frame, frame)
    assert np.abs(shown.astype(int) - still).max() <= 3
