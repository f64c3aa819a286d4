"""Writing files so that a crash leaves the old one or none, and finding files."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to `path` when the block ends well and removed when it does not.

    The data reaches the disk before the rename, so a power cut cannot leave an empty file under the final name. Missing
    parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Half of what a name may be long in bytes, with the rights of any new file, which `tempfile` does not give.
    aside = path.with_name(f".{path.name[:32]}.{secrets.token_hex(6)}{path.suffix}")
    aside.touch(exist_ok=False)
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):  # rights of the file that is replaced stay
            aside.chmod(stat.S_IMODE(path.stat().st_mode))
        aside.replace(path)
    except OSError as error:
        if error.filename is None:  # a full disk is met while writing, which names no file
            error.filename = str(path)
        raise
    finally:
        aside.unlink(missing_ok=True)


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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text under its final name only when it is complete."""
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8")
