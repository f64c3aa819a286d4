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
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ImageError, first_line
from ..files import atomic_path, write_text
from ..photos import Pixels
from .enhancer import Enhancer
from .joining import BT601, colour_tags, join, open_video, span_of
from .look import Look
from .steady import Steadier

if TYPE_CHECKING:
    import av

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""What is taken for a video."""

_RESULTS = (".mp4", ".m4v", ".mov", ".mkv")
_ENCODERS = {"x264": ("libx264", 16), "x265": ("libx265", 18), "ffv1": ("ffv1", 0)}
"""Name of the encoder and its usual CRF."""

_SEGMENT_FRAMES = 48
"""What is lost at most when a run is killed."""

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
    """Paths of the videos in a folder, sorted by name; hidden files are left out."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(path for path in found if is_video(path) and not path.name.startswith(".") and path.is_file())


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
    bits) and chroma sampling, and a turned picture lies upright. Memory does not grow with the length. After a kill the
    same call goes on where it was. Frames that cannot be decoded are missing in the result, which a warning says.

    Args:
        source: a video.
        target: .mp4, .m4v, .mov or .mkv.
        enhancer: see `Enhancer`.
        coding: how frames are coded.
        overwrite: replace a target that is there.
        progress: called after each frame with the numbers of finished and all frames, 0 where those are not known.
    Raises:
        ConfigError: the target is there, or cannot hold what was asked for.
        ImageError: the source is missing, damaged, or no video.
    """
    coding = coding or Coding()
    _check_target(source, target, coding, overwrite)
    with _errors_of(source), open_video(source) as container:
        stream = container.streams.video[0]
        total = stream.frames or int((container.duration or 0) / 1e6 * float(stream.average_rate or 0))
        warnings = _not_kept(next(_decode(container), None))
    folder = target.with_name(f".{target.name}.parts")
    state = {"source": _identity(source), "coding": asdict(coding), "strength": enhancer.strength}
    state["model"] = dict(enhancer.metadata)
    _prepare_folder(folder, state)
    with _errors_of(source):
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
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            damage = _Damage()
            decoded = islice(_timed(_decode(container, damage), stream), frames, None)
            for frame in decoded:
                segment = chain((frame,), islice(decoded, _SEGMENT_FRAMES - 1))
                path = folder / f"{segments:06d}.nut"
                with atomic_path(path) as part:
                    done = frames
                    for done in _write_segment(part, segment, stream, enhance, coding, frames):
                        if progress is not None:
                            progress(done, total)
                steadier.save(path.with_suffix(".npz"))
                write_text(path.with_suffix(".json"), json.dumps(done - frames))
                (folder / f"{segments - 1:06d}.npz").unlink(missing_ok=True)
                frames, segments = done, segments + 1
            warnings += damage.warnings(container)
    if not frames:
        raise ImageError(f"{source}: has no frame that can be decoded")
    with _errors_of(source), atomic_path(target) as part:
        warnings += join(source, folder, segments, part, target.suffix)
    shutil.rmtree(folder)
    return Video(frames, resumed, tuple(warnings))


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
def _errors_of(source: Path) -> Iterator[None]:
    """Gives FFmpeg's errors the name of the file and one line."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise ImageError(f"{source}: {first_line(error)}") from error


# ---------------------------------------------------------------- state of an unfinished run


def _identity(source: Path) -> list[Any]:
    status = source.stat()
    return [str(source.resolve()), status.st_size, status.st_mtime_ns]


def _prepare_folder(folder: Path, state: dict[str, Any]) -> None:
    """Keeps the segments of an earlier run of the same job, and drops those of another."""
    note = folder / "job.json"
    text = json.dumps(state, sort_keys=True)
    if folder.exists() and not (note.exists() and note.read_bytes() == text.encode()):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(note, text)


def _count_finished(folder: Path) -> list[int]:
    """Frames of the segments that are whole; the note is written after the segment."""
    counts = []
    for number in range(len(list(folder.iterdir()))):
        note = folder / f"{number:06d}.json"
        if not (note.exists() and note.with_suffix(".nut").exists()):
            break
        with suppress(ValueError):
            counts.append(int(json.loads(note.read_text())))
            continue
        break
    return counts


# ---------------------------------------------------------------- frames


def _estimate(source: Path, enhancer: Enhancer, note: Path) -> NDArray[np.float32] | None:
    """The mean over a few frames all over the clip, each behind a key frame, which may be better than the rest."""
    if note.exists():
        with suppress(ValueError):
            return np.array(json.loads(note.read_text()), np.float32)
    import av

    estimates = []
    for number in range(_SAMPLES):
        with open_video(source) as container:
            with suppress(av.FFmpegError):  # some files cannot be sought; then the first frames have to do
                container.seek(int((container.duration or 0) * number / _SAMPLES))
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
    """What of a video could not be decoded: packets passed over, spans without a frame, the time of the last one."""

    packets: int = 0
    holes_s: list[tuple[float, float]] = field(default_factory=list)
    end_s: float | None = None

    def warnings(self, container: Any) -> list[str]:
        found = []
        rate = container.streams.video[0].average_rate
        least_s = max(_LEAST_MISSING_S, _LEAST_MISSING_FRAMES / rate if rate else 0)
        if self.packets:
            found.append(f"is damaged: {self.packets} packets could not be decoded, their frames are missing")
        if holes := [(start_s, stop_s) for start_s, stop_s in self.holes_s if stop_s - start_s > least_s]:
            more = f" and {len(holes) - 1} times more" if len(holes) > 1 else ""
            found.append(f"has no pictures from {holes[0][0]:.1f} to {holes[0][1]:.1f} s{more}; is the file damaged?")
        length_s = ((container.start_time or 0) + (container.duration or 0)) / 1e6
        end_s = self.end_s or 0.0
        if length_s - end_s > max(least_s, length_s * _LEAST_MISSING_SHARE):
            found.append(f"its pictures end at {end_s:.1f} of {length_s:.1f} s; is the file cut?")
        return found


_LEAST_MISSING_S, _LEAST_MISSING_FRAMES, _LEAST_MISSING_SHARE = 1.0, 10, 0.02
"""How long no picture may come without a word: that many frames at the clip's rate, and at its end, where sound may go
on, that share of it too."""


def _decode(container: Any, damage: _Damage | None = None) -> Iterator[av.VideoFrame]:
    """Frames of the first picture stream; packets that cannot be decoded are passed over."""
    import av

    damage = damage or _Damage()
    for packet in container.demux(video=0):
        try:
            for frame in packet.decode():
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
        if frame.pts is None or (last is not None and frame.pts <= last):
            frame.pts = 0 if last is None else last + step
        last = frame.pts
        yield frame


def _not_kept(frame: av.VideoFrame | None) -> list[str]:
    """What the first frame says of the clip and no frame of the result will."""
    if frame is None:
        return []
    warnings = []
    components = frame.format.components
    if len(components) in (2, 4):
        warnings.append("alpha is not kept")
    if (bits := max(component.bits for component in components)) > 10:
        warnings.append(f"{bits} bits become 10")
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
        is_turned = int(frame.rotation) % 180 != 0  # halved columns become rows then, which encoders do not take
        known = {(True, True): "420"} if is_turned else {(True, True): "420", (True, False): "422"}
        sampling = known.get(halved, "444") if whole else "444"
    return f"yuv{sampling}p10le" if _is_deep(frame) else f"yuv{sampling}p"


def _write_segment(
    path: Path,
    frames: Iterator[av.VideoFrame],
    stream: Any,
    enhance: Callable[[Pixels], Pixels],
    coding: Coding,
    done: int,
) -> Iterator[int]:
    """Enhances and codes frames into a file of their own; gives the number of frames done after each."""
    import av

    encoder = None
    with av.open(str(path), "w", format="nut") as container:
        for frame in frames:
            turns = int(frame.rotation) // 90 % 4
            out = np.rot90(enhance(_to_rgb(frame)), turns)
            if encoder is None:
                encoder = _add_encoder(container, frame, out.shape, stream, coding)
            container.mux(encoder.encode(_to_frame(out, frame, encoder.codec_context)))
            done += 1
            yield done
        if encoder is not None:
            container.mux(encoder.encode(None))


def _add_encoder(container: Any, frame: av.VideoFrame, shape: tuple[int, ...], stream: Any, coding: Coding) -> Any:
    name, usual = _ENCODERS[coding.codec]
    encoder = container.add_stream(name, rate=stream.average_rate or Fraction(25))
    context = encoder.codec_context
    context.height, context.width = shape[:2]
    context.pix_fmt = _pixel_format(frame)
    context.time_base = encoder.time_base = stream.time_base
    context.sample_aspect_ratio = stream.sample_aspect_ratio or Fraction(1)
    context.max_b_frames = 0  # timestamps of segments then follow each other whatever the rate
    for tag, value in colour_tags(stream.codec_context).items():
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
        format=context.pix_fmt,
        dst_colorspace=_matrix(frame),
        dst_color_range=_range(frame),
        interpolation=_exact(),
    )
    coded.pts, coded.time_base = frame.pts, frame.time_base
    return coded
