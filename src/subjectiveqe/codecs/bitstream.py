"""What the headers of compressed frames say, field by field, as FFmpeg's `trace_headers` logs it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

Fields = list[tuple[str, int]]
"""Names and values, in the order of the file; a name comes once for each slice or frame."""

_FIELD = re.compile(r"\d+ +(\w+) +[01]+ = (-?\d+)")
"""Place in bits, name, bits and value."""

_FFMPEG_LOG = threading.Lock()
"""Its verbosity is one for all threads."""


@contextmanager
def headers_logged() -> Iterator[None]:
    """Where `Headers` can be read; what else FFmpeg has to say there is dropped."""
    import av.logging

    with _FFMPEG_LOG, av.logging.Capture():
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            yield
        finally:
            av.logging.set_level(level)


class Headers:
    """Reads the headers of a stream's packets, without decoding a frame.

    Args:
        stream: of H.264, HEVC, VP9 or AV1.
    Raises:
        av.FFmpegError, ValueError: a codec whose headers FFmpeg does not read; of packets too, damaged ones.
    """

    def __init__(self, stream: VideoStream) -> None:
        import av.logging
        from av.bitstream import BitStreamFilterContext

        with av.logging.Capture() as lines:
            self._filter = BitStreamFilterContext("trace_headers", stream)
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
