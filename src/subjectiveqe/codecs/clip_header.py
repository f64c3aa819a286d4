"""What a video's file says of how coarsely its frames were quantised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from statistics import mean
from typing import TYPE_CHECKING, Any

from .bitstream import Headers, SliceQps, headers_logged, packet_s
from .coarseness import avif_step, coarseness, hevc_qp

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_CODECS = ("h264", "hevc", "vp9", "av1")

_PACKETS, _MOST_PASSED = 24, 10_000
"""How many are read at a place, and how many at most on the way to it from the key frame before."""

_PREDICTED_QP, _OF_INDEX_QP = 8, 4
"""How much less coarse than its quantiser says a frame is taken to be that is predicted from finer ones, and one of VP9
or AV1 besides. Of 5 clips at all rates that people use LPIPS was near its least so, and PSNR and SSIMULACRA2 about the
source's or above (benchmarks/videos.py)."""


def clip_coarseness(
    container: Any, stream: VideoStream, places_s: Iterable[float], num: int
) -> list[tuple[float, tuple[float, ...]]]:
    """Reads the quantisers out of the headers of some frames at places of a clip, without decoding them.

    These are the QP of slices in H.264 and HEVC, and base_q_idx in VP9 and AV1.

    Args:
        container: PyAV's; it is sought.
        stream: its pictures.
        places_s: in seconds, as its timestamps count them.
        num: how many of `coarseness.FAMILIES` the network is told.
    Returns:
        Seconds, rising, and `num` numbers as `coarseness.coarseness` gives them for HEVC; nothing where the file does
        not say.
    """
    import av

    if stream.codec_context.codec.canonical_name not in _CODECS:
        return []
    chroma = "444" if stream.format and stream.format.chroma_width(16) == 16 else "420"
    said: dict[float, tuple[float, ...]] = {}
    try:
        with headers_logged():
            headers = Headers(stream)
            slice_qps = SliceQps(headers.of_stream)
            for place_s in places_s:
                container.seek(int(place_s * 1e6))
                packets = _packets(container, stream, headers, slice_qps, place_s)
                if found := list(islice(packets, _PACKETS)):
                    times_s, qps = zip(*found, strict=True)
                    said[mean(times_s)] = coarseness("hevc", mean(qps), num, chroma)
    except (av.FFmpegError, ValueError):  # FFmpeg cannot read these headers, or cannot seek
        pass
    return sorted(said.items())


def _packets(
    container: Any, stream: VideoStream, headers: Headers, slice_qps: SliceQps, place_s: float
) -> Iterator[tuple[float, float]]:
    """The time of each packet from a place on, and the QP of a single picture that is as coarse."""
    import av

    for packet in islice(container.demux(stream), _MOST_PASSED):
        time_s, is_predicted = packet_s(packet), not packet.is_keyframe
        try:
            fields = headers.of_packet(packet) if packet.size else []
        except (av.FFmpegError, ValueError):  # damaged
            continue
        indices = [value for name, value in fields if name == "base_q_idx"]
        qps = slice_qps.read(fields) or [hevc_qp(avif_step(index)) - _OF_INDEX_QP for index in indices]
        if qps and time_s >= place_s:
            yield time_s, mean(qps) - _PREDICTED_QP * is_predicted
