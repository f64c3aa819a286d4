"""Enhancing files and folders: what is read, where it goes, and what must never be written over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import ConfigError, SubjectiveQEError
from ..images import EXTENSIONS, list_images, read_picture, write_png
from .enhancer import Enhancer


@dataclass
class EnhanceResult:
    """What became of each input.

    Attributes:
        done: pairs of source and the file written.
        failed: pairs of source and the reason, one line.
        warnings: pairs of source and what of it was not kept.
    """

    done: list[tuple[Path, Path]] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    warnings: list[tuple[Path, str]] = field(default_factory=list)


def enhance_files(
    inputs: Sequence[Path],
    out: Path,
    enhancer: Enhancer,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> EnhanceResult:
    """Enhances pictures into PNG files; a picture that fails is listed and the batch goes on.

    ICC profile, alpha, EXIF, XMP and gray stay; pixels are turned upright; 16-bit channels become 8-bit with a
    warning.

    Args:
        inputs: pictures, and folders whose pictures are taken with those of their subfolders.
        out: a .png file if there is one picture, else a folder; pictures from a folder keep their subfolders in it.
            Files there by the same names are replaced, unless one is itself an input.
        enhancer: see `Enhancer`.
        progress: called with the numbers of finished and of all pictures.
    Raises:
        ConfigError: before anything is read: no picture found, two that would make one output, or an output that is
            itself an input.
    """
    jobs = plan_outputs(inputs, out)
    result = EnhanceResult()
    for count, (source, target) in enumerate(jobs, start=1):
        try:
            picture = read_picture(source)
            write_png(target, replace(picture, rgb=enhancer(picture.rgb)))
        except (SubjectiveQEError, OSError, MemoryError) as error:
            reason = str(error) or type(error).__name__
            result.failed.append((source, reason.removeprefix(f"{source}: ")))
        else:
            result.done.append((source, target))
            result.warnings += [(source, warning) for warning in picture.warnings]
        if progress is not None:
            progress(count, len(jobs))
    return result


def plan_outputs(inputs: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Pairs of source and target for `enhance_files`; see there for the arguments and errors."""
    into_file = len(inputs) == 1 and not inputs[0].is_dir() and out.suffix.lower() in EXTENSIONS and not out.is_dir()
    if into_file:
        if out.suffix.lower() != ".png":
            raise ConfigError(f'{out}: pictures are written as PNG; name the output "{out.with_suffix(".png").name}"')
        jobs = [(inputs[0], out)]
    else:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out}: expected a folder for the pictures, found a file; give another name")
        if out.suffix.lower() in EXTENSIONS and not out.is_dir():
            raise ConfigError(f"{out}: more than one picture needs a folder, got the name of a picture file")
        jobs = list(_into_folder(inputs, out))
    if not jobs:
        raise ConfigError(f"{', '.join(map(str, inputs))}: no pictures found; known are {' '.join(sorted(EXTENSIONS))}")
    _refuse_clashes(jobs)
    return jobs


def _into_folder(inputs: Sequence[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    seen = set()
    earlier_results = out.resolve()
    for given in inputs:
        for source in list_images(given, recursive=True) if given.is_dir() else [given]:
            place = source.parent.resolve() / source.name  # a link and what it points to are two pictures
            if place in seen or (
                given.is_dir() and earlier_results in place.parents and earlier_results != given.resolve()
            ):
                continue
            seen.add(place)
            inner = source.relative_to(given) if given.is_dir() else Path(source.name)
            yield source, out / inner.with_suffix(".png")


def _refuse_clashes(jobs: Sequence[tuple[Path, Path]]) -> None:
    """Refuses two sources for one target, and a target that is a source under any name: link, hard link, other case."""
    takers: dict[str, Path] = {}
    for source, target in jobs:
        key = str(target).casefold()  # some file systems tell no case apart
        if key in takers:
            raise ConfigError(
                f'"{takers[key]}" and "{source}" would both become "{target}"; enhance them into two folders'
            )
        takers[key] = source
    sources = {(status.st_dev, status.st_ino): source for source, _ in jobs if (status := _status(source))}
    for _, target in jobs:
        status = _status(target)
        if status and (status.st_dev, status.st_ino) in sources:
            source = sources[status.st_dev, status.st_ino]
            raise ConfigError(f'"{target}" would overwrite the input "{source}"; choose another output')


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
