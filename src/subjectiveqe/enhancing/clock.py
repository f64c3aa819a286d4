"""One clock for recordings whose own jumps: where broadcasts were put together, or their counter began anew."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from .clip import open_video, picture_stream

_FORMATS = ("mpegts", "mpeg")
_BACK_S, _FORTH_S = 0.1, 10
"""What is a jump: the same stream goes back by more than that, or ahead. FFmpeg takes the same for one."""


class Clock(NamedTuple):
    """How times of a file become times of one clock.

    Attributes:
        places: bytes of the file from where its clock goes otherwise, rising.
        jumps_s: when that is, by this clock.
        shifts_s: what is added to times at first, and from each place on.
    """

    places: tuple[int, ...] = ()
    jumps_s: tuple[float, ...] = ()
    shifts_s: tuple[Fraction, ...] = (Fraction(0),)

    @property
    def begin_s(self) -> float:
        """What the file calls the time at which this clock begins."""
        return -float(self.shifts_s[0])

    def set(self, packet: Any) -> None:
        """Makes a packet tell its time by this clock."""
        if ticks := round(self.shifts_s[bisect(self.places, packet.pos or 0)] / packet.time_base):
            packet.pts, packet.dts = (None if time is None else time + ticks for time in (packet.pts, packet.dts))


def clock_of(source: Path) -> Clock:
    """Reads a broadcast to its end, which needs no decoding, and puts what follows a jump right behind what came.

    Its clock says nothing of the recording, which players would begin by hours of nothing, so it begins at 0. Other
    files have an index, and their times are taken as they are.
    """
    with open_video(source) as container:
        if container.format.name not in _FORMATS:
            return Clock()
        begin_s = Fraction(container.start_time or 0, 10**6)
        places = _jumps(container)
    if not places:
        return Clock(shifts_s=(-begin_s,))
    begins: dict[int, Fraction] = {}
    ends: dict[int, Fraction] = {}
    with open_video(source) as container:
        frame_s = 1 / Fraction(picture_stream(container).average_rate or 25)
        for packet in _timed(container):
            part = bisect(places, packet.pos)
            first_s = (packet.dts if packet.pts is None else packet.pts) * packet.time_base
            last_s = first_s + (packet.duration * packet.time_base if packet.duration else frame_s)
            begins[part] = min(first_s, begins.get(part, first_s))
            ends[part] = max(last_s, ends.get(part, last_s))
    lost_s = (ends[part] - begins[part + 1] for part in range(len(places)))
    shifts_s = [*accumulate(lost_s, initial=-begin_s)]
    jumps_s = [float(begins[part] + shifts_s[part]) for part in range(1, len(shifts_s))]
    return Clock(tuple(places), tuple(jumps_s), tuple(shifts_s))


def _jumps(container: Any) -> list[int]:
    """Where all streams jump, in bytes; each does so at its first packet behind that place."""
    before: dict[int, tuple[int, Fraction]] = {}
    seen: list[tuple[int, int]] = []
    for packet in _timed(container):
        time_s = packet.dts * packet.time_base
        was_at, was_s = before.get(packet.stream.index, (0, time_s))
        if not -_BACK_S <= time_s - was_s <= _FORTH_S:
            seen.append((packet.pos, was_at))
        before[packet.stream.index] = packet.pos, time_s
    places: list[int] = []
    for first_behind, last_before in sorted(seen):
        if not places or last_before >= places[-1]:
            places.append(first_behind)
    return places


def _timed(container: Any) -> Iterator[Any]:
    """Packets of pictures and sound whose place and time are known."""
    streams = [stream for stream in container.streams if stream.type in ("video", "audio")]
    for packet in container.demux(streams):
        if packet.size and packet.pos is not None and packet.dts is not None:
            yield packet
