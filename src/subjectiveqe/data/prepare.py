"""From a folder of clean pictures to a paired store: crop, code, decode, keep both."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .. import __version__
from ..codecs import Codec, crop_to_multiple, get_codec
from ..errors import FULL_DISK, CodecError, ConfigError, ImageError, ShapeError, StoreError, reason_of
from ..files import LOCK, held, sha256_if_readable
from ..images import RGB, list_images, read_rgb, write_png
from ..machine import cpu_count
from .pairs import GRID_PX
from .store import INDEX, JOURNAL, StoredPair, StoredPicture, StoreIndex, crc32, png_files, read_index
from .writer import StoreWriter, refuse_other_settings

LAYOUTS = ("lmdb", "png")
SPLITS = ("all", "train", "valid")
HOLD_OUT_EVERY = 20

_MOST_PROCESSES = 61 if sys.platform == "win32" else 2**10
"""How many a pool may have; what Windows waits for at a time sets that."""


@dataclass(frozen=True)
class PrepareResult:
    """What a store holds when `prepare` is done.

    Args:
        done: pairs in the store.
        pictures: clean pictures in the store.
        skipped: each picture that could not be read or coded, with the reason.
    """

    done: int
    pictures: int
    skipped: tuple[tuple[Path, str], ...]


def prepare(
    source: Path,
    out: Path,
    codec: str,
    levels: Sequence[int],
    *,
    draws: int = 1,
    seed: int = 0,
    layout: str = "lmdb",
    split: str = "all",
    hold_out_every: int = HOLD_OUT_EVERY,
    jobs: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> PrepareResult:
    """Codes every picture of a folder and keeps decoded pictures and originals as a paired store.

    Pictures are cropped at the bottom and right to multiples of 8 px. A run that was killed is continued by the same
    call: finished pictures are not coded again. Until all are, the store does not open. Every call reads all files of
    the folder once, since a store is of what is in them, whatever their names and sizes. Scripts that call it with more
    than one job need `if __name__ == "__main__":`, as workers are started afresh and import the script.

    Args:
        source: folder of clean pictures.
        out: the store to make: a new or empty folder, or one that an earlier run of the same settings left.
        codec: key of `CODECS`.
        levels: QP or QF; a list is taken whole for every picture, of a `range` each picture gets `draws` levels.
        draws: different levels per picture drawn from a `range`, a pure function of seed and file name.
        seed: of the draws.
        layout: "lmdb", or "png" for files that any program reads.
        split: "all", "valid" (sorted by name, each `hold_out_every`-th picture) or "train" (all the others).
        hold_out_every: see `split`; 20 holds out the 20th, 40th, ... picture.
        jobs: processes; 0 is one per core, 1 codes in this process.
        progress: called with the number of finished pictures and of all.
        options: the codec's own (chroma, encoder, ...), see `get_codec`.
    Raises:
        ConfigError: no pictures, none that could be coded, an argument out of range, or another run writes there.
        CodecError: the codec does not work here, or a level is out of its range.
        StoreError: `out` holds something else, or cannot be written (disk full).
    """
    coder = get_codec(codec, **options)
    _check_arguments(coder, levels, draws, layout, split, hold_out_every, jobs)
    paths = _select(source, split, hold_out_every)
    settings = {
        "program": __version__,
        "layout": layout,
        "codec": codec,
        "options": coder.settings(),
        "levels": list(levels),
        "draws": draws if isinstance(levels, range) else None,
        "seed": seed if isinstance(levels, range) else None,
        "split": split,
        "hold_out_every": hold_out_every if split != "all" else None,
        "num_sources": len(paths),
        "sources_sha256": _digest_of(paths),
    }
    if (out / INDEX).exists():
        index = read_index(out)
        refuse_other_settings(out, index.settings, settings)
        return _result(source, index)

    if out.exists() and not (out / JOURNAL).exists() and (not out.is_dir() or {*out.iterdir()} - {out / LOCK}):
        raise StoreError(f"{out}: is there already and is no paired store; choose another name")
    try:
        with held(out, "another run is writing this store; wait for it to end"):
            with StoreWriter(out, settings) as writer:
                total = len(paths)
                tasks = [
                    _Task(path, coder, _levels_of(path.name, levels, draws, seed), out if layout == "png" else None)
                    for path in paths
                    if path.name not in writer.finished
                ]
                skipped = []
                report = progress or _ignore
                report(total - len(tasks), total)
                for number, (task, made) in enumerate(
                    _code_all(tasks, jobs or cpu_count()), start=total - len(tasks) + 1
                ):
                    if isinstance(made, str):
                        skipped.append((task.path.name, made))
                    else:
                        writer.add(*made)
                    report(number, total)
                if writer.finished:
                    index = writer.complete(tuple(sorted(skipped)))
                    return _result(source, index)
            _clear(out)
        name, reason = skipped[0]
        raise ConfigError(f'{source}: none of {total} pictures could be coded; the first, "{name}": {reason}')
    except (OSError, ImageError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        is_full = getattr(error, "errno", None) in (None, *FULL_DISK)
        remedy = "make room and run" if is_full else "run"
        raise StoreError(f'{out}: cannot be written ({reason}); {remedy} "sqe prepare" again to continue') from None


def _check_arguments(
    codec: Codec, levels: Sequence[int], draws: int, layout: str, split: str, hold_out_every: int, jobs: int
) -> None:
    for name, value, known in (("layout", layout, LAYOUTS), ("split", split, SPLITS)):
        if value not in known:
            raise ConfigError(f'{name}: expected one of {", ".join(known)}, got "{value}"')
    if jobs < 0:
        raise ConfigError(f"jobs: expected 0 (one per core) or more, got {jobs}")
    if hold_out_every < 2:
        raise ConfigError(f"hold_out_every: expected 2 or more, got {hold_out_every}")
    if not levels or len(set(levels)) != len(levels):
        raise ConfigError(f"levels: expected one or more different ones, got {list(levels)}")
    if isinstance(levels, range) and not 1 <= draws <= len(levels):
        raise ConfigError(f"draws: expected 1..{len(levels)}, the number of levels in the range, got {draws}")
    codec.check_levels(levels)


def _select(source: Path, split: str, every: int) -> list[Path]:
    if not source.is_dir():
        raise ConfigError(f"{source}: no such folder; expected one of clean pictures")
    paths = list_images(source)
    if not paths:
        raise ConfigError(f"{source}: no pictures in this folder; expected one of clean pictures")
    if split != "all":
        paths = [path for number, path in enumerate(paths, 1) if (number % every == 0) == (split == "valid")]
        if not paths:
            raise ConfigError(f'{source}: too few pictures for split "{split}" with one in {every} held out')
    return paths


def _levels_of(name: str, levels: Sequence[int], draws: int, seed: int) -> tuple[int, ...]:
    """The levels of one picture, so that it gets the same ones in every run and in every order."""
    if not isinstance(levels, range):
        return tuple(levels)
    digest = hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=16).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    return tuple(sorted(int(level) for level in rng.choice(levels, draws, replace=False)))


# ---------------------------------------------------------------- coding, in worker processes


@dataclass(frozen=True)
class _Task:
    path: Path
    codec: Codec
    levels: tuple[int, ...]
    png_folder: Path | None  # workers write PNG files themselves: compressing them takes as long as coding


_Made: TypeAlias = tuple[StoredPicture, list[RGB]]
"""A picture's entry in the index, and its arrays (original first), which are empty where files were written."""


def _code_picture(task: _Task) -> _Made | str:
    """Codes one picture at all its levels; gives the reason where it cannot be read or coded."""
    try:
        gt = crop_to_multiple(read_rgb(task.path), GRID_PX)
        coded = [task.codec.code(gt, level) for level in task.levels]
    except (ImageError, ShapeError, CodecError, MemoryError) as error:
        return reason_of(error)
    arrays = [np.ascontiguousarray(picture) for picture in (gt, *(c.rgb for c in coded))]
    pairs = tuple(
        StoredPair(task.codec.name, level, c.num_bytes, crc32(lq))
        for level, c, lq in zip(task.levels, coded, arrays[1:], strict=True)
    )
    entry = StoredPicture(task.path.name, gt.shape[0], gt.shape[1], crc32(arrays[0]), pairs)
    if task.png_folder is None:
        return entry, arrays
    files = png_files(task.png_folder, entry)
    if any(_is_too_long(path.name, task.png_folder) for path in files):
        return f"{task.path}: its name is too long for the store's files, which add codec and level; shorten it"
    for path, array in zip(files, arrays, strict=True):
        write_png(path, array)
    return entry, []


def _is_too_long(name: str, folder: Path) -> bool:
    """Whether the system of a folder that is there refuses such a name; of one that is not it would not say."""
    try:
        (folder / name).lstat()
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _code_all(tasks: Sequence[_Task], jobs: int) -> Iterator[tuple[_Task, _Made | str]]:
    """Codes all pictures, `jobs` at a time; results come as they are ready, at most 2 x jobs are held in memory."""
    if jobs == 1 or len(tasks) < 2:
        yield from ((task, _code_picture(task)) for task in tasks)
        return
    todo = iter(tasks)
    running: dict[Future[_Made | str], _Task] = {}
    jobs = min(jobs, len(tasks), _MOST_PROCESSES)
    with _one_thread_each(), ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start_worker) as pool:
        try:
            while True:
                with _interrupts_held():
                    for task in islice(todo, 2 * jobs - len(running)):
                        running[pool.submit(_code_picture, task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool:
            why = "a worker process was killed, perhaps for want of memory"
            raise CodecError(f"{why}; run again with fewer jobs to continue") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    if sys.platform == "win32":  # Ctrl-C reaches every process of a console
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process with its parent: a pool's workers wait for ever when their parent is killed with SIGKILL."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Lets Ctrl-C wait, and keeps it for ever from processes started inside: it is their parent's to handle."""
    if sys.platform == "win32":  # where nothing can be held; see `_start_worker`
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.getsignal(signal.SIGINT)
    # The system may give the signal to a thread of a library, which does not hold it, and Python then obeys here.
    is_ours = handler is not None and threading.current_thread() is threading.main_thread()
    came: list[int] = []
    if is_ours:
        signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in came[:1]:
            signal.raise_signal(number)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside use one thread each: there is one for every core already."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VIPS_CONCURRENCY")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _clear(store: Path) -> None:
    """Takes away what is in a store that nothing came of; `held` does the folder."""
    for place in store.iterdir():
        if place.is_dir():
            shutil.rmtree(place)
        elif place.name != LOCK:
            place.unlink()


def _digest_of(paths: Sequence[Path]) -> str:
    """Of the names and contents of files; a file that nobody may read counts by its name, and is skipped later."""
    listing = "".join(f"{path.name}\t{sha256_if_readable(path)}\n" for path in paths)
    return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()


def _result(source: Path, index: StoreIndex) -> PrepareResult:
    skipped = tuple((source / name, reason) for name, reason in index.skipped)
    return PrepareResult(len(index.infos), len(index.pictures), skipped)


def _ignore(done: int, total: int) -> None:
    """Stands in for a progress callback."""
