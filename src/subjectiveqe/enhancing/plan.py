"""Planning what enhancing files will do: what is read, where it goes, and what must never be written over."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ConfigError
from ..files import is_folder, may_be_file, real_path, why_no_file
from ..formats.photos import FORMATS
from ..formats.saving import LOSSY, Saving
from ..images import EXTENSIONS, check_name, list_images
from . import video_files

IN_PLACE_IS_ALL = (
    "--in-place replaces all, finished ones of an earlier run too, so --overwrite and --skip-existing have no effect; "
    "leave them out"
)
"""What is said where both are asked for."""


@dataclass(frozen=True)
class Job:
    """One picture or video to enhance.

    Attributes:
        source: where it is.
        target: where its result goes.
        format_out: of a picture, key of `FORMATS`; None for that of the source.
        is_video: what it is, by its name.
        unread: why there is nothing to enhance: there is no such file, or it is a folder that cannot be read.
    """

    source: Path
    target: Path
    format_out: str | None = None
    is_video: bool = False
    unread: str = ""

    @property
    def is_there(self) -> bool:
        """A file has the name of the result already."""
        return not self.unread and _status(self.target) is not None


def plan_jobs(
    inputs: Sequence[Path],
    out: Path | None,
    saving: Saving,
    *,
    recursive: bool = False,
    suffix: str = "",
    in_place: bool = False,
    videos: bool = False,
    coding: video_files.Coding | None = None,
) -> list[Job]:
    """Sources and targets of `enhancing.files.enhance_files`; see there for the arguments and errors.

    Videos come last.
    """
    coding = coding or video_files.Coding()
    if in_place and (out is not None or suffix or saving.format):
        raise ConfigError("--in-place takes neither --out nor --suffix nor --format")
    if out is None and not suffix and not in_place:
        last = inputs[-1] if inputs else Path()
        is_meant = len(inputs) > 1 and last.suffix and not os.path.lexists(last)
        instead = f', as in --out "{last}"' if is_meant else ""
        raise ConfigError(f"where to? give --out{instead}, or --suffix for results beside their sources, or --in-place")
    if any(letter in suffix for letter in "/\\"):
        raise ConfigError(f'--suffix "{suffix}": expected a part of a file name, without slashes')
    if out is not None:
        check_name(out)
    into_file = (
        out is not None and len(inputs) == 1 and not is_folder(inputs[0]) and _names_file(out) and not out.is_dir()
    )
    if out is not None and not into_file:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out}: expected a folder for the results, found a file; give another name")
        if out.suffix.lower() in (*EXTENSIONS, *video_files.SUFFIXES) and not out.is_dir():
            raise ConfigError(f"{out}: more than one result needs a folder, got the name of a file")
    unread: list[OSError] = []
    if into_file and out is not None:
        jobs = [_named_job(inputs[0], out.with_stem(out.stem + suffix), saving, coding)]
    else:
        jobs = [
            Job(source, real_path(source), is_video=video_files.is_video(source))
            if in_place
            else _job(source, source if out is None else out / inner, suffix, saving, coding)
            for source, inner in _sources(inputs, out, recursive, videos, unread.append)
        ]
        if suffix:  # by which what an earlier run left among its sources is known; that is no input
            there = [job for job in jobs if job.is_there]
            results = {_place(job.target) for job in there if _place(job.target) != _place(job.source)}
            jobs = [job for job in jobs if job.source in inputs or not results or _place(job.source) not in results]
    if not jobs and not unread:
        hint = "" if recursive else "; add -r for those of subfolders"
        kinds = "pictures or videos" if videos else "pictures"
        raise ConfigError(f"{', '.join(map(str, inputs))}: no {kinds} found{hint}")
    if in_place and (clip := next((job for job in jobs if job.is_video), None)):
        raise ConfigError(f"{clip.source}: --in-place is not for videos; give --out or --suffix")
    _refuse_clashes(jobs, in_place)
    check_options(saving, {job.target: job.format_out for job in jobs if not job.is_video})
    jobs = [job if may_be_file(job.source) else replace(job, unread=why_no_file(job.source)) for job in jobs]
    reasons = {Path(error.filename): f"cannot be read ({error.strerror})" for error in unread}
    jobs += [Job(folder, out or folder, unread=reason) for folder, reason in reasons.items()]
    return sorted(jobs, key=lambda job: job.is_video)


def named_format(target: Path, saving: Saving) -> str | None:
    """The format that the name of a result says, None where it says none.

    Raises:
        ConfigError: it says one that cannot be written, or `saving` asks for another.
    """
    named = format_of(target)
    if named is None and _names_file(target):
        raise ConfigError(f"{target}: cannot write {target.suffix}; known: {', '.join(FORMATS)}")
    if named and saving.format not in (None, named):
        raise ConfigError(f'{target}: is named {target.suffix} but --format asks for "{saving.format}"')
    return named


def check_options(saving: Saving, formats: Mapping[Path, str | None]) -> None:
    """Refuses options that cannot be met, or that none of the results has a use for.

    Args:
        saving: what is asked for.
        formats: of all targets; None where the content of the source will tell.
    Raises:
        ConfigError: a JPEG or GIF is to be lossless, or all results are of formats without quality or chroma.
    """
    for target, format_out in formats.items():
        check_lossless(saving, format_out, target)
    useless = [saving.useless_for(name) if name else [] for name in formats.values()]
    for option in useless[0] if useless else ():
        if all(option in options for options in useless):
            names = ", ".join(sorted({name for name in formats.values() if name}))
            raise ConfigError(f"{option}: not for {names}; leave it out")


def check_lossless(saving: Saving, format_out: str | None, target: Path) -> None:
    """Raises ConfigError where `saving` asks for a lossless file of a format that has none here."""
    if saving.lossless and format_out in LOSSY:
        raise ConfigError(
            f"{target}: {format_out.upper()} has no lossless mode here; "
            "name it .png, .webp, .avif, .heic or .tiff, or add such a --format"
        )


def format_of(path: Path) -> str | None:
    """The format a file's extension stands for; None where it is not one that can be written."""
    return next((name for name, suffixes in FORMATS.items() if path.suffix.lower() in suffixes), None)


def _names_file(path: Path) -> bool:
    """Whether a name ends as those of files do: on a dot and up to four letters and digits, and not on a number."""
    return re.fullmatch(r"\.(?!\d+$)[A-Za-z0-9]{1,4}", path.suffix) is not None


def _named_job(source: Path, target: Path, saving: Saving, coding: video_files.Coding) -> Job:
    if video_files.is_video(source):
        video_files.check_name(target, coding)
        return Job(source, target, is_video=True)
    return Job(source, target, named_format(target, saving))


def _job(source: Path, place: Path, suffix: str, saving: Saving, coding: video_files.Coding) -> Job:
    """A result that goes where `place` is, under a name of its own."""
    if video_files.is_video(source):
        return Job(
            source, place.with_name(f"{source.stem}{suffix}{video_files.suffix_for(source, coding)}"), is_video=True
        )
    named = format_of(source)
    format_out = saving.format_for(named or "")
    extension = source.suffix if named == format_out else FORMATS[format_out][0]
    return Job(source, place.with_name(f"{source.stem}{suffix}{extension}"), format_out)


def _sources(
    inputs: Sequence[Path], out: Path | None, recursive: bool, videos: bool, unread: Callable[[OSError], None]
) -> Iterator[tuple[Path, Path]]:
    """Every picture and video once, with its place below the input it came from; an `out` inside of that is no input.

    Videos in folders are left out unless `videos` says so. `unread` is called with the error for each folder that
    cannot be read.
    """
    seen = set()
    earlier_results = real_path(out) if out is not None else None
    for given in inputs:
        has_results = earlier_results is not None and real_path(given) in earlier_results.parents
        found = [given]
        if is_folder(given):
            found = list_images(given, recursive, unread) + (
                video_files.list_videos(given, recursive) if videos else []
            )
        for source in found:
            place = _place(source)
            if place in seen or (has_results and earlier_results in place.parents):
                continue
            seen.add(place)
            yield source, Path(given.name) if source == given else source.relative_to(given)


def _place(path: Path) -> Path:
    """Where a file is, whatever way leads there; a link and what it points to are two pictures."""
    return real_path(path.parent) / path.name


def _refuse_clashes(jobs: Sequence[Job], in_place: bool) -> None:
    """Refuses two sources for one target, and a target that is a source under any name: link, hard link, other case."""
    takers: dict[str, Path] = {}
    for job in jobs:
        # Some file systems tell no case apart, and some neither one letter from a letter and its accent.
        key = unicodedata.normalize("NFC", str(job.target)).casefold()
        if key in takers:
            raise ConfigError(
                f'"{takers[key]}" and "{job.source}" would both become "{job.target}"; enhance them into two folders'
            )
        takers[key] = job.source
    if in_place:
        return
    sources = {(status.st_dev, status.st_ino): job.source for job in jobs if (status := _status(job.source))}
    for job in jobs:
        status = _status(job.target)
        if status and (status.st_dev, status.st_ino) in sources:
            source = sources[status.st_dev, status.st_ino]
            raise ConfigError(f'"{job.target}" would overwrite the input "{source}"; choose another output')


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
