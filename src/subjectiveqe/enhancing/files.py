"""Enhancing files and folders; `plan` says what becomes what, `picture` and `video` do it."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from ..errors import PICTURE_FAILED, ConfigError, ImageError, SubjectiveQEError, first_line, reason_of
from ..files import let_go, real_path
from ..formats.photos import FORMATS
from ..formats.saving import Saving
from ..images import sniff_format
from ..machine import memory_bytes
from ..processes import submit
from .enhancer import Enhancer
from .faithful import Faithfulness, check_jpeglib
from .picture import Made, enhance_picture
from .plan import IN_PLACE_IS_ALL, Job, check_lossless, check_options, named_format, plan_jobs
from .video import Video, enhance_video
from .video_files import Coding

Existing = Literal["refuse", "skip", "overwrite"]
"""What happens to results that are there already."""

_ROOMY_BYTES = 8 * 2**30
"""Free memory from which on two pictures at a time are no risk: two that must be held whole take half of it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one picture or video.

    Attributes:
        job: which one.
        status: "done", "skipped" (the result was there) or "failed".
        reason: why it failed, one line.
        warnings: what of the source is not kept.
        megapixels: size of the picture, or of all frames of the video that were not finished before.
        seconds: from opening to the finished file.
        faithfulness: what it took to keep to the file, where that was asked for.
        taken_for: what it, or its first page, seems to have been compressed by, or is assumed to have been, as
            `Enhancer` takes it; None where it seems hardly compressed, or the network does not ask.
        video: more of a video that is done.
    """

    job: Job
    status: Literal["done", "skipped", "failed"]
    reason: str = ""
    warnings: tuple[str, ...] = ()
    megapixels: float = 0.0
    seconds: float = 0.0
    faithfulness: Faithfulness | None = None
    taken_for: str | None = None
    video: Video | None = None

    def as_dict(self) -> dict[str, object]:
        """Plain values, as `sqe enhance --json` prints them."""
        return {
            "source": str(self.job.source),
            "target": str(self.job.target),
            "status": self.status,
            "reason": self.reason,
            "warnings": list(self.warnings),
            "taken_for": self.taken_for,
            "megapixels": round(self.megapixels, 6),
            "seconds": round(self.seconds, 3),
            **({"faithfulness": asdict(self.faithfulness)} if self.faithfulness else {}),
            **({"frames": self.video.frames, "resumed": self.video.resumed} if self.video else {}),
        }


@dataclass
class EnhanceResult:
    """What became of all inputs, in the order in which they were given."""

    outcomes: list[Outcome] = field(default_factory=list)

    def of(self, status: str) -> list[Outcome]:
        """The outcomes of one status."""
        return [outcome for outcome in self.outcomes if outcome.status == status]


class BatchProgress:
    """What a caller may watch; every method does nothing here and is called from the caller's thread."""

    def started(self, total: int) -> None:
        """Called once, with the number of files."""

    def advanced(self, files: float) -> None:
        """Called now and then with how many files are done, parts of files counted."""

    def finished(self, outcome: Outcome) -> None:
        """Called for every file, in the order in which they end."""


def enhance_files(
    inputs: Sequence[Path],
    out: Path | None,
    enhancer: Enhancer,
    *,
    saving: Saving | None = None,
    faithful: bool = False,
    recursive: bool = False,
    suffix: str = "",
    in_place: bool = False,
    existing: Existing = "refuse",
    jobs: int | None = None,
    videos: bool = False,
    coding: Coding | None = None,
    progress: BatchProgress | None = None,
) -> EnhanceResult:
    """Enhances pictures, and then videos, one after the other; one that fails is listed and the batch goes on.

    Format, ICC profile, alpha, gray, EXIF, XMP, print resolution, orientation and, in PNG and TIFF, 16 bits stay as
    they are in the source. What cannot be kept is a warning of the outcome. When this call is interrupted, finished
    files are whole and nothing else is left, but what `enhance_video` goes on with.

    Args:
        inputs: pictures, videos, and folders of them.
        out: a file if there is one input, else a folder; None beside the source, with `suffix` or `in_place`.
        enhancer: see `Enhancer`.
        saving: of pictures: format, quality and what is stripped.
        faithful: keep to what JPEG files say of luma (`LumaIntervals`); pictures of other formats fail.
        recursive: take the files of subfolders too, but of hidden ones; they keep their subfolders in `out`.
        suffix: put between a result's name and its extension.
        in_place: put results in the place of their sources, which is not for videos.
        existing: "refuse" before any work, "skip" or "overwrite" results that are there.
        jobs: pictures worked on at a time; two hide reading and writing altogether, at twice the memory; None for two
            where 8 GiB are free, or nobody knows, and one elsewhere.
        videos: take the videos of folders too, not only those that are named.
        coding: how frames of videos are coded.
        progress: see `BatchProgress`.
    Raises:
        ConfigError: before any picture is read: none found, two that would make one output, an output that is an input
            or exists, or options that do not go together.
        ImageError: the name of `out` is not UTF-8.
    """
    saving, progress = saving or Saving(), progress or BatchProgress()
    if existing not in get_args(Existing):
        raise ConfigError(f'existing: expected one of {", ".join(get_args(Existing))}, got "{existing}"')
    if in_place and existing != "refuse":
        raise ConfigError(IN_PLACE_IS_ALL)
    if faithful:
        check_jpeglib()
    todo = plan_jobs(
        inputs, out, saving, recursive=recursive, suffix=suffix, in_place=in_place, videos=videos, coding=coding
    )
    there = {job for job in todo if not in_place and job.is_there}
    if there and existing == "refuse":
        first = next(job.target for job in todo if job in there)
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ConfigError(f"{first}{more} exists already; add --overwrite, --skip-existing or another --suffix")
    progress.started(len(todo))
    result = EnhanceResult()

    def finish(outcome: Outcome) -> None:
        result.outcomes.append(outcome)
        progress.finished(outcome)

    def advance(begun: float) -> None:
        progress.advanced(len(result.outcomes) + begun)

    def enhance(job: Job, note: Callable[[int, int], None]) -> Outcome:
        return _enhance_one(job, enhancer, saving, faithful, note)

    skipped = there if existing == "skip" else set()
    for job in todo:
        if job in skipped:
            finish(Outcome(job, "skipped"))
    left = [job for job in todo if job not in skipped]
    at_a_time = _pictures_at_a_time() if jobs is None else max(jobs, 1)
    _do_all([job for job in left if not job.is_video], enhance, at_a_time, finish, advance)
    for job in left:
        if job.is_video:  # which keeps all cores busy
            finish(_enhance_clip(job, enhancer, coding, existing == "overwrite", advance))
    place = {job: number for number, job in enumerate(todo)}
    result.outcomes.sort(key=lambda outcome: place[outcome.job])
    return result


def _do_all(
    jobs: Sequence[Job],
    work: Callable[[Job, Callable[[int, int], None]], Outcome],
    at_a_time: int,
    finish: Callable[[Outcome], None],
    advanced: Callable[[float], None],
) -> None:
    """Does jobs in threads, so that this one can be interrupted while libvips and the network are busy.

    Args:
        jobs: each handed to `work` with what it calls with how much of the job is done, and of how much.
        work: gives what became of a job, which `finish` is called with, in this thread.
        at_a_time: how many are worked on at once.
        finish: see `work`.
        advanced: called ten times a second with how much of those that are not finished is done, in jobs.
    """
    parts: dict[Job, float] = {}
    stop = threading.Event()

    def note(job: Job, done: int, total: int) -> None:
        if stop.is_set():
            raise _StoppedError
        parts[job] = done / total

    with ThreadPoolExecutor(max_workers=at_a_time) as pool:
        running: set[Future[Outcome]] = {submit(pool, work, job, partial(note, job)) for job in jobs}
        try:
            while running:
                ended, running = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
                for future in ended:
                    parts.pop(future.result().job, None)
                    finish(future.result())
                advanced(sum(list(parts.values())))
        except BaseException:
            stop.set()
            with _deaf_to_interrupts():
                pool.shutdown(cancel_futures=True)
            raise


def enhance_stream(
    source: Path,
    target: Path,
    enhancer: Enhancer,
    saving: Saving | None = None,
    faithful: bool = False,
    overwrite: bool = False,
) -> Outcome:
    """Enhances one picture from or to a standard stream, for which "-" stands.

    Args:
        source: a file, or "-" for standard input.
        target: a file, or "-" for standard output, in `saving.format` or the source's.
        enhancer: see `Enhancer`.
        saving: how the result is written.
        faithful: see `enhance_files`.
        overwrite: replace a target that is there.
    Returns:
        What became of it, with "standard input" for the name of such a source.
    Raises:
        ConfigError: the target is there, or its format is none that can be written or not what was asked for.
        ImageError: see `open_photo` and `write_photo`.
    """
    saving = saving or Saving()
    if target != Path("-") and target.is_dir():
        raise ConfigError(f"{target}: is a folder; name the file in it, as {target / 'better.png'}")
    if target != Path("-") and target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists already; add --overwrite or give another name")
    for path, stream in ((source, sys.stdin), (target, sys.stdout)):
        if path == Path("-") and stream is None:
            raise ConfigError(f"{path}: this standard stream is closed; give a file")
    start_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sqe-", ignore_cleanup_errors=True) as folder:
        read_in = source == Path("-")
        if read_in:
            source = Path(folder) / "standard input"
            with _errors_name(source), source.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            named = named_format(target, saving) or saving.format
            if named is None and read_in and target != Path("-"):  # which may be meant for a folder
                raise ConfigError(
                    f"{target}: name the file for standard input, as {target / 'better.png'}, or its --format"
                )
            format_out = named or saving.format_for(sniff_format(source))
            check_options(saving, {target: format_out})
            place = Path(folder) / f"standard output{FORMATS[format_out][0]}" if target == Path("-") else target
            made = enhance_picture(source, place, enhancer, saving, format_out, faithful)
        except ImageError as error:  # of a file that nobody but this function knows
            let_go(error)  # of the file too, which is to be deleted
            raise ImageError(str(error).replace(f"{folder}{os.sep}", "")) from None
        if place != target:
            with _errors_name(Path("standard output")), place.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
    return _done(Job(Path(source.name) if read_in else source, target, format_out), made, start_s)


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Names the file to errors of copying, which do not know it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _pictures_at_a_time() -> int:
    free = memory_bytes()
    return 2 if free is None or free >= _ROOMY_BYTES else 1


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ignores a second Ctrl-C for the seconds that obeying the first one takes: files are being put in order."""
    before = signal.getsignal(signal.SIGINT)
    # Signals are not another thread's business, and a handler that is not Python's could not be put back.
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _StoppedError(SubjectiveQEError):
    """The batch was interrupted."""


def _enhance_one(
    job: Job, enhancer: Enhancer, saving: Saving, faithful: bool, progress: Callable[[int, int], None]
) -> Outcome:
    start_s = time.perf_counter()

    def work() -> Outcome:
        kind = sniff_format(job.source)
        if job.target == real_path(job.source) and kind not in FORMATS:
            raise ImageError(f"{kind} is read and not written, so it cannot be replaced; give --out or --suffix")
        format_out = job.format_out or saving.format_for(kind)
        check_lossless(saving, format_out, job.target)
        return _done(
            job, enhance_picture(job.source, job.target, enhancer, saving, format_out, faithful, progress), start_s
        )

    return _outcome_of(job, work)


def _enhance_clip(
    job: Job, enhancer: Enhancer, coding: Coding | None, overwrite: bool, progress: Callable[[float], None]
) -> Outcome:
    start_s, raised = time.perf_counter(), []

    def report(done: int, total: int) -> None:
        try:
            progress(min(done / total, 1) if total else 0)
        except Exception as error:  # of whoever watches, which is no fault of the video's
            raised.append(error)
            raise

    def work() -> Outcome:
        video = enhance_video(job.source, job.target, enhancer, coding, overwrite, report)
        megapixels = math.prod(video.frame_px) * (video.frames - video.resumed) / 1e6
        seconds = time.perf_counter() - start_s
        return Outcome(job, "done", "", video.warnings, megapixels, seconds, taken_for=video.taken_for, video=video)

    outcome = _outcome_of(job, work)
    if raised:
        raise raised[0]
    return outcome


def _outcome_of(job: Job, work: Callable[[], Outcome]) -> Outcome:
    """What `work` says became of a file, or why it failed."""
    if job.unread:
        return Outcome(job, "failed", job.unread)
    try:
        return work()
    except PICTURE_FAILED as error:
        return Outcome(job, "failed", reason_of(error).removeprefix(f"{job.source}: "))
    except Exception as error:  # of a library, by a file of a kind that nobody has met yet; the others are to be done
        return Outcome(job, "failed", f"cannot be enhanced ({type(error).__name__}: {first_line(error)})")


def _done(job: Job, made: Made, start_s: float) -> Outcome:
    photo, report, taken_for = made
    megapixels = photo.height * photo.width / 1e6
    return Outcome(job, "done", "", photo.warnings, megapixels, time.perf_counter() - start_s, report, taken_for)
