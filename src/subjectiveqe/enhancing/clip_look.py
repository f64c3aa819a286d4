"""What is found out about a clip before its first frame: how coarse its frames are, from beginning to end."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..codecs.clip_header import clip_coarseness
from .clip import Pictures, open_video, span_s, to_rgb
from .enhancer import Enhancer
from .look import mean_look
from .network import Floats

if TYPE_CHECKING:
    from av import VideoFrame

_SAMPLES = 8
"""Frames by which the coarseness of a clip is estimated; one estimate for all, or the picture would pulse."""

_PLACES, _EVERY_S = (8, 240), 10.0
"""At how many places of a clip its headers are read, least and most, and in between how far apart."""

_MOST_BEYOND = 0.25
"""By how much a clip may look coarser than its file says. Many do, since frames that are predicted from others are
soft, and so does what was coarser once and was coded again. It is taken for so much coarser and no more, lest fine
ones are spoilt (benchmarks/videos.py)."""


class ClipLook(NamedTuple):
    """How coarse a clip is.

    Attributes:
        times_s: places in the clip, rising; one alone stands for all.
        coarseness: there, (N, K), see `codecs.coarseness`; None where the network does not ask.
    """

    times_s: tuple[float, ...]
    coarseness: Floats | None

    @property
    def mean(self) -> Floats | None:
        """Over all places."""
        return None if self.coarseness is None else self.coarseness.mean(axis=0)

    @property
    def throughout(self) -> ClipLook:
        """The mean, at all times."""
        return ClipLook((0.0,), None if self.coarseness is None else self.coarseness.mean(axis=0, keepdims=True))

    def at(self, time_s: float) -> Floats | None:
        """What the network is told of a frame, (K,): between two places something between."""
        if self.coarseness is None:
            return None
        told: Floats = np.array([np.interp(time_s, self.times_s, values) for values in self.coarseness.T], np.float32)
        return told

    def to_json(self) -> str:
        """For `from_json`."""
        return json.dumps([self.times_s, None if self.coarseness is None else self.coarseness.tolist()])

    @classmethod
    def from_json(cls, text: str) -> ClipLook:
        """The same again; ValueError or TypeError where the text is none of `to_json`."""
        times_s, coarseness = json.loads(text)
        return cls(tuple(times_s), None if coarseness is None else np.array(coarseness, np.float32))


def look_at_clip(source: Path, enhancer: Enhancer) -> ClipLook:
    """Goes by what the file says of its quantisers, or by frames all over the clip."""
    with open_video(source) as container:
        pictures = Pictures(container)
        start_s, end_s = span_s(container)
        looks = [
            enhancer.look(to_rgb(frame))
            for place_s in np.linspace(start_s, end_s, _SAMPLES, endpoint=False)
            for frame in _frame_at(source, pictures, place_s)
        ]
        coarseness = mean_look(looks).coarseness if looks else None
        if coarseness is None:
            return ClipLook((0.0,), None)
        if enhancer.assume is None and coarseness.any():
            places = min(max(math.ceil((end_s - start_s) / _EVERY_S), _PLACES[0]), _PLACES[1])
            places_s = np.linspace(start_s, end_s, places, endpoint=False)
            if said := clip_coarseness(container, pictures.stream, places_s, len(coarseness)):
                return _believed(coarseness, *zip(*said, strict=True))
    return ClipLook((0.0,), coarseness[None])


def _frame_at(source: Path, pictures: Pictures, place_s: float) -> list[VideoFrame]:
    """One behind the key frame before a place, which may be better than the rest; in a file that cannot be sought,
    behind the first; none where none can be decoded.
    """
    import av

    with suppress(av.FFmpegError):
        pictures.stream.container.seek(int(place_s * 1e6))
    frames = list(islice(pictures.decode(), 2))
    if not frames:
        with open_video(source) as again:
            frames = list(islice(Pictures(again).decode(), 2))
    return frames[-1:]


def _believed(coarseness: Floats, times_s: tuple[float, ...], said: tuple[tuple[float, ...], ...]) -> ClipLook:
    """What the file says, unless the clip looks coarser by far; then that, within limits."""
    told: Floats = np.array(said, np.float32)
    most, looks_like = told.mean(axis=0).max() + _MOST_BEYOND, coarseness.max()
    if looks_like > most:
        return ClipLook((0.0,), (coarseness * (most / looks_like))[None])
    return ClipLook(times_s, told)
