"""Enhancing videos frame by frame; everything that is no picture is copied as it is.

Frames are enhanced and coded in segments, each a finished file beside the result, so that a run that was killed goes on
with the first segment that is missing. At the end the segments' packets are put together with the other streams.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __version__
from ..errors import FULL_DISK, ConfigError, ImageError, first_line
from ..files import LOCK, atomic_path, held, real_path, write_text
from ..formats.rows import Pixels
from ..processes import submit
from .clip import (
    Damage,
    Pictures,
    Turn,
    colour_tags,
    name_for,
    not_kept,
    open_video,
    pixel_format,
    timed,
    to_frame,
    to_rgb,
    turn_of,
)
from .clip_look import ClipLook, look_at_clip
from .clock import Clock, clock_of
from .enhancer import Enhancer
from .joining import join, segment_path
from .look import Look
from .steady import Steadier
from .tells import is_gray
from .video_files import ENCODERS, Coding, check_name

if TYPE_CHECKING:
    import av

_SEGMENT_PX, _SEGMENT_FRAMES = 4e8, (48, 200)
"""How long segments are, unless a key frame of the source comes soon: what is lost when a run is killed is some minutes
of work."""


@dataclass(frozen=True)
class Video:
    """What became of a video.

    Attributes:
        frames: of the result.
        frame_px: width and height of each.
        resumed: how many of them an earlier run had finished.
        warnings: what of the source is not kept, one sentence each.
        taken_for: what its frames seem to have been compressed by, or are assumed to have been, as
            `Enhancer.taken_for` has it; where they differ, on the mean.
    """

    frames: int
    frame_px: tuple[int, int]
    resumed: int
    warnings: tuple[str, ...]
    taken_for: str | None


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
    with _errors_of(source, target), open_video(source) as container:
        pictures = Pictures(container)
        stream = pictures.stream
        total = stream.frames or int((container.duration or 0) / 1e6 * float(stream.average_rate or 0))
        first = next(pictures.decode(), None)
        if first is None:
            raise ImageError(f"{source}: has no frame that can be decoded")
        warnings = not_kept(first, stream)
        form = _Form.of(first, stream)
        clock = clock_of(source)
        given = _Given(source, clock, 0 if clock.places else total)
    folder = target.with_name(f".{_short(target.name)}.parts")
    state = {
        "subjectiveqe": __version__,
        "source": _identity(source),
        "clock": [clock.places, [str(shift_s) for shift_s in clock.shifts_s]],
        "coding": asdict(coding),
        "enhancer": enhancer.identity,
    }
    with held(folder, "another process makes this video; wait for it, or name another output"):
        _prepare_folder(folder, state, overwrite)
        with _errors_of(source, target):
            look = _clip_look(given, enhancer, folder / "look.json")
            made = _make_segments(given, folder, form, enhancer, look, coding, progress)
        with _errors_of(target, target), atomic_path(target) as part:
            warnings += [*made.warnings, *join(source, folder, part, target.suffix, form.tags, clock, made.last_s)]
        for path in _parts(folder):  # as long as it is held: another process may begin there then
            with suppress(OSError):
                path.unlink()
    with suppress(OSError):  # whoever looks into the folder, or has begun there
        folder.rmdir()
    if folder.exists() and not (folder / LOCK).exists():
        warnings.append(f"{folder} is left and can be deleted")
    return Video(
        made.frames, (form.width, form.height), made.resumed, tuple(warnings), enhancer.taken_for(Look(look.mean))
    )


class _Given(NamedTuple):
    """What is known of a source: where it is, its clock, and how many frames it has; 0 where it does not say."""

    path: Path
    clock: Clock
    frames: int


class _Made(NamedTuple):
    """What was made of it: all frames, how many had been finished, what is missing, and how long the last is seen."""

    frames: int
    resumed: int
    warnings: list[str]
    last_s: float


def _make_segments(
    given: _Given,
    folder: Path,
    form: _Form,
    enhancer: Enhancer,
    look: ClipLook,
    coding: Coding,
    progress: Callable[[int, int], None] | None,
) -> _Made:
    """Enhances what is not finished."""
    finished = _count_finished(folder)
    resumed = frames = sum(finished)
    steadier = Steadier()
    if finished:
        steadier.load(segment_path(folder, len(finished) - 1).with_suffix(".npz"))

    def enhance(lq: Pixels, time_s: float) -> Pixels:
        return enhancer.with_look(lq, Look(look.at(time_s + given.clock.begin_s), is_gray=is_gray(lq)))

    with open_video(given.path) as container:
        pictures = Pictures(container)
        stream = pictures.stream
        stream.thread_type = "SLICE"  # of frames in the making, one that fails takes others along
        damage = Damage()
        decoded = islice(timed(pictures.decode(damage, given.clock), stream), frames, None)
        for number, numbered in groupby(_in_segments(decoded, form.segment_frames, len(finished)), itemgetter(0)):
            segment = (frame for _, frame in numbered)
            path = segment_path(folder, number)
            with atomic_path(path) as part:
                done = frames
                for done in _write_segment(part, segment, form, enhance, steadier, coding, frames):
                    if progress is not None:
                        progress(done, given.frames)
            steadier.save(path.with_suffix(".npz"))
            write_text(path.with_suffix(".json"), json.dumps(done - frames))
            segment_path(folder, number - 1).with_suffix(".npz").unlink(missing_ok=True)
            frames = done
        return _Made(frames, resumed, damage.warnings(container, frames, given.clock), damage.last_s)


def _check_target(source: Path, target: Path, coding: Coding, overwrite: bool) -> None:
    check_name(target, coding)
    if not source.exists():
        raise ImageError(f"{source}: no such file")
    if target.exists() and target.samefile(source):
        raise ConfigError(f"{target}: is the source; choose another output")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; add --overwrite or give another name")


@contextmanager
def _errors_of(path: Path, target: Path) -> Iterator[None]:
    """Gives FFmpeg's errors the name of the file and one line; a full disk is that of the result."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        if error.errno in FULL_DISK:
            raise OSError(error.errno, error.strerror, str(target)) from error
        if isinstance(error, av.error.EOFError):
            raise ImageError(f"{path}: ends where more is expected; is the file cut?") from error
        raise ImageError(f"{path}: {(error.strerror or first_line(error)).lower()}") from error


# ---------------------------------------------------------------- state of an unfinished run


def _identity(source: Path) -> list[Any]:
    status = source.stat()
    return [str(real_path(source)), status.st_size, status.st_mtime_ns]


def _prepare_folder(folder: Path, state: dict[str, Any], overwrite: bool) -> None:
    """Keeps the segments of an earlier run of the same job; those of another are dropped where that was said."""
    note = folder / "job.json"
    text = json.dumps(state, sort_keys=True)
    if note.exists() and note.read_bytes() != text.encode():
        if (frames := sum(_count_finished(folder))) and not overwrite:
            raise ConfigError(
                f"{folder}: holds {frames} finished frames of another source, other options, another model or version; "
                "go on with those, or add --overwrite to drop them"
            )
        for path in _parts(folder):
            path.unlink()
    write_text(note, text)


def _short(name: str) -> str:
    """A file's name with room for more of it."""
    stored = os.fsencode(name)
    return name if len(stored) < 240 else f"{name[:32]}.{hashlib.sha256(stored).hexdigest()[:12]}"


def _parts(folder: Path) -> list[Path]:
    """All in a folder but its lock."""
    return [path for path in folder.iterdir() if path.name != LOCK]


def _count_finished(folder: Path) -> list[int]:
    """Frames of the segments that are whole; the note is written after the segment."""
    counts: list[int] = []
    while (path := segment_path(folder, len(counts))).exists():
        try:
            counts.append(int(json.loads(path.with_suffix(".json").read_text())))
        except (OSError, ValueError, TypeError):
            break
    if counts and not segment_path(folder, len(counts) - 1).with_suffix(".npz").exists():
        return []  # a note further on is damaged, and what the next frame depends on went when its segment was done
    return counts


# ---------------------------------------------------------------- segments


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
    turn: Turn

    @classmethod
    def of(cls, frame: av.VideoFrame, stream: Any) -> _Form:
        height, width = frame.height, frame.width
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        turn = turn_of(frame)
        if turn.swaps_sides:
            height, width, aspect = width, height, 1 / aspect
        rate = Fraction(stream.average_rate or 25)
        return cls(height, width, pixel_format(frame), aspect, rate, stream.time_base, colour_tags(frame), turn)

    @property
    def segment_frames(self) -> int:
        """How many frames a segment has, or up to half as many again."""
        least, most = _SEGMENT_FRAMES
        return min(max(int(_SEGMENT_PX / (self.height * self.width)), least), most)


def _clip_look(given: _Given, enhancer: Enhancer, note: Path) -> ClipLook:
    """As `look_at_clip`; an earlier run's is taken as it was."""
    if note.exists():
        with suppress(ValueError, TypeError):
            return ClipLook.from_json(note.read_text())
    look = look_at_clip(given.path, enhancer)
    if given.clock.places:  # by which places are sought
        look = look.throughout
    write_text(note, look.to_json())
    return look


def _in_segments(frames: Iterator[av.VideoFrame], usual: int, number: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Each frame with the number of its segment, from `number` on.

    A segment begins with a key frame, and what rests jumps there by what coding costs it. So the source's own are
    taken, where it jumps anyway: `usual` frames on, the next one of the next half as many, and only else any frame.
    """
    count = 0
    for frame in frames:
        if count >= usual and (frame.key_frame or count >= _longest(usual)):
            count, number = 0, number + 1
        count += 1
        yield number, frame


def _longest(usual: int) -> int:
    return usual * 3 // 2


def _write_segment(
    path: Path,
    frames: Iterator[av.VideoFrame],
    form: _Form,
    enhance: Callable[[Pixels, float], Pixels],
    steadier: Steadier,
    coding: Coding,
    done: int,
) -> Iterator[int]:
    """Enhances and codes frames into a file of their own; gives the number of frames done after each.

    While the network works on a frame, the one before is coded and the next one decoded.
    """
    import av

    with av.open(name_for(path), "w", format="nut") as container, ThreadPoolExecutor(1) as network:
        encoder = _add_encoder(container, form, coding)
        before: tuple[av.VideoFrame, Pixels, Future[Pixels]] | None = None
        for frame in chain(frames, (None,)):
            working = None
            if frame is not None:
                lq = to_rgb(frame)
                working = frame, lq, submit(network, enhance, lq, frame.time)
            if before is not None:
                source, lq, better = before
                out = steadier(lq, better.result())
                container.mux(encoder.encode(to_frame(out, lq, source, form.turn, encoder.codec_context)))
                done += 1
                yield done
            before = working
        container.mux(encoder.encode(None))


def _add_encoder(container: Any, form: _Form, coding: Coding) -> Any:
    name, usual = ENCODERS[coding.codec]
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
        context.gop_size = _longest(form.segment_frames)  # no key frames within, but where scenes change
    if coding.codec == "x264":  # at its usual strength what rests is refined more often
        context.options = {**context.options, "aq-strength": "0.5"}
    if coding.codec == "x265":
        context.options = {**context.options, "x265-params": "log-level=error:bframes=0"}
    return encoder
