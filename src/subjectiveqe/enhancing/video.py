"""Enhancing videos frame by frame; everything that is no picture is copied as it is.

Frames are enhanced and coded in segments, each a finished file beside the result, so that a run that was killed goes on
with the first segment that is missing. At the end the segments' packets are put together with the other streams.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import FULL_DISK, ConfigError, ImageError, first_line
from ..files import LOCK, atomic_path, held, list_files, write_text
from ..photos import Pixels
from .enhancer import Enhancer
from .joining import BT601, colour_tags, has_alpha_beside, join, open_video, picture_stream, segment_path, span_of
from .look import Look
from .steady import Steadier

if TYPE_CHECKING:
    import av

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".3gp")
"""What is taken for a video."""

_OF_TYPESCRIPT, _SYNC = (".ts", ".mts"), b"G"

_RESULTS = (".mp4", ".m4v", ".mov", ".mkv")
_ENCODERS = {"x264": ("libx264", 16), "x265": ("libx265", 18), "ffv1": ("ffv1", 0)}
"""Name of the encoder and its usual CRF."""

_SEGMENT_PX, _SEGMENT_FRAMES = 4e8, (48, 240)
"""What is lost at most when a run is killed: some minutes of work. Each segment begins with a key frame, at which what
rests jumps by what coding costs it; x264 sets one after 250 frames by itself."""

_SAMPLES = 8
"""Frames by which the coarseness of a clip is estimated; one estimate for all, or the picture would pulse."""


@dataclass(frozen=True)
class Coding:
    """How frames are coded.

    Attributes:
        codec: "x264", "x265" or "ffv1" (lossless, .mkv).
        crf: 0..51, lower is better; None for 16 (x264) and 18 (x265).
    """

    codec: str = "x264"
    crf: int | None = None

    def __post_init__(self) -> None:
        if self.codec not in _ENCODERS:
            raise ConfigError(f'unknown video codec "{self.codec}"; known: {", ".join(_ENCODERS)}')
        if self.crf is not None and not 0 <= self.crf <= 51:
            raise ConfigError(f"crf {self.crf} is out of range, expected 0 to 51")
        if self.crf is not None and self.codec == "ffv1":
            raise ConfigError("ffv1 is lossless and takes no crf")


@dataclass(frozen=True)
class Video:
    """What became of a video.

    Attributes:
        frames: of the result.
        resumed: how many of them an earlier run had finished.
        warnings: what of the source is not kept, one sentence each.
    """

    frames: int
    resumed: int
    warnings: tuple[str, ...]


def is_video(path: Path) -> bool:
    """Whether a name is one of a video."""
    return path.suffix.lower() in SUFFIXES


def list_videos(folder: Path, recursive: bool = False) -> list[Path]:
    """Paths of the videos in a folder, sorted by name; what is hidden or cannot be read is left out, and TypeScript."""
    found = list_files(folder, SUFFIXES, recursive, unread=lambda _: None)
    return [path for path in found if path.suffix.lower() not in _OF_TYPESCRIPT or _is_mpeg_ts(path)]


def _is_mpeg_ts(path: Path) -> bool:
    """Whether a file begins with the sync byte of MPEG-TS, in cameras' files behind a time stamp of 4 bytes."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(5)
        return head[:1] == _SYNC or (path.suffix.lower() == ".mts" and head[4:] == _SYNC)
    return False


def enhance_video(
    source: Path,
    target: Path,
    enhancer: Enhancer,
    coding: Coding | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Video:
    """Enhances every frame of a video's first picture stream.

    Timestamps, sound, subtitles, chapters, tags and colour tags are kept; the result has the source's depth (8 or 10
    bits) and chroma sampling, and a turned or mirrored picture lies as it is to be seen. Memory does not grow with the
    length. After a kill the same call goes on where it was. Frames that cannot be decoded are missing in the result,
    which a warning says.

    Args:
        source: a video.
        target: .mp4, .m4v, .mov or .mkv.
        enhancer: see `Enhancer`.
        coding: how frames are coded.
        overwrite: replace a target that is there, and drop what another call has finished of it.
        progress: called after each frame with the numbers of finished and all frames, 0 where those are not known.
    Raises:
        ConfigError: the target is there or cannot hold what was asked for, or another call works on it or has begun it.
        ImageError: the source is missing, damaged, or no video.
    """
    coding = coding or Coding()
    _check_target(source, target, coding, overwrite)
    with _errors_of(source), open_video(source) as container:
        stream = picture_stream(container)
        total = stream.frames or int((container.duration or 0) / 1e6 * float(stream.average_rate or 0))
        first = next(_decode(container), None)
        if first is None:
            raise ImageError(f"{source}: has no frame that can be decoded")
        warnings = _not_kept(first, stream)
        form = _Form.of(first, stream)
    folder = target.with_name(f".{target.name}.parts")
    state = {"source": _identity(source), "coding": asdict(coding), "strength": enhancer.strength}
    state["model"] = dict(enhancer.metadata)
    with held(folder, "another process makes this video; wait for it, or name another output"):
        _prepare_folder(folder, state, overwrite)
        with _errors_of(source):
            frames, resumed, damage = _make_segments(source, folder, form, enhancer, coding, total, progress)
        with _errors_of(target), atomic_path(target) as part:
            warnings += damage + join(source, folder, part, target.suffix)
    shutil.rmtree(folder)
    return Video(frames, resumed, tuple(warnings))


def _make_segments(
    source: Path,
    folder: Path,
    form: _Form,
    enhancer: Enhancer,
    coding: Coding,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[int, int, list[str]]:
    """Enhances what is not finished; gives all frames, those that were finished, and what could not be decoded."""
    look = Look(_estimate(source, enhancer, folder / "coarseness.json"))
    finished = _count_finished(folder)
    resumed = frames = sum(finished)
    segments = len(finished)
    steadier = Steadier()
    if segments:
        steadier.load(folder / f"{segments - 1:06d}.npz")

    def enhance(lq: Pixels) -> Pixels:
        return steadier(lq, enhancer.with_look(lq, look))

    with open_video(source) as container:
        stream = picture_stream(container)
        stream.thread_type = "SLICE"  # of frames in the making, one that fails takes others along
        damage = _Damage()
        decoded = islice(_timed(_decode(container, damage), stream), frames, None)
        for frame in decoded:
            segment = chain((frame,), islice(decoded, form.segment_frames - 1))
            path = segment_path(folder, segments)
            with atomic_path(path) as part:
                done = frames
                for done in _write_segment(part, segment, form, enhance, coding, frames):
                    if progress is not None:
                        progress(done, total)
            steadier.save(path.with_suffix(".npz"))
            write_text(path.with_suffix(".json"), json.dumps(done - frames))
            (folder / f"{segments - 1:06d}.npz").unlink(missing_ok=True)
            frames, segments = done, segments + 1
        return frames, resumed, damage.warnings(container, frames)


def _check_target(source: Path, target: Path, coding: Coding, overwrite: bool) -> None:
    suffix = target.suffix.lower()
    if suffix not in _RESULTS:
        raise ConfigError(f"{target}: cannot write {target.suffix or 'no suffix'}; known: {', '.join(_RESULTS)}")
    if coding.codec == "ffv1" and suffix != ".mkv":
        raise ConfigError(f"{target}: {suffix} does not hold ffv1; name the result .mkv")
    if not source.exists():
        raise ImageError(f"{source}: no such file")
    if target.exists() and target.samefile(source):
        raise ConfigError(f"{target}: is the source; choose another output")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; add --overwrite or give another name")


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Gives FFmpeg's errors the name of the file and one line; a full disk is no fault of the file."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        if error.errno in FULL_DISK:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise ImageError(f"{path}: {first_line(error)}") from error


# ---------------------------------------------------------------- state of an unfinished run


def _identity(source: Path) -> list[Any]:
    status = source.stat()
    return [str(source.resolve()), status.st_size, status.st_mtime_ns]


def _prepare_folder(folder: Path, state: dict[str, Any], overwrite: bool) -> None:
    """Keeps the segments of an earlier run of the same job; those of another are dropped where that was said."""
    note = folder / "job.json"
    text = json.dumps(state, sort_keys=True)
    if note.exists() and note.read_bytes() != text.encode():
        if (frames := sum(_count_finished(folder))) and not overwrite:
            raise ConfigError(
                f"{folder}: holds {frames} finished frames of another source, other options or another model; "
                "go on with those, or add --overwrite to drop them"
            )
        for path in folder.iterdir():
            if path.name != LOCK:
                path.unlink()
    write_text(note, text)


def _count_finished(folder: Path) -> list[int]:
    """Frames of the segments that are whole; the note is written after the segment."""
    counts: list[int] = []
    while (path := segment_path(folder, len(counts))).exists():
        try:
            counts.append(int(json.loads(path.with_suffix(".json").read_text())))
        except (OSError, ValueError):
            break
    return counts


# ---------------------------------------------------------------- frames


@dataclass(frozen=True)
class _Form:
    """How all frames of a result are stored, by the first of the source: segments have to go together."""

    height: int
    width: int
    pixel_format: str
    aspect: Fraction
    rate: Fraction
    time_base: Fraction
    tags: dict[str, int]

    @classmethod
    def of(cls, frame: av.VideoFrame, stream: Any) -> _Form:
        height, width = frame.height, frame.width
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        if _turn_of(frame).swaps_sides:
            height, width, aspect = width, height, 1 / aspect
        rate = Fraction(stream.average_rate or 25)
        return cls(
            height, width, _pixel_format(frame), aspect, rate, stream.time_base, colour_tags(stream.codec_context)
        )

    @property
    def segment_frames(self) -> int:
        """How many frames a segment has."""
        least, most = _SEGMENT_FRAMES
        return min(max(int(_SEGMENT_PX / (self.height * self.width)), least), most)


class _Turn(NamedTuple):
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


def _turn_of(frame: av.VideoFrame) -> _Turn:
    """By the matrix of the frame, which says where x and y go (ISO/IEC 14496-12, "tkhd" box); the nearest quarter."""
    for data in cast(Any, frame.side_data):
        if data.type.name == "DISPLAYMATRIX":
            xx, xy, _, yx, yy = (float(value) for value in np.frombuffer(bytes(data), np.int32)[:5])
            straight, swapped = abs(xx) + abs(yy), abs(xy) + abs(yx)
            is_exact = min(straight, swapped) < 0.02 * max(straight, swapped)
            return (
                _Turn(True, xy < 0, yx < 0, is_exact) if swapped > straight else _Turn(False, yy < 0, xx < 0, is_exact)
            )
    return _Turn()


def _estimate(source: Path, enhancer: Enhancer, note: Path) -> NDArray[np.float32] | None:
    """The mean over a few frames all over the clip, each behind a key frame, which may be better than the rest."""
    if note.exists():
        with suppress(ValueError):
            return np.array(json.loads(note.read_text()), np.float32)
    import av

    estimates = []
    for number in range(_SAMPLES):
        with open_video(source) as container:
            with suppress(av.FFmpegError):
                container.seek(int((container.duration or 0) * number / _SAMPLES))
            frames = list(islice(_decode(container), 2))
        if not frames:  # some files cannot be sought; then the first frames have to do
            with open_video(source) as container:
                frames = list(islice(_decode(container), 2))
        estimates += [enhancer.look(_to_rgb(frame)).coarseness for frame in frames[-1:]]
    known = [estimate for estimate in estimates if estimate is not None]
    if not known:
        return None
    mean: NDArray[np.float32] = np.mean(known, axis=0, dtype=np.float32)
    write_text(note, json.dumps(mean.tolist()))
    return np.array(json.loads(note.read_text()), np.float32)


@dataclass
class _Damage:
    """What of a video could not be decoded or kept: packets passed over, spans without a frame, the time of the last
    one, and the sizes of frames, of which a result has one.
    """

    packets: int = 0
    sizes: dict[tuple[int, int], None] = field(default_factory=dict)
    holes_s: list[tuple[float, float]] = field(default_factory=list)
    end_s: float | None = None

    def warnings(self, container: Any, frames: int) -> list[str]:
        """What is to be said, of so many frames in all."""
        found = []
        stream = picture_stream(container)
        rate = stream.average_rate
        if len(self.sizes) > 1:
            others = ", ".join(f"{width}x{height}" for width, height in [*self.sizes][1:])
            found.append(f"changes its size to {others}; all frames get that of the first")
        least_s = max(_LEAST_MISSING_S, _LEAST_MISSING_FRAMES / rate if rate else 0)
        if self.packets:
            found.append(f"is damaged: {self.packets} packets could not be decoded, their frames are missing")
        if holes := [(start_s, stop_s) for start_s, stop_s in self.holes_s if stop_s - start_s > least_s]:
            more = f" and {len(holes) - 1} times more" if len(holes) > 1 else ""
            found.append(f"has no pictures from {holes[0][0]:.1f} to {holes[0][1]:.1f} s{more}; is the file damaged?")
        start = 0 if "matroska" in container.format.name else container.start_time or 0  # there it counts from 0
        length_s = (start + (container.duration or 0)) / 1e6
        end_s = self.end_s or 0.0
        told = stream.frames if "mp4" in container.format.name else 0  # AVI counts the time that frames stand for
        if length_s - end_s > max(least_s, length_s * _LEAST_MISSING_SHARE):
            found.append(f"its pictures end at {end_s:.1f} of {length_s:.1f} s; is the file cut?")
        elif told - frames > max(_LEAST_MISSING_FRAMES, told * _LEAST_MISSING_SHARE):
            found.append(f"{frames} of {told} frames are there; is the file cut?")
        return found


_LEAST_MISSING_S, _LEAST_MISSING_FRAMES, _LEAST_MISSING_SHARE = 1.0, 10, 0.02
"""How long no picture may come without a word: that many frames at the clip's rate, and at its end, where sound may go
on, that share of it too."""


def _decode(container: Any, damage: _Damage | None = None) -> Iterator[av.VideoFrame]:
    """Frames of the first picture stream; packets that cannot be decoded are passed over."""
    import av

    damage = damage or _Damage()
    for packet in container.demux(picture_stream(container)):
        try:
            for frame in packet.decode():
                damage.sizes[frame.width, frame.height] = None
                time_s = frame.time or 0.0
                if damage.end_s is not None and time_s - damage.end_s > _LEAST_MISSING_S:
                    damage.holes_s.append((damage.end_s, time_s))
                damage.end_s = max(damage.end_s or 0.0, time_s)
                yield frame
        except av.error.InvalidDataError:
            damage.packets += 1


def _timed(frames: Iterator[Any], stream: Any) -> Iterator[av.VideoFrame]:
    """Frames whose timestamps rise; where a file has none, they follow the frame rate."""
    step = int(1 / (stream.time_base * (stream.average_rate or 25))) or 1
    last = None
    for frame in frames:
        if stream.container.format.name == "avi":  # knows in which order frames are decoded, and not when they are seen
            frame.pts = frame.dts
        if frame.pts is None or (last is not None and frame.pts <= last):
            frame.pts = 0 if last is None else last + step
        last = frame.pts
        yield frame


def _not_kept(frame: av.VideoFrame, stream: Any) -> list[str]:
    """What the first frame and the stream say of the clip and the result will not."""
    warnings = []
    components = frame.format.components
    if len(components) in (2, 4) or has_alpha_beside(stream):
        warnings.append("alpha is not kept")
    if (bits := max(component.bits for component in components)) > 10:
        warnings.append(f"{bits} bits become 10")
    if not _turn_of(frame).is_exact:
        warnings.append("it is to be turned by less than a quarter, which is not kept")
    if frame.interlaced_frame:
        warnings.append("interlaced frames are enhanced as they are and marked as progressive; deinterlace first")
    described = {data.type.name for data in cast(Any, frame.side_data)}
    if described & {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"}:
        warnings.append("what the clip says of the display it was mastered on is not kept; its colour tags are")
    if described & {"DOVI_RPU_BUFFER", "DOVI_METADATA", "DYNAMIC_HDR_PLUS"}:
        warnings.append("dynamic HDR metadata (Dolby Vision, HDR10+) are not kept")
    return warnings


def _is_deep(frame: av.VideoFrame) -> bool:
    return max(component.bits for component in frame.format.components) > 8


def _range(frame: av.VideoFrame) -> int:
    return span_of(frame.color_range, frame.format.name)


def _matrix(frame: av.VideoFrame) -> int:
    """BT.601 for a frame that says nothing; the way back is the same, so nothing depends on it."""
    return int(frame.colorspace) if int(frame.colorspace) in (1, 4, 5, 7, 9) else BT601


def _to_rgb(frame: av.VideoFrame) -> Pixels:
    """uint8 or, from more than 8 bits, uint16, (H, W, 3)."""
    name = "rgb48le" if _is_deep(frame) else "rgb24"
    rgb = frame.reformat(
        format=name, src_colorspace=_matrix(frame), src_color_range=_range(frame), interpolation=_exact()
    )
    return rgb.to_ndarray()


def _exact() -> int:
    from av.video.reformatter import Interpolation

    return int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)


def _pixel_format(frame: av.VideoFrame) -> str:
    """The coded format nearest to the source's: its chroma sampling, at 8 or 10 bits."""
    sampling = "420"  # gray too
    if len(frame.format.components) > 2:
        chroma = frame.format.components[1]
        halved = chroma.width < frame.width, chroma.height < frame.height
        whole = frame.width % (1 + halved[0]) == 0 == frame.height % (1 + halved[1])  # encoders halve no odd side
        known = {(True, True): "420", (True, False): "422"}
        if _turn_of(frame).swaps_sides:  # halved columns become halved rows, which encoders do not take
            del known[True, False]
        sampling = known.get(halved, "444") if whole else "444"
    return f"yuv{sampling}p10le" if _is_deep(frame) else f"yuv{sampling}p"


def _write_segment(
    path: Path,
    frames: Iterator[av.VideoFrame],
    form: _Form,
    enhance: Callable[[Pixels], Pixels],
    coding: Coding,
    done: int,
) -> Iterator[int]:
    """Enhances and codes frames into a file of their own; gives the number of frames done after each."""
    import av

    with av.open(str(path), "w", format="nut") as container:
        encoder = _add_encoder(container, form, coding)
        for frame in frames:
            out = _turn_of(frame).upright(enhance(_to_rgb(frame)))
            container.mux(encoder.encode(_to_frame(out, frame, encoder.codec_context)))
            done += 1
            yield done
        container.mux(encoder.encode(None))


def _add_encoder(container: Any, form: _Form, coding: Coding) -> Any:
    name, usual = _ENCODERS[coding.codec]
    encoder = container.add_stream(name, rate=form.rate)
    context = encoder.codec_context
    context.height, context.width = form.height, form.width
    context.pix_fmt = form.pixel_format
    context.time_base = encoder.time_base = form.time_base
    context.sample_aspect_ratio = form.aspect
    context.max_b_frames = 0  # timestamps of segments then follow each other whatever the rate
    for tag, value in form.tags.items():
        setattr(context, tag, value)
    if coding.codec != "ffv1":
        context.options = {"crf": str(usual if coding.crf is None else coding.crf), "preset": "medium"}
    if coding.codec == "x265":
        context.options = {**context.options, "x265-params": "log-level=error:bframes=0"}
    return encoder


def _to_frame(out: Pixels, frame: av.VideoFrame, context: Any) -> av.VideoFrame:
    import av

    name = "rgb48le" if out.dtype == np.uint16 else "rgb24"
    rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(out), name)
    coded = rgb.reformat(
        context.width,
        context.height,
        context.pix_fmt,
        dst_colorspace=_matrix(frame),
        dst_color_range=_range(frame),
        interpolation=_exact(),
    )
    coded.pts, coded.time_base = frame.pts, frame.time_base
    return coded
