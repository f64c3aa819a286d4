"""Putting a video together: enhanced pictures from segments, sound, subtitles and all else from the source."""

from __future__ import annotations

import heapq
import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ImageError

BT601 = 5
"""The matrix of frames that do not say theirs, by ITU-T H.273."""


def open_video(source: Path) -> Any:
    """A container of PyAV's; ImageError where it holds no pictures."""
    import av

    container = av.open(str(source))
    if not container.streams.video:
        container.close()
        raise ImageError(f"{source}: has no picture stream")
    return container


def colour_tags(context: Any) -> dict[str, int]:
    """What a stream says of its colours, as the result of enhancing has to say it; RGB becomes YUV by BT.601."""
    return {
        "color_primaries": context.color_primaries,
        "color_trc": context.color_trc,
        "colorspace": context.colorspace or BT601,
        "color_range": span_of(context.color_range, str(context.pix_fmt)),
    }


def span_of(color_range: int, pixel_format: str) -> int:
    """2, full range, where the file says so, which the old names of formats do too; else 1."""
    return 2 if color_range == 2 or pixel_format.startswith("yuvj") else 1


def join(source: Path, folder: Path, segments: int, part: Path, suffix: str) -> list[str]:
    """Writes a video: pictures from the segments, all else from the source, in the order of time.

    Args:
        source: the video as it was.
        folder: of the segments, `000000.nut` and so on.
        segments: how many there are.
        part: where to.
        suffix: of the result's name, which says in what container it is.
    Returns:
        What is not kept, one sentence each.
    """
    import av

    warnings: list[str] = []
    muxer = {".mkv": "matroska", ".mov": "mov"}.get(suffix.lower(), "mp4")
    first = folder / "000000.nut"
    with open_video(source) as given, av.open(str(first)) as coded, av.open(str(part), "w", format=muxer) as out:
        picture = given.streams.video[0]
        out.metadata.update(given.metadata)
        result = out.add_stream_from_template(coded.streams.video[0])
        result.time_base = picture.time_base
        for name, value in colour_tags(picture.codec_context).items():  # FFV1 leaves them to the container
            setattr(result.codec_context, name, value)
        result.metadata.update(picture.metadata)
        copies = {}
        for stream in given.streams:
            if stream is picture:
                continue
            if stream.type not in ("audio", "subtitle"):
                warnings.append(f"stream {stream.index} ({stream.type}) is not kept")
                continue
            name = stream.codec_context.name if stream.codec_context else "unknown"
            if not stream.codec_context or not _holds(muxer, name):
                warnings.append(f"stream {stream.index} ({name}) is not kept, {suffix} cannot hold it")
                continue
            copy = out.add_stream_from_template(stream)
            copy.metadata.update(stream.metadata)
            copies[stream.index] = copy
        with suppress(AttributeError, NotImplementedError):
            if chapters := given.chapters():
                out.set_chapters(chapters)
        pictures = ((_seconds(packet), 0, packet) for packet in _packets_of(folder, segments))
        others = _other_packets(given, [given.streams[index] for index in copies])
        for _, _, packet in heapq.merge(pictures, others, key=lambda item: item[:2]):
            packet.stream = result if packet.stream.type == "video" else copies[packet.stream.index]
            out.mux(packet)
    if muxer != "matroska":
        _retag(part)
    return warnings


def _retag(part: Path) -> None:
    """Says "hvc1" of HEVC where FFmpeg says "hev1", which QuickTime does not play; PyAV has no way to ask for it."""
    with part.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        description = data.find(b"stsd", data.rfind(b"moov"))
        place = data.find(b"hev1", description, description + 64) if description >= 0 else -1
        if place >= 0:
            data[place : place + 4] = b"hvc1"


def _holds(muxer: str, codec: str) -> bool:
    """Whether a container can hold a stream as it is; Matroska holds all but the subtitles of MP4."""
    if muxer == "matroska":
        return codec != "mov_text"
    return codec in ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "mov_text") or codec.startswith("pcm_s")


def _packets_of(folder: Path, segments: int) -> Iterator[Any]:
    import av

    for number in range(segments):
        with av.open(str(folder / f"{number:06d}.nut")) as container:
            for packet in container.demux(video=0):
                if packet.size:  # the last one is empty
                    yield packet


def _other_packets(container: Any, streams: list[Any]) -> Iterator[tuple[float, int, Any]]:
    if not streams:
        return
    for packet in container.demux(streams):
        if packet.size:
            yield _seconds(packet), 1, packet


def _seconds(packet: Any) -> float:
    time = packet.pts if packet.dts is None else packet.dts
    return float((time or 0) * packet.time_base)
