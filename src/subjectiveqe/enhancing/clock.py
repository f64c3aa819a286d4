"""One clock for recordings whose own jumps: where broadcasts were put together, or their counter began anew."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from .clip import demux, open_video, picture_stream

_FORMATS = ("mpegts", "mpeg")
_BACK_S, _FORTH_S = 0.1, 60
"""What is a jump: times that go back by more than that, or ahead. Reception is lost, or a slide is seen, for less."""

_ALIKE_S = 2
"""By how much the jumps of streams may differ; else it is not the clock that jumps."""


class Clock(NamedTuple):
    """How times of a file become times of one clock.

    Attributes:
        places: bytes of the file from where its clock goes otherwise, rising.
        jumps_s: when that is, by this clock.
        shifts_s: what is added to times at first, and from each place on.
        end_s: when the last picture or sound ends, by this clock; None where nothing jumps.
    """

    places: tuple[int, ...] = ()
    jumps_s: tuple[float, ...] = ()
    shifts_s: tuple[Fraction, ...] = (Fraction(0),)
    end_s: float | None = None

    @property
    def begin_s(self) -> float:
        """What the file calls the time at which this clock begins."""
        return -float(self.shifts_s[0])

    def packets(self, packets: Iterable[Any]) -> Iterator[Any]:
        """Packets of a file, from its beginning, that tell their time by this clock."""
        for packet, place in _placed(packets):
            if ticks := round(self.shifts_s[bisect(self.places, place)] / packet.time_base) if packet.time_base else 0:
                packet.pts, packet.dts = (None if time is None else time + ticks for time in (packet.pts, packet.dts))
            yield packet


def clock_of(source: Path) -> Clock:
    """Puts what follows a jump of a broadcast's clock right behind what came.

    For that the file is read to its end, without decoding, and twice more where there is a jump. Such a clock says
    nothing of the recording, which players would begin by hours of nothing, so it begins at 0. Other files have an
    index, and their times are taken as they are.
    """
    with open_video(source) as container:
        if container.format.name not in _FORMATS:
            return Clock()
        begin_s = Fraction(container.start_time or 0, 10**6)
        frame_s = 1 / Fraction(picture_stream(container).average_rate or 25)
        places = _jumps(container)
    if places:
        with open_video(source) as container:
            places = _common(container, places)
    if not places:
        return Clock(shifts_s=(-begin_s,))
    begins: dict[int, Fraction] = {}
    ends: dict[int, Fraction] = {}
    with open_video(source) as container:
        for packet, place, _ in _timed(container):
            part = bisect(places, place)
            first_s = (packet.dts if packet.pts is None else packet.pts) * packet.time_base
            last_s = first_s + (packet.duration * packet.time_base if packet.duration else frame_s)
            begins[part] = min(first_s, begins.get(part, first_s))
            ends[part] = max(last_s, ends.get(part, last_s))
    lost_s = (ends[part] - begins[part + 1] for part in range(len(places)))
    shifts_s = [*accumulate(lost_s, initial=-begin_s)]
    jumps_s = [float(begins[part] + shifts_s[part]) for part in range(1, len(shifts_s))]
    return Clock(tuple(places), tuple(jumps_s), tuple(shifts_s), float(ends[len(places)] + shifts_s[-1]))


def _is_jump(from_s: Fraction, to_s: Fraction) -> bool:
    return not -_BACK_S <= to_s - from_s <= _FORTH_S


def _jumps(container: Any) -> list[int]:
    """Bytes at which some stream jumps; streams that do so together come by one of them."""
    before: dict[int, tuple[int, Fraction]] = {}
    seen: list[tuple[int, int]] = []
    for packet, place, time_s in _timed(container):
        was_at, was_s = before.get(packet.stream.index, (0, time_s))
        if _is_jump(was_s, time_s):
            seen.append((place, was_at))
        before[packet.stream.index] = place, time_s
    places: list[int] = []
    for first_behind, last_before in sorted(seen):
        if not places or last_before >= places[-1]:
            places.append(first_behind)
    return places


def _common(container: Any, places: list[int]) -> list[int]:
    """Those of the places at which all streams that are on both sides jump alike."""
    before: dict[int, tuple[int, Fraction]] = {}
    jumps_s: list[list[Fraction]] = [[] for _ in places]
    for packet, place, time_s in _timed(container):
        part = bisect(places, place)
        last_part, last_s = before.get(packet.stream.index, (part, time_s))
        if part == last_part + 1:
            jumps_s[last_part].append(time_s - last_s)
        before[packet.stream.index] = part, time_s
    return [place for place, found in zip(places, jumps_s, strict=True) if found and _are_alike(found)]


def _are_alike(jumps_s: list[Fraction]) -> bool:
    least_s, most_s = min(jumps_s), max(jumps_s)
    return most_s - least_s < _ALIKE_S and (most_s < 0 or least_s > _FORTH_S - _ALIKE_S)


def _placed(packets: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    """With the byte where each packet begins; where several came in one of the file's, FFmpeg tells it of the first."""
    places: dict[int, int] = {}
    for packet in packets:
        if packet.pos is not None:
            places[packet.stream.index] = packet.pos
        yield packet, places.get(packet.stream.index, 0)


def _timed(container: Any) -> Iterator[tuple[Any, int, Fraction]]:
    """Packets of pictures and sound that say when they are decoded, with their bytes and that time.

    One that is wrong alone is left out: the next one does not go on from there.
    """
    streams = [stream for stream in container.streams if stream.type in ("video", "audio")]
    before: dict[int, Fraction] = {}
    doubtful: dict[int, tuple[Any, int, Fraction]] = {}
    for packet, place in _placed(demux(container, streams)):
        if not packet.size or packet.dts is None:
            continue
        index, time_s = packet.stream.index, packet.dts * packet.time_base
        jumped = doubtful.pop(index, None)
        if jumped is not None and _is_jump(before[index], time_s) and not _is_jump(jumped[2], time_s):
            before[index] = jumped[2]
            yield jumped
        if _is_jump(before.get(index, time_s), time_s):
            doubtful[index] = packet, place, time_s
        else:
            before[index] = time_s
            yield packet, place, time_s
