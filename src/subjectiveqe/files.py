"""Writing files so that a crash leaves the old one or none, and finding files."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from .errors import ConfigError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to `path` when the block ends well and removed when it does not.

    The data reaches the disk before the rename, so a power cut cannot leave an empty file under the final name. Missing
    parent folders are made.

    Raises:
        PermissionError: before the block, where `path` is there and read-only, which Windows does not replace.
    """
    if sys.platform == "win32" and path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "is read-only", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Half of what a name may be long in bytes, with the rights of any new file, which `tempfile` does not give.
    aside = path.with_name(f".{path.name[:32]}.{secrets.token_hex(6)}{path.suffix[:16]}")
    try:
        aside.touch(exist_ok=False)
    except OSError as error:
        error.filename = str(path)  # whose name people know
        raise
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        if sys.platform != "win32":  # which has but one right, to write, that both files have
            with suppress(FileNotFoundError):  # rights of the file that is replaced stay
                aside.chmod(stat.S_IMODE(path.stat().st_mode))
        _patiently(partial(aside.replace, path))
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk, met while writing
            error.filename = str(path)
        let_go(error)
        with suppress(OSError):  # the error that led here says more
            _patiently(partial(aside.unlink, missing_ok=True))
        raise


def let_go(error: BaseException) -> None:
    """Clears the variables of calls that an error ended, which may hold files open; Windows deletes none such."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__context__


def _patiently(act: Callable[[], object]) -> None:
    """Tries again on Windows, where virus scanners and indexers open new files for a moment."""
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            act()
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end_s:
                raise
            time.sleep(0.05)


_PATIENCE_S = 2.0


@contextmanager
def held(folder: Path, busy: str) -> Iterator[None]:
    """Makes a folder that one process at a time works in, by a lock of the system's, which goes when the process dies.

    Its file goes at the end, and so does the folder, if it was not there and nothing is in it.

    Raises:
        ConfigError: another process works there; with `busy` for a message.
    """
    from filelock import FileLock, Timeout  # 50 ms, which most commands do without

    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(f"{folder}: {busy}") from None
    try:
        yield
    finally:
        is_there = True
        with suppress(OSError):  # while it is held; who had opened it by then finds out that it is gone (filelock 3.24)
            (folder / LOCK).unlink()
            is_there = False
        lock.release()
        with suppress(OSError):  # with files in it, or gone
            if is_there:  # on Windows, which deletes nothing that is held
                (folder / LOCK).unlink(missing_ok=True)
            if is_new:
                folder.rmdir()


LOCK = ".lock"
"""What `held` locks; it stays after a process that was killed."""


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; not where nobody may look, of which `Path.is_dir` makes an error."""
    try:
        return path.is_dir()
    except OSError:
        return False


def list_files(
    folder: Path,
    suffixes: Collection[str],
    recursive: bool = False,
    unread: Callable[[OSError], object] | None = None,
) -> list[Path]:
    """Paths of the files in a folder by extension, sorted; hidden ones and what links to folders lead to are left out.

    Links that lead nowhere are among them: whoever opens one says so.

    Args:
        folder: may be hidden itself.
        suffixes: in lower case, each with its dot.
        recursive: take those of subfolders too, but of hidden ones.
        unread: called with the error for each folder that cannot be read; raised if not given.
    """

    def stop(error: OSError) -> None:
        raise error

    found: list[Path] = []
    for place, inner, names in os.walk(folder, onerror=unread or stop):
        inner[:] = [name for name in inner if recursive and not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    named = (path for path in found if path.suffix.lower() in suffixes)
    return sorted(path for path in named if may_be_file(path) or leads_nowhere(path))


def may_be_file(path: Path) -> bool:
    """Whether a path is a file, as far as can be seen."""
    try:
        return path.is_file()
    except OSError:  # of a folder that may be listed and not entered; whoever opens it will say so
        return True


def leads_nowhere(path: Path) -> bool:
    """Whether a path is a link to what is not there, or to itself in the end."""
    return path.is_symlink() and not path.exists()


def why_no_file(path: Path) -> str:
    """What is wrong with a path that is neither a file nor a folder."""
    if path.exists():  # a pipe, a device
        return "is no file; give - for standard input"
    return "is a link that leads nowhere" if path.is_symlink() else "no such file"


def real_path(path: Path) -> Path:
    """Where a path leads; a link that leads to itself stays what it is, where `Path.resolve` fails."""
    return Path(os.path.realpath(path))


def cache_folder() -> Path:
    """Where the system has the user's cache, and in it the folder of this package, which need not be there yet.

    Raises:
        RuntimeError: a user without a home.
    """
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "subjectiveqe"


def refuse_input(out: Path, inputs: Iterable[Path]) -> None:
    """Raises ConfigError where what is to be written is what is read."""
    for path in inputs:
        if path.exists() and out.exists() and path.samefile(out):
            raise ConfigError(f"{out}: is an input and would be replaced; name another output")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_if_readable(path: Path) -> str:
    """The same, or nothing of a file that nobody may read, which whoever opens it will say."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text under its final name only when it is complete."""
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")
