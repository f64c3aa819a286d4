"""How much of a clip's frames its container hides: MP4's clean aperture, and Matroska's cropping of pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import av

_SEGMENT, _TRACKS, _ENTRY, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_HIDDEN = {0x54CC: "left", 0x54BB: "top", 0x54DD: "right", 0x54AA: "bottom"}
"""Elements of Matroska (RFC 9559): those on the way to the cropping, and that."""


class Hidden(NamedTuple):
    """How many pixels are not to be seen at each side of a frame."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


def header_of(stream: Any, muxer: str) -> bytes | None:
    """What FFmpeg writes at the beginning of a file of this kind with this stream; None where that cannot hold it."""
    import av

    begun = io.BytesIO()
    try:
        with av.open(begun, "w", format=muxer) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return None
    return begun.getvalue()


def hidden_of(stream: Any) -> Hidden:
    """What the container of a picture stream hides of its frames.

    FFmpeg knows it and PyAV does not hand it on, but what FFmpeg writes of the stream at the beginning of a Matroska
    file says it. Of a codec that Matroska has no name for, nothing is known.
    """
    data = header_of(stream, "matroska") or b""
    parts = [(0, len(data))]
    for wanted in (_SEGMENT, _TRACKS, _ENTRY, _VIDEO):
        parts = [place for part in parts for name, place in _elements(data, *part) if name == wanted]
    found = [element for part in parts for element in _elements(data, *part)]
    return Hidden(**{_HIDDEN[name]: int.from_bytes(data[slice(*place)]) for name, place in found if name in _HIDDEN})


def _elements(data: bytes, start: int, stop: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Elements of EBML (RFC 8794) that follow each other: their IDs, and where what they hold begins and ends."""
    while start < stop:
        length = 9 - data[start].bit_length()
        name, start = int.from_bytes(data[start : start + length]), start + length
        length = 9 - data[start].bit_length()
        unknown = (1 << 7 * length) - 1
        size, start = int.from_bytes(data[start : start + length]) & unknown, start + length
        end = stop if size == unknown else min(start + size, stop)
        yield name, (start, end)
        start = end


class Cropper:
    """Cuts frames to what is to be seen of them; their format, times and tags stay."""

    def __init__(self, hidden: Hidden) -> None:
        self._hidden = hidden
        self._graphs: dict[tuple[int, int, str], Any] = {}

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame itself where nothing is hidden, or more than there is."""
        left, top, right, bottom = self._hidden
        width, height = frame.width - left - right, frame.height - top - bottom
        if not any(self._hidden) or min(width, height) < 1:
            return frame
        kind = (frame.width, frame.height, frame.format.name)
        if kind not in self._graphs:
            self._graphs[kind] = _graph(frame, f"w={width}:h={height}:x={left}:y={top}:exact=1")
        graph = self._graphs[kind]
        graph.vpush(frame)
        cropped: av.VideoFrame = graph.vpull()
        return cropped


def _graph(frame: av.VideoFrame, arguments: str) -> Any:
    from av.filter import Graph

    graph: Any = Graph()
    given = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base, name=None
    )
    crop, out = graph.add("crop", arguments), graph.add("buffersink")
    given.link_to(crop)
    crop.link_to(out)
    graph.configure()
    return graph
