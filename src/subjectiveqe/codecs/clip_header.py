"""What a video's file says of how coarsely its frames were quantised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from statistics import mean
from typing import TYPE_CHECKING, Any

from .bitstream import Fields, Headers, headers_logged
from .coarseness import avif_step, coarseness

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

_PLACES, _EVERY_S = (8, 240), 10.0
"""At how many places of a clip its headers are read, least and most, and in between how far apart."""

_PACKETS, _MOST_PASSED = 24, 600
"""How many are read at a place, and how many at most on the way to it from the key frame before."""

_PREDICTED_QP, _OF_INDEX_QP = 8, 2
"""How much less coarse than its quantiser says a frame is taken to be that is predicted from finer ones, and one of VP9
or AV1 besides. Of 5 clips, LPIPS was near its least so, and PSNR and SSIMULACRA2 not below the source's, at all rates
that people use (benchmarks/videos.py)."""


def clip_coarseness(container: Any, stream: VideoStream, num: int) -> list[tuple[float, tuple[float, ...]]]:
    """Reads the quantisers out of the headers of frames all over a clip, without decoding them.

    These are the QP of slices in H.264 and HEVC, and base_q_idx in VP9 and AV1.

    Args:
        container: PyAV's; it is sought.
        stream: its pictures.
        num: how many of `coarseness.FAMILIES` the network is told.
    Returns:
        Seconds, rising, and `num` numbers as `coarseness.coarseness` gives them for HEVC; nothing where the file does
        not say.
    """
    import av

    family = "444" if stream.format is None or stream.format.chroma_width(16) == 16 else "420"
    said: dict[float, tuple[float, ...]] = {}
    length_s, start_s = (container.duration or 0) / 1e6, (container.start_time or 0) / 1e6
    places = min(max(math.ceil(length_s / _EVERY_S), _PLACES[0]), _PLACES[1])
    try:
        with headers_logged():
            headers = Headers(stream)
            for place_s in (start_s + length_s * number / places for number in range(places)):
                container.seek(int(place_s * 1e6))
                found = list(islice(_quantisers(container, stream, headers, place_s), _PACKETS))
                if found:
                    times, qps = zip(*found, strict=True)
                    said[mean(times)] = coarseness("hevc", mean(qps), num, family)
    except (av.FFmpegError, ValueError):  # FFmpeg cannot read these headers, or cannot seek
        pass
    return sorted(said.items())


def _quantisers(container: Any, stream: VideoStream, headers: Headers, place_s: float) -> Iterator[tuple[float, float]]:
    """The time of each packet from a place on, and what QP of a single picture it is like."""
    import av

    base = _base_qp(headers.of_stream, 26)
    for number, packet in enumerate(container.demux(stream)):
        time_s, is_predicted = _time_s(packet), not packet.is_keyframe
        try:
            fields = headers.of_packet(packet) if packet.size else []
        except (av.FFmpegError, ValueError):  # damaged
            continue
        base = _base_qp(fields, base)
        if (qps := _qps(fields, base)) and (time_s >= place_s or number >= _MOST_PASSED):
            yield time_s, mean(qps) - _PREDICTED_QP * is_predicted


def _base_qp(fields: Fields, base: int) -> int:
    """The QP that those of slices are counted from, as the last set of parameters has it."""
    for name, value in fields:
        if name in ("init_qp_minus26", "pic_init_qp_minus26"):
            base = 26 + value
    return base


def _qps(fields: Fields, base: int) -> list[float]:
    qps = [float(base + value) for name, value in fields if name == "slice_qp_delta"]
    indices = [value for name, value in fields if name == "base_q_idx"]
    return qps or [4 + 6 * math.log2(avif_step(index)) - _OF_INDEX_QP for index in indices]


def _time_s(packet: Packet[Any]) -> float:
    time = packet.dts if packet.pts is None else packet.pts
    return 0.0 if time is None else float(time * packet.time_base)
