"""What the headers of compressed frames say, field by field, as FFmpeg's `trace_headers` logs it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..processes import ForkedLock

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

Fields = list[tuple[str, int]]
"""Names and values, in the order of the file; a name comes once for each slice or frame."""

_FIELD = re.compile(r"\d+ +([\w\[\]]+) +[01]* *= (-?\d+)")
"""Place in bits, name, bits, of which arithmetic coding may need none, and value."""

_FFMPEG_LOG = ForkedLock()
"""Its verbosity is one for all threads."""

_NO_PICTURES = {"h264": "6|12", "hevc": "38-40", "av1": "5|15"}
"""Units of a stream that hold what is no picture (SEI, metadata, filler), of which each byte would be logged."""


@contextmanager
def headers_logged() -> Iterator[None]:
    """Where `Headers` can be read; what else FFmpeg has to say meanwhile, in whatever thread, is dropped."""
    import av.logging

    with _FFMPEG_LOG, av.logging.Capture(local=False):
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            yield
        finally:
            av.logging.set_level(level)


class Headers:
    """Reads the headers of a stream's packets, without decoding a frame.

    Args:
        stream: of a codec whose headers FFmpeg reads, as H.264, HEVC, VP8, VP9 and AV1.
    Raises:
        av.FFmpegError, ValueError: a codec whose headers FFmpeg does not read; of packets too, damaged ones.
    """

    def __init__(self, stream: VideoStream) -> None:
        import av.logging
        from av.bitstream import BitStreamFilterContext

        passed_over = _NO_PICTURES.get(stream.codec_context.codec.canonical_name)
        filters = f"filter_units=remove_types={passed_over}," if passed_over else ""
        with av.logging.Capture() as lines:
            self._filter = BitStreamFilterContext(f"{filters}trace_headers", stream)
        self.of_stream = _fields(lines)
        """What is said once for all packets."""

    def of_packet(self, packet: Packet[Any]) -> Fields:
        """What a packet says, which is empty from then on."""
        import av.logging

        with av.logging.Capture() as lines:
            self._filter.filter(packet)
        return _fields(lines)


def _fields(lines: Iterable[tuple[int, str, str]]) -> Fields:
    return [(field[1], int(field[2])) for _, _, text in lines if (field := _FIELD.fullmatch(text.strip()))]


class SliceQps:
    """The QP of slices of H.264 and HEVC, which are counted from what a set of parameters says that they name.

    Args:
        fields: what is said before the first packet.
    """

    def __init__(self, fields: Fields) -> None:
        self._bases: dict[int, int] = {}
        self.read(fields)

    def read(self, fields: Fields) -> list[float]:
        """Those of a packet; sets of parameters in it count from there on."""
        qps, named = [], 0
        for name, value in fields:
            if name.endswith("pic_parameter_set_id"):
                named = value
            elif name in ("init_qp_minus26", "pic_init_qp_minus26"):
                self._bases[named] = 26 + value
            elif name == "slice_qp_delta" and named in self._bases:
                qps.append(float(self._bases[named] + value))
        return qps


def packet_s(packet: Packet[Any]) -> float:
    """When a packet is seen, in seconds, or decoded, where the file does not say more; 0 where it says neither."""
    time = packet.dts if packet.pts is None else packet.pts
    return 0.0 if time is None else float(time * packet.time_base)
