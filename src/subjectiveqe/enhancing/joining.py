"""Putting a video together: enhanced pictures from segments, sound, subtitles and all else from the source."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from .clip import ALPHA, demux, is_cover, name_for, open_video, picture_stream
from .clip_crop import header_of
from .clock import Clock


def segment_path(folder: Path, number: int) -> Path:
    """Where a segment's pictures are kept."""
    return folder / f"{number:06d}.nut"


def join(
    source: Path, folder: Path, part: Path, suffix: str, tags: Mapping[str, int], clock: Clock, last_s: float
) -> list[str]:
    """Writes a video: pictures from the segments, all else from the source, in the order of time.

    Which streams a container holds is asked of FFmpeg, one by one.

    Args:
        source: the video as it was.
        folder: of the segments, see `segment_path`.
        part: where to.
        suffix: of the result's name, which says in what container it is.
        tags: of its colours, see `clip.colour_tags`.
        clock: of the source, by which the pictures are already.
        last_s: how long the last picture is seen; 0 where nobody knows, then as long as others.
    Returns:
        What is not kept, one sentence each.
    """
    import av

    warnings: list[str] = []
    muxer = {".mkv": "matroska", ".mov": "mov"}.get(suffix.lower(), "mp4")
    with (
        open_video(source) as given,
        av.open(name_for(segment_path(folder, 0))) as coded,
        av.open(name_for(part), "w", format=muxer, options=_options(given, muxer)) as out,
    ):
        picture = picture_stream(given)
        given_tags = given.metadata
        out.metadata.update({key: value for key, value in given_tags.items() if key.lower() not in _BRANDS})
        result = out.add_stream_from_template(coded.streams.video[0])
        result.time_base = picture.time_base
        if picture.average_rate:  # else the muxer takes that of the time base, in the thousands
            result.codec_context.framerate = picture.average_rate
        if result.codec_context.codec.canonical_name == "hevc" and muxer != "matroska":
            result.codec_context.codec_tag = "hvc1"  # FFmpeg says "hev1" by itself, which QuickTime does not play
        result.disposition = picture.disposition
        for name, value in tags.items():  # FFV1 leaves them to the container
            setattr(result.codec_context, name, value)
        result.metadata.update(_picture_tags(picture))
        chapters = given.chapters()
        out.set_chapters(chapters)
        copies = {}
        for stream in given.streams:
            if stream is picture or _comes_along(stream, len(chapters)):
                continue
            if stream.type == "attachment" and muxer == "matroska":
                out.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data or b"")
            elif is_cover(stream) and muxer != "mp4":
                if muxer != "matroska" or not _attach(out, source, stream):
                    warnings.append(f"the cover (stream {stream.index}) is not kept, {suffix} cannot hold it")
            elif not _is_copied(stream):
                warnings.append(f"stream {stream.index} ({stream.type}) is not kept")
            elif header_of(stream, muxer) is None:
                codec = stream.codec_context.codec.canonical_name
                warnings.append(f"stream {stream.index} ({codec}) is not kept, {suffix} cannot hold it")
            else:
                copy = copies[stream.index] = out.add_stream_from_template(stream)
                if stream.type == "audio" and (layout := _LAYOUTS.get(stream.codec_context.layout.name)):
                    copy.codec_context.layout = layout
                copy.metadata.update(_tags(stream))
                copy.disposition = stream.disposition
        pictures = ((_seconds(packet), 0, packet) for packet in _packets_of(folder, last_s))
        lost_packets: Counter[int] = Counter()
        others = _other_packets(given, [given.streams[index] for index in copies], muxer, clock, lost_packets)
        for _, is_other, packet in heapq.merge(pictures, others, key=lambda item: item[:2]):
            packet.stream = copies[packet.stream.index] if is_other else result
            out.mux(packet)
    for index, number in sorted(lost_packets.items()):
        warnings.append(f"{number} packets of stream {index} are out of order and not kept")
    with open_video(part) as made:
        lost = {key.lower() for key in given_tags} - {key.lower() for key in made.metadata} - _OF_CONTAINERS
    if lost:
        warnings.append(f"tags that {suffix} does not hold are not kept: {', '.join(sorted(lost))}")
    return warnings


_USUAL = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
_LAYOUTS = {f"{number} channels": layout for number, layout in enumerate(_USUAL, start=1)}
"""The usual layouts of sound of which only the number of channels is known, as of PCM in AVI; MP4 takes no other."""

_BRANDS = {"major_brand", "minor_version", "compatible_brands"}
"""Of a container of Apple's, which no other is."""

_OF_CONTAINERS = {*_BRANDS, "encoder", "duration", "creation_time"}
"""Tags that say how a file was written."""


def _options(given: Any, muxer: str) -> dict[str, str]:
    """QuickTime's files hold tags such as the place only where they hold all tags in that way."""
    has_own = any(key.startswith("com.apple.") for key in given.metadata)
    return {"movflags": "use_metadata_tags"} if has_own and muxer == "mov" else {}


def _comes_along(stream: Any, chapters: int) -> bool:
    """Whether a stream of QuickTime's only says what is kept elsewhere: the time code, or the names of chapters."""
    if stream.type != "data":  # of streams that FFmpeg does not know, PyAV knows no name
        return False
    return "timecode" in stream.metadata or (stream.name == "bin_data" and 0 < chapters == stream.frames)


def _is_copied(stream: Any) -> bool:
    """Sound, subtitles and the cover."""
    return (stream.type in ("audio", "subtitle") or is_cover(stream)) and stream.codec_context is not None


def _tags(stream: Any) -> dict[str, str]:
    """Those of a stream; FFmpeg reads an Apple track's title as its name, and writes none that is called so."""
    tags = dict(stream.metadata)
    if "name" in tags and "title" not in tags:
        tags["title"] = tags.pop("name")
    return tags


_MEASURED = ("bps", "number_of_", "_statistics_", "duration")
"""How tags of Matroska begin that say what was measured of a track's packets."""


def _picture_tags(stream: Any) -> dict[str, str]:
    """Those of the picture stream that are true of the result."""
    return {key: value for key, value in _tags(stream).items() if not key.lower().startswith((ALPHA, *_MEASURED))}


_COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""How Matroska names covers, by FFmpeg's name of their codec."""


def _attach(out: Any, source: Path, cover: Any) -> bool:
    """Adds a cover to a Matroska file, where it is an attachment; whether that can be done."""
    if (codec := cover.codec_context and cover.codec_context.codec.canonical_name) not in _COVERS:
        return False
    with open_video(source) as given:  # another time, as packets of the first are read later
        packet = next((packet for packet in demux(given, [given.streams[cover.index]]) if packet.size), None)
    if packet is None:
        return False
    name, kind = _COVERS[codec]
    out.add_attachment(cover.metadata.get("filename", name), kind, bytes(packet))
    return True


def _packets_of(folder: Path, last_s: float) -> Iterator[Any]:
    import av

    before: Any = None  # the files between do not keep how long a picture is seen
    for path in takewhile(Path.exists, (segment_path(folder, number) for number in count())):
        with av.open(name_for(path)) as container:
            for packet in container.demux(video=0):
                if packet.size:  # the last one is empty
                    if before is not None:
                        yield before
                    before = packet
    if before is not None:
        before.duration = round(last_s / float(before.time_base)) or before.duration
        yield before


def _other_packets(
    container: Any, streams: list[Any], muxer: str, clock: Clock, lost: Counter[int]
) -> Iterator[tuple[float, int, Any]]:
    """All but what an edit list has cut off, where the result has none to say so (Matroska would play it), and what is
    out of order, which is counted by the number of its stream.
    """
    for packet in _in_order(clock.packets(demux(container, streams)) if streams else (), muxer, lost):
        if not (packet.is_discard and muxer == "matroska"):
            yield _seconds(packet), 1, packet


def _in_order(packets: Iterable[Any], muxer: str, lost: Counter[int]) -> Iterator[Any]:
    """Packets whose times rise within each stream; of sound that is ahead and the next, the one that does not fit.

    Sound comes all the time, so one may wait for the next; a subtitle would for minutes.
    """
    before: dict[int, int] = {}
    waiting: dict[int, Any] = {}

    def fits(packet: Any, last: int | None) -> bool:
        together = muxer == "matroska" or packet.stream.type != "audio"  # where two may come at a time
        return last is None or packet.dts > last or (together and packet.dts == last)

    for packet in packets:
        if not packet.size:
            continue
        index = packet.stream.index
        held, follows = waiting.pop(index, None), packet.dts is None
        if held is not None and (follows or fits(packet, held.dts)):
            before[index] = held.dts
            yield held
        elif not follows and (held is not None or not fits(packet, before.get(index))):
            lost[index] += 1
            if not fits(packet, before.get(index)):
                if held is not None:
                    waiting[index] = held
                continue
        if packet.stream.type == "audio" and not follows:
            waiting[index] = packet
            continue
        if not follows:
            before[index] = packet.dts
        yield packet
    yield from waiting.values()


def _seconds(packet: Any) -> float:
    time = packet.pts if packet.dts is None else packet.dts
    return float((time or 0) * packet.time_base)
