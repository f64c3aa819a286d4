"""Enhancing files and folders; `plan` says what becomes what."""

from __future__ import annotations

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
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from ..codecs.file_header import file_coarseness
from ..errors import PICTURE_FAILED, ConfigError, ImageError, SubjectiveQEError, first_line, reason_of
from ..files import let_go
from ..formats.photos import FORMATS, Photo, Pixels, open_photo
from ..formats.saving import Saving, write_photo
from ..images import sniff_format
from ..machine import memory_bytes
from ..processes import submit
from .enhancer import Enhancer
from .faithful import Faithfulness, LumaIntervals, check_jpeglib
from .look import Look, mean_look, with_file
from .plan import Job, check_lossless, check_options, named_format, plan_jobs

Existing = Literal["refuse", "skip", "overwrite"]
"""What happens to results that are there already."""

_ROOMY_BYTES = 8 * 2**30
"""Free memory from which on two pictures at a time are no risk: two that must be held whole take half of it."""

_PASSED_ROWS = 64
"""Rows of a page that are passed over at a time."""


IN_PLACE_IS_ALL = (
    "--in-place replaces all, finished ones of an earlier run too, so --overwrite and --skip-existing say nothing; "
    "leave them out"
)


@dataclass(frozen=True)
class Outcome:
    """What became of one picture.

    Attributes:
        job: which picture.
        status: "done", "skipped" (the result was there) or "failed".
        reason: why it failed, one line.
        warnings: what of the source is not kept.
        megapixels: size of the picture.
        seconds: from opening to the finished file.
        faithfulness: what it took to keep to the file, where that was asked for.
        taken_for: what it, or its first page, seems to have been compressed by, or is assumed to have been, as
            `Enhancer` takes it; None where it seems hardly compressed, or the network does not ask.
    """

    job: Job
    status: Literal["done", "skipped", "failed"]
    reason: str = ""
    warnings: tuple[str, ...] = ()
    megapixels: float = 0.0
    seconds: float = 0.0
    faithfulness: Faithfulness | None = None
    taken_for: str | None = None

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
        """Called once, with the number of pictures."""

    def advanced(self, pictures: float) -> None:
        """Called now and then with how many pictures are done, parts of pictures counted."""

    def finished(self, outcome: Outcome) -> None:
        """Called for every picture, in the order in which they end."""


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
    progress: BatchProgress | None = None,
) -> EnhanceResult:
    """Enhances pictures; one that fails is listed and the batch goes on.

    Format, ICC profile, alpha, gray, EXIF, XMP, print resolution, orientation and, in PNG and TIFF, 16 bits stay as
    they are in the source. What cannot be kept is a warning of the outcome. When this call is interrupted, finished
    files are whole and nothing else is left.

    Args:
        inputs: pictures, and folders of pictures.
        out: a picture file if there is one input, else a folder; None beside the source, with `suffix` or `in_place`.
        enhancer: see `Enhancer`.
        saving: format, quality and what is stripped.
        faithful: keep to what JPEG files say of luma (`LumaIntervals`); pictures of other formats fail.
        recursive: take the pictures of subfolders too, but of hidden ones; they keep their subfolders in `out`.
        suffix: put between a result's name and its extension.
        in_place: put results in the place of their sources.
        existing: "refuse" before any work, "skip" or "overwrite" results that are there.
        jobs: pictures worked on at a time; two hide reading and writing altogether, at twice the memory; None for two
            where 8 GiB are free, or nobody knows, and one elsewhere.
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
    todo = plan_jobs(inputs, out, saving, recursive=recursive, suffix=suffix, in_place=in_place)
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

    def enhance(job: Job, note: Callable[[int, int], None]) -> Outcome:
        return _enhance_one(job, enhancer, saving, faithful, note)

    skipped = there if existing == "skip" else set()
    for job in todo:
        if job in skipped:
            finish(Outcome(job, "skipped"))
    _do_all(
        [job for job in todo if job not in skipped],
        enhance,
        _pictures_at_a_time() if jobs is None else max(jobs, 1),
        finish,
        lambda begun: progress.advanced(len(result.outcomes) + begun),
    )
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
            made = _enhance_file(source, place, enhancer, saving, format_out, faithful)
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
    if job.unread:
        return Outcome(job, "failed", job.unread)
    start_s = time.perf_counter()
    try:
        kind = sniff_format(job.source)
        if job.target == job.source.resolve() and kind not in FORMATS:
            raise ImageError(f"{kind} is read and not written, so it cannot be replaced; give --out or --suffix")
        format_out = job.format_out or saving.format_for(kind)
        check_lossless(saving, format_out, job.target)
        made = _enhance_file(job.source, job.target, enhancer, saving, format_out, faithful, progress)
    except PICTURE_FAILED as error:
        return Outcome(job, "failed", reason_of(error).removeprefix(f"{job.source}: "))
    except Exception as error:  # of a library, by a file of a kind that nobody has met yet; the others are to be done
        return Outcome(job, "failed", f"cannot be enhanced ({type(error).__name__}: {first_line(error)})")
    return _done(job, made, start_s)


class _Made(NamedTuple):
    """A file that was enhanced, and what there is to say of it."""

    photo: Photo
    report: Faithfulness | None
    taken_for: str | None


def _done(job: Job, made: _Made, start_s: float) -> Outcome:
    photo, report, taken_for = made
    megapixels = photo.height * photo.width / 1e6
    return Outcome(job, "done", "", photo.warnings, megapixels, time.perf_counter() - start_s, report, taken_for)


def _enhance_file(
    source: Path,
    target: Path,
    enhancer: Enhancer,
    saving: Saving,
    format_out: str,
    faithful: bool,
    progress: Callable[[int, int], None] | None = None,
) -> _Made:
    intervals = LumaIntervals(source, format_out) if faithful else None
    looks = _look_at_pages(source, format_out, enhancer)
    photo = open_photo(source, format_out)
    strips = enhance_photo(photo, enhancer, looks, progress)
    report = Faithfulness() if faithful else None
    if intervals and report:
        strips = intervals.keep(strips, report)
    write_photo(target, photo, strips, saving, format_out)
    if report and not saving.is_lossless(format_out):
        warning = f"saved with loss, as {format_out}: fewer coefficients agree with the file then"
        photo = replace(photo, warnings=(*photo.warnings, warning))
    return _Made(photo, report, enhancer.taken_for(looks[0]))


def _look_at_pages(source: Path, format_out: str, enhancer: Enhancer) -> list[Look]:
    """At each page as a whole; takes a reading of the file to the last patch, which costs little beside the network.

    Frames that are shown one after the other get one look, or the picture would pulse.
    """
    photo = open_photo(source, format_out)
    looks = []
    try:
        for top in range(0, photo.height, photo.page_height):
            rest = photo.page_height

            def read(count: int) -> Pixels:
                nonlocal rest
                rest -= count
                return _as_seen(photo, photo.read(count))

            looks.append(enhancer.look_at_strips(read, photo.page_height, photo.width))
            while rest and top + photo.page_height < photo.height:
                read(min(rest, _PASSED_ROWS))
    finally:
        photo.close()
    if photo.timing:
        looks = [mean_look(looks)] * len(looks)
    if looks[0].coarseness is None or enhancer.assume is not None:
        return looks
    told = file_coarseness(source, len(looks[0].coarseness))
    return [with_file(look, told) for look in looks]


def _as_seen(photo: Photo, rows: Pixels) -> Pixels:
    """Rows of a photo as RGB for the network."""
    return np.repeat(rows[..., -1:], 3, axis=2) if photo.is_gray else rows[..., -3:]


def enhance_photo(
    photo: Photo,
    enhancer: Enhancer,
    looks: Sequence[Look],
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Pixels]:
    """Gives the enhanced rows of a photo, as many bands as it has; alpha, and colours nobody sees, are the photo's own.

    Args:
        photo: read from here to its end.
        enhancer: see `Enhancer`.
        looks: one for each page, see `Enhancer.strips`.
        progress: see `Enhancer.strips`.
    Yields:
        Rows from top to bottom, (n, width, bands) of the photo's type.
    """
    waiting: list[Pixels] = []  # rows of the photo whose enhanced colours are still to come

    def read(count: int) -> Pixels:
        rows = photo.read(count)
        if photo.has_alpha:
            waiting.append(rows[..., : photo.bands])
        return _as_seen(photo, rows)

    for strip in _pages(photo, enhancer, read, looks, progress):
        better = strip[..., :1] if photo.is_gray else strip
        if photo.has_alpha:
            rows = np.concatenate(waiting)
            waiting[:] = [rows[len(strip) :]]
            hidden = rows[: len(strip), :, -1:] == 0
            better = np.dstack((np.where(hidden, rows[: len(strip), :, :-1], better), rows[: len(strip), :, -1]))
        yield better


def _pages(
    photo: Photo,
    enhancer: Enhancer,
    read: Callable[[int], Pixels],
    looks: Sequence[Look],
    progress: Callable[[int, int], None] | None,
) -> Iterator[Pixels]:
    """The strips of all pages one after the other, each page a picture of its own to the network."""
    for page, look in enumerate(looks):

        def advance(done: int, total: int, page: int = page) -> None:
            if progress is not None:
                progress(page * total + done, len(looks) * total)

        yield from enhancer.strips(read, photo.page_height, photo.width, look, advance)
