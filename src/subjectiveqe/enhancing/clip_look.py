"""What is found out about a clip before its first frame: how coarse its frames are, from beginning to end."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..codecs.clip_header import clip_coarseness
from .clip import decode, open_video, picture_stream, to_rgb
from .enhancer import Enhancer
from .look import mean_look
from .network import Floats

_SAMPLES = 8
"""Frames by which the coarseness of a clip is estimated; one estimate for all, or the picture would pulse."""


_DOUBT = 0.25
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
    """Goes by what the file says of its quantisers, or by frames all over the clip, see `with_clip`."""
    import av

    looks = []
    for number in range(_SAMPLES):
        with open_video(source) as container:
            with suppress(av.FFmpegError):
                container.seek(int((container.duration or 0) * number / _SAMPLES))
            frames = list(islice(decode(container), 2))  # the first is a key frame, which may be better than the rest
        if not frames:  # some files cannot be sought; then the first frames have to do
            with open_video(source) as container:
                frames = list(islice(decode(container), 2))
        looks += [enhancer.look(to_rgb(frame)) for frame in frames[-1:]]
    coarseness = mean_look(looks).coarseness
    if coarseness is None:
        return ClipLook((0.0,), None)
    if enhancer.assume is None:
        with open_video(source) as container:
            if said := clip_coarseness(container, picture_stream(container), len(coarseness)):
                return _with_file(coarseness, *zip(*said, strict=True))
    return ClipLook((0.0,), coarseness[None])


def _with_file(coarseness: Floats, times_s: tuple[float, ...], said: tuple[tuple[float, ...], ...]) -> ClipLook:
    """What the file says, unless the clip looks coarser by far; then that, within limits."""
    told: Floats = np.array(said, np.float32)
    most, looks_like = told.mean(axis=0).max() + _DOUBT, coarseness.max()
    if looks_like > most:
        return ClipLook((0.0,), (coarseness * (most / looks_like))[None])
    return ClipLook(times_s, told)
