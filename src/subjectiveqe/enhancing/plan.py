"""Planning what enhancing files will do: what is read, where it goes, and what must never be written over."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..images import EXTENSIONS, list_images
from ..photos import FORMATS
from ..saving import Saving


@dataclass(frozen=True)
class Job:
    """One picture to enhance: where it is, where its result goes, and in which format (None for the source's own)."""

    source: Path
    target: Path
    format_out: str | None


def plan_jobs(
    inputs: Sequence[Path],
    out: Path | None,
    saving: Saving,
    *,
    recursive: bool = False,
    suffix: str = "",
    in_place: bool = False,
) -> list[Job]:
    """Sources and targets of `enhancing.files.enhance_files`; see there for the arguments and errors."""
    if in_place and (out is not None or suffix or saving.format):
        raise ConfigError("--in-place takes neither --out nor --suffix nor --format")
    if out is None and not suffix and not in_place:
        raise ConfigError("where to? give --out, or --suffix for results beside their sources, or --in-place")
    if any(letter in suffix for letter in "/\\"):
        raise ConfigError(f'--suffix "{suffix}": expected a part of a file name, without slashes')
    into_file = (
        out is not None
        and len(inputs) == 1
        and not inputs[0].is_dir()
        and out.suffix.lower() in EXTENSIONS
        and not out.is_dir()
    )
    if out is not None and not into_file:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out}: expected a folder for the pictures, found a file; give another name")
        if out.suffix.lower() in EXTENSIONS and not out.is_dir():
            raise ConfigError(f"{out}: more than one picture needs a folder, got the name of a picture file")
    if into_file and out is not None:
        named = named_format(out, saving)
        if named is None:
            raise ConfigError(f"{out}: cannot write {out.suffix}; known: {', '.join(FORMATS)}")
        jobs = [Job(inputs[0], out.with_stem(out.stem + suffix), named)]
    else:
        jobs = [
            Job(source, source.resolve(), None) if in_place else _job(source, inner, out, saving, suffix)
            for source, inner in _sources(inputs, out, recursive)
        ]
        if suffix and out is None:  # what an earlier run left beside its sources is no input
            results = {job.target for job in jobs}
            jobs = [job for job in jobs if job.source not in results or job.source in inputs]
    if not jobs:
        hint = "" if recursive else "; add -r for those of subfolders"
        raise ConfigError(f"{', '.join(map(str, inputs))}: no pictures found{hint}")
    _refuse_clashes(jobs, in_place)
    for job in jobs:
        check_lossless(saving, job.format_out or format_of(job.source), job.target)
    return jobs


def named_format(target: Path, saving: Saving) -> str | None:
    """The format that the name of a result says; ConfigError where `saving` asks for another."""
    named = format_of(target)
    if named and saving.format not in (None, named):
        raise ConfigError(f'{target}: is named {target.suffix} but --format asks for "{saving.format}"')
    return named


def check_lossless(saving: Saving, format_out: str | None, target: Path) -> None:
    """Raises ConfigError where `saving` asks for a lossless file of a format that has none here."""
    if saving.lossless and format_out == "jpeg":
        raise ConfigError(f"{target}: JPEG has no lossless mode here; add --format png, webp, avif or tiff")


def format_of(path: Path) -> str | None:
    """The format a file's extension stands for; None where it is not one that can be written."""
    return next((name for name, suffixes in FORMATS.items() if path.suffix.lower() in suffixes), None)


def _job(source: Path, inner: Path, out: Path | None, saving: Saving, suffix: str) -> Job:
    named = format_of(source)
    format_out = saving.format_for(named or "")
    extension = source.suffix if named == format_out else FORMATS[format_out][0]
    folder = source.parent if out is None else out / inner.parent
    return Job(source, folder / f"{source.stem}{suffix}{extension}", format_out)


def _sources(inputs: Sequence[Path], out: Path | None, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Every picture once, with its place below the input it came from; earlier results in `out` are no input."""
    seen = set()
    earlier_results = out.resolve() if out is not None else None
    for given in inputs:
        for source in list_images(given, recursive) if given.is_dir() else [given]:
            place = source.parent.resolve() / source.name  # a link and what it points to are two pictures
            is_result = earlier_results in place.parents and earlier_results != given.resolve()
            if place in seen or (given.is_dir() and is_result):
                continue
            seen.add(place)
            yield source, source.relative_to(given) if given.is_dir() else Path(source.name)


def _refuse_clashes(jobs: Sequence[Job], in_place: bool) -> None:
    """Refuses two sources for one target, and a target that is a source under any name: link, hard link, other case."""
    takers: dict[str, Path] = {}
    for job in jobs:
        key = str(job.target).casefold()  # some file systems tell no case apart
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
