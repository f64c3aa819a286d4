"""Reading a video: its picture stream, frames as they are to be seen, and what of it is damaged or is not kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..codecs.bitstream import packet_s
from ..errors import ImageError
from ..formats.rows import Pixels
from .clip_crop import Cropper, hidden_of

if TYPE_CHECKING:
    import av

    from .clock import Clock

ALPHA = "alpha_mode"
"""Matroska's tag of a stream whose alpha lies beside its packets, where FFmpeg does not decode it."""

_BT601 = 5
"""The matrix of frames that do not say theirs, by ITU-T H.273."""


def name_for(path: Path) -> str:
    """A file's name as FFmpeg takes it for nothing else: what is before the ":" of a relative one may be a protocol."""
    return str(path.absolute())


def open_video(source: Path) -> Any:
    """A container of PyAV's; ImageError where it holds no pictures."""
    import av

    try:
        container = av.open(name_for(source))
    except UnicodeDecodeError:  # tags of old AVI files
        container = av.open(name_for(source), metadata_encoding="latin-1")
    stream = picture_stream(container)
    if stream is None or stream.codec_context is None:
        container.close()
        raise ImageError(f"{source}: has no picture stream" + (" of a codec that is known here" if stream else ""))
    return container


def picture_stream(container: Any) -> Any:
    """The first picture stream that is no cover; None where there is none."""
    return next((stream for stream in container.streams.video if not is_cover(stream)), None)


def demux(container: Any, streams: list[Any]) -> Iterator[Any]:
    """The packets of streams, with an empty one of each at the end, which flushes its decoder."""
    with suppress(IndexError):  # PyAV counts streams at the beginning, and at the very end meets those that came since
        yield from container.demux(streams)


def span_s(container: Any) -> tuple[float, float]:
    """When a clip begins and ends, in seconds as its timestamps count them.

    Of a file that does not say, as of one that was written while it was watched, all packets are asked.
    """
    start_s = (container.start_time or 0) / 1e6
    if container.duration:
        length_s = container.duration / 1e6
        return start_s, length_s + (0 if "matroska" in container.format.name else start_s)  # there it counts from 0
    return start_s, max(map(packet_s, container.demux(picture_stream(container))), default=start_s)


def has_alpha_beside(stream: Any) -> bool:
    """Whether a stream has alpha that its frames do not show."""
    return "1" in (value for key, value in stream.metadata.items() if key.lower() == ALPHA)


def is_cover(stream: Any) -> bool:
    """Whether a stream is a single picture that stands for the file."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


_UNSAID = {"color_primaries": 2, "color_trc": 2, "colorspace": 2, "color_range": 0}
"""Tags of colours, and how each says nothing (ITU-T H.273)."""


def colour_tags(frame: av.VideoFrame) -> dict[str, int]:
    """What a frame says of its colours, as the result of enhancing has to say it; RGB becomes YUV by BT.601."""
    return {
        "color_primaries": frame.color_primaries,
        "color_trc": frame.color_trc,
        "colorspace": frame.colorspace or _BT601,
        "color_range": _range_of(frame),
    }


def _span_of(color_range: int, pixel_format: str) -> int:
    """2, full range, where the file says so, which the old names of formats do too; else 1."""
    return 2 if color_range == 2 or pixel_format.startswith("yuvj") else 1


class Turn(NamedTuple):
    """How a picture lies in its file: what makes it upright, in this order."""

    swaps_sides: bool = False
    flips_rows: bool = False
    flips_columns: bool = False
    is_exact: bool = True

    def upright(self, pixels: Pixels) -> Pixels:
        """(H, W, 3) -> as it is to be seen."""
        if self.swaps_sides:
            pixels = pixels.transpose(1, 0, 2)
        return pixels[:: -1 if self.flips_rows else 1, :: -1 if self.flips_columns else 1]


def turn_of(frame: av.VideoFrame) -> Turn:
    """By the matrix of the frame, which says where x and y go (ISO/IEC 14496-12, "tkhd" box); the nearest quarter.

    Ask it of one frame only: reading `side_data` makes a reference cycle, which keeps the frame's buffers until the
    garbage collector of Python runs.
    """
    for data in cast(Any, frame.side_data):
        if data.type.name == "DISPLAYMATRIX":
            xx, xy, _, yx, yy = (float(value) for value in np.frombuffer(bytes(data), np.int32)[:5])
            straight, swapped = abs(xx) + abs(yy), abs(xy) + abs(yx)
            is_exact = min(straight, swapped) < 0.02 * max(straight, swapped)
            return Turn(True, xy < 0, yx < 0, is_exact) if swapped > straight else Turn(False, yy < 0, xx < 0, is_exact)
    return Turn()


@dataclass
class Damage:
    """What of a video could not be decoded or kept, and how far it goes.

    Attributes:
        packets: that were passed over.
        frames: that were decoded with errors, which a decoder hides as well as it can.
        has_captions: in its first frames.
        sizes: of its frames; a result has one.
        holes_s: when no frame came.
        came_s: when the last one came.
        sent_s: when the last one is to come by what was read of the file.
        end_s: until when that is seen; 0 where the file does not say.
    """

    packets: int = 0
    frames: int = 0
    has_captions: bool = False
    sizes: dict[tuple[int, int], None] = field(default_factory=dict)
    holes_s: list[tuple[float, float]] = field(default_factory=list)
    came_s: float = 0.0
    sent_s: float = 0.0
    end_s: float = 0.0

    @property
    def last_s(self) -> float:
        """How long the last frame is seen; 0 where nobody knows."""
        return max(self.end_s - self.came_s, 0.0) if self.came_s >= self.sent_s else 0.0

    def warnings(self, container: Any, frames: int, clock: Clock) -> list[str]:
        """What is to be said, of so many frames in all."""
        found = [f"its clock jumps at {place_s:.1f} s; what follows comes right behind" for place_s in clock.jumps_s]
        stream = picture_stream(container)
        rate = stream.average_rate
        if len(self.sizes) > 1:
            others = ", ".join(f"{width}x{height}" for width, height in [*self.sizes][1:])
            found.append(f"changes its size to {others}; all frames get that of the first")
        if self.has_captions:
            found.append("closed captions are not kept")
        least_s = max(_LEAST_MISSING_S, _LEAST_MISSING_FRAMES / rate if rate else 0)
        if self.packets:
            found.append(f"is damaged: {self.packets} packets could not be decoded, their frames are missing")
        if self.frames:
            found.append(f"is damaged: {self.frames} frames are only as whole as they could be decoded")
        if holes := [(start_s, stop_s) for start_s, stop_s in self.holes_s if stop_s - start_s > least_s]:
            more = f" and {len(holes) - 1} times more" if len(holes) > 1 else ""
            found.append(f"has no pictures from {holes[0][0]:.1f} to {holes[0][1]:.1f} s{more}; is the file damaged?")
        length_s = clock.end_s or (span_s(container)[1] - clock.begin_s if container.duration else 0.0)
        seen_s = self.came_s + self.last_s
        listed = 0  # AVI counts the time that frames stand for
        if _is_mp4(container):  # an edit list hides some
            listed = sum(not entry.is_discard for entry in stream.index_entries)
        if length_s - seen_s > max(least_s, length_s * _LEAST_MISSING_SHARE):
            found.append(f"its pictures end at {seen_s:.1f} of {length_s:.1f} s; is the file cut?")
        elif listed - frames > max(_LEAST_MISSING_FRAMES, listed * _LEAST_MISSING_SHARE):
            found.append(f"{frames} of {listed} frames are there; is the file cut?")
        return found


_LEAST_MISSING_S, _LEAST_MISSING_FRAMES, _LEAST_MISSING_SHARE = 1.0, 10, 0.02
"""Gaps shorter than this are not reported: in seconds, in frames at the clip's rate, and at its end, where sound may go
on, as a share of its length too."""


_ASKED = 5
"""How many frames are asked for captions, the first ones; see `turn_of` for why not all."""


class Pictures:
    """Frames of the first picture stream, as they are to be seen.

    To be made before anything of the container is decoded: decoders put what the stream says of its colours, which may
    be nothing, in the place of what the container says.
    """

    def __init__(self, container: Any) -> None:
        from av.codec.context import Flags

        self.stream = picture_stream(container)
        context = self.stream.codec_context
        context.flags |= int(Flags.unaligned)  # without it some of what the stream hides at the left is shown
        self._colours = {name: int(getattr(context, name)) for name in _UNSAID}
        self._crop = Cropper(hidden_of(self.stream))

    def decode(self, damage: Damage | None = None, clock: Clock | None = None) -> Iterator[av.VideoFrame]:
        """Frames from where the container is read, by a clock; packets that cannot be decoded are passed over."""
        import av

        damage, asked = damage or Damage(), 0
        until_s: float | None = None
        container = self.stream.container
        packets = demux(container, [self.stream])
        for packet in packets if clock is None else clock.packets(packets):
            if packet.pts is not None and not packet.is_discard:  # an edit list has cut off the others
                _note_end(damage, packet, self.stream)
            try:
                for decoded in packet.decode():
                    frame = self._as_seen(decoded)
                    damage.sizes[frame.width, frame.height] = None
                    damage.frames += frame.is_corrupt
                    if asked < _ASKED:
                        damage.has_captions |= "A53_CC" in _described(frame)
                        asked += 1
                    damage.came_s = frame.time or 0.0
                    is_hole = until_s is not None and damage.came_s - until_s > _LEAST_MISSING_S
                    if is_hole and (damage.packets or not _is_mp4(container)):  # there a frame is seen until the next
                        damage.holes_s.append((cast(float, until_s), damage.came_s))
                    seen_s = 0 if _is_mp4(container) else (frame.duration or 0) * (frame.time_base or 0)
                    until_s = max(until_s or 0.0, damage.came_s + float(seen_s))
                    yield frame
            except av.error.MemoryError:
                raise
            except av.FFmpegError:  # which one, depends on the decoder
                damage.packets += 1

    def _as_seen(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Without what the container hides of it, and with what that says of its colours where the stream does not."""
        for name, value in self._colours.items():
            if int(getattr(frame, name)) == _UNSAID[name]:
                setattr(frame, name, value)
        return self._crop(frame)


def _is_mp4(container: Any) -> bool:
    return "mp4" in container.format.name


def _note_end(damage: Damage, packet: Any, stream: Any) -> None:
    """Notes when the last picture comes and ends. In MP4 a packet says when the next one is decoded, the stream its
    end; AVI knows but a rate.
    """
    come_s, name = float(packet.pts * packet.time_base), stream.container.format.name
    if come_s < damage.sent_s or name == "avi":
        return
    damage.sent_s, end = come_s, packet.pts + (packet.duration or 0)
    if _is_mp4(stream.container) and stream.duration:
        end = (stream.start_time or 0) + stream.duration
    damage.end_s = float(end * packet.time_base)


def timed(frames: Iterator[Any], stream: Any) -> Iterator[av.VideoFrame]:
    """Frames whose timestamps rise; where a file has none, or one that is ahead, they follow the frame rate."""
    step = int(1 / (stream.time_base * (stream.average_rate or 25))) or 1
    by_dts = stream.container.format.name == "avi"  # knows in which order frames are decoded, not when they are seen
    last: int | None = None
    for frame, after in pairwise(chain(frames, (None,))):
        pts, then = (each and (each.dts if by_dts else each.pts) for each in (frame, after))
        if last is None:
            pts = pts or 0
        elif pts is None or pts <= last:
            pts = last + step
        elif then is not None and last < then < pts:
            pts = max(then - step, (last + then + 1) // 2)
        frame.pts = last = pts
        yield frame


def not_kept(frame: av.VideoFrame, stream: Any) -> list[str]:
    """What the first frame and the stream say of the clip and the result will not."""
    warnings = []
    components = frame.format.components
    if len(components) in (2, 4) or has_alpha_beside(stream):
        warnings.append("alpha is not kept")
    if (bits := max(component.bits for component in components)) > 10:
        warnings.append(f"{bits} bits become 10")
    if not turn_of(frame).is_exact:
        warnings.append("it is turned by less than a quarter, which is not kept")
    if frame.interlaced_frame:
        warnings.append("interlaced frames are enhanced as they are and marked as progressive; deinterlace first")
    described = _described(frame)
    if described & {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"}:
        warnings.append("what the clip says of the display it was mastered on is not kept; its colour tags are")
    if described & {"SPHERICAL", "STEREO3D"}:
        warnings.append("the mark of a 360-degree or 3D video is not kept")
    if described & {"DOVI_RPU_BUFFER", "DOVI_METADATA", "DYNAMIC_HDR_PLUS"}:
        warnings.append("dynamic HDR metadata (Dolby Vision, HDR10+) are not kept")
    return warnings


def _described(frame: av.VideoFrame) -> set[str]:
    """What FFmpeg knows of a frame beside its pixels."""
    return {data.type.name for data in cast(Any, frame.side_data)}


def _is_deep(frame: av.VideoFrame) -> bool:
    return max(component.bits for component in frame.format.components) > 8


def _range_of(frame: av.VideoFrame) -> int:
    return _span_of(frame.color_range, frame.format.name)


def _matrix_of(tagged: Any) -> int:
    """Of a frame or a context: BT.601 where it says nothing; the way back is the same, so nothing depends on it."""
    return int(tagged.colorspace) if int(tagged.colorspace) in (1, 4, 5, 7, 9) else _BT601


def to_rgb(frame: av.VideoFrame) -> Pixels:
    """uint8 or, from more than 8 bits, uint16, (H, W, 3)."""
    name = "rgb48le" if _is_deep(frame) else "rgb24"
    rgb = frame.reformat(
        format=name, src_colorspace=_matrix_of(frame), src_color_range=_range_of(frame), interpolation=_exact()
    )
    return rgb.to_ndarray()


def _exact() -> int:
    from av.video.reformatter import Interpolation

    return int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)


def to_frame(out: Pixels, lq: Pixels, frame: av.VideoFrame, turn: Turn, context: Any) -> av.VideoFrame:
    """The way back from `to_rgb`, upright, into the format that an encoder takes, at the time of the frame it was.

    Where that is the format of the frame, what has changed is added to it: what is left alone stays as it is, bit for
    bit, and chroma is not interpolated and reduced again.

    Args:
        out: the result, uint8 or uint16, (H, W, 3).
        lq: what `to_rgb` gave.
        frame: the one that it is of.
        turn: that of the clip.
        context: the encoder's.
    """
    coded = _coded(turn.upright(out), context)
    if _lies_alike(frame, turn, context):
        before = _coded(turn.upright(lq), context)
        largest = 2 ** frame.format.components[0].bits - 1
        for plane, was, own in zip(_planes(coded), _planes(before), _planes(frame), strict=True):
            changed = turn.upright(own[..., None])[..., 0].astype(np.int32) + plane - was
            plane[...] = np.clip(changed, 0, largest)
    coded.pts, coded.time_base = frame.pts, frame.time_base
    return coded


def _coded(rgb: Pixels, context: Any) -> av.VideoFrame:
    import av

    name = "rgb48le" if rgb.dtype == np.uint16 else "rgb24"
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), name).reformat(
        context.width,
        context.height,
        context.pix_fmt,
        dst_colorspace=_matrix_of(context),
        dst_color_range=_span_of(context.color_range, context.pix_fmt),
        interpolation=_exact(),
    )


def _lies_alike(frame: av.VideoFrame, turn: Turn, context: Any) -> bool:
    """Whether planes of a frame, upright, are as those that an encoder takes; a clip may change within."""
    size = (frame.height, frame.width) if turn.swaps_sides else (frame.width, frame.height)
    own = (*size, frame.format.name.replace("yuvj", "yuv"), _matrix_of(frame), _range_of(frame))
    span = _span_of(context.color_range, context.pix_fmt)
    return own == (context.width, context.height, context.pix_fmt, _matrix_of(context), span)


def _planes(frame: av.VideoFrame) -> list[NDArray[Any]]:
    """Levels of luma and chroma, views of uint8 or uint16."""
    dtype = np.dtype(np.uint16 if _is_deep(frame) else np.uint8)
    planes = cast(Any, frame.planes)
    return [np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width] for plane in planes]


def pixel_format(frame: av.VideoFrame) -> str:
    """The coded format nearest to the source's: its chroma sampling, at 8 or 10 bits."""
    halved = True, True  # gray too
    if len(frame.format.components) > 2:
        chroma = frame.format.components[1]
        halved = chroma.width < frame.width, chroma.height < frame.height
    whole = frame.width % (1 + halved[0]) == 0 == frame.height % (1 + halved[1])  # encoders halve no odd side
    known = {(True, True): "420", (True, False): "422"}
    if turn_of(frame).swaps_sides:  # halved columns become halved rows, which encoders do not take
        del known[True, False]
    sampling = known.get(halved, "444") if whole else "444"
    return f"yuv{sampling}p10le" if _is_deep(frame) else f"yuv{sampling}p"
